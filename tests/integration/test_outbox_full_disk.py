"""A really full disk: nothing that was safe is lost, new results are refused, and room brings it back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
SCRIPT = TESTS / "support" / "outbox_full_disk.py"
# A user namespace lets an ordinary user mount a small disk that nobody else sees; root needs it no less to be tidy.
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" "$3" "$4" "$1"'


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "error"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


def _small_disks_are_possible(folder: Path) -> bool:
    try:
        mount = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
        return _run(mount).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("scenario", ["fills", "crowded"])
def test_a_small_disk_that_fills_up(tmp_path: Path, scenario: str) -> None:
    if not _small_disks_are_possible(tmp_path):
        pytest.skip("needs root or user namespaces to mount a small disk")
    arguments = ["sh", str(tmp_path), sys.executable, str(SCRIPT), scenario]
    done = _run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, *arguments])
    assert done.returncode == 0, done.stderr


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    done = _run([sys.executable, str(SCRIPT), "limited", str(tmp_path)])
    assert done.returncode == 0, done.stderr
