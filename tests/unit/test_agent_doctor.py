"""What the doctor says of the state folder and of the clock, where the agent's errors send people to it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeward_agent.checks import Level
from edgeward_agent.doctor import clock_beside, examine
from edgeward_agent.state_check import folder_check
from edgeward_agent.state_dir import StateDir

NOW_S = 1_800_000_000.0
_SOMEBODY = 65_534


@pytest.fixture
def state() -> Iterator[StateDir]:
    """A folder that somebody who is not root owns; pytest's own folders are closed to them."""
    root = Path(tempfile.mkdtemp(prefix="edgeward-doctor-"))
    for name in ("agent.db", "outbox.db", "boot.json"):
        (root / name).write_bytes(b"")
    if os.geteuid() == 0:
        for each in (root, *root.iterdir()):
            os.chown(each, _SOMEBODY, _SOMEBODY)
    yield StateDir(root)
    root.chmod(0o700)
    shutil.rmtree(root)


@contextmanager
def as_somebody() -> Iterator[None]:
    """Root may do everything, so not as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(_SOMEBODY)
    try:
        yield
    finally:
        if before == 0:
            os.seteuid(before)


def test_a_folder_that_can_be_worked_in_is_left_as_it_was(state: StateDir) -> None:
    before = sorted(state.root.iterdir())
    with as_somebody():
        check = folder_check(state)
    assert (check.level, check.detail) == (Level.OK, f"{state.root} can be read, written and flushed")
    assert sorted(state.root.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("agent.db", 0o000, "a file to read and to write"),
        ("outbox.db", 0o000, "a file to read and to write"),
        ("outbox.db", 0o400, "a file to read and to write"),
        ("boot.json", 0o000, "a file to read"),
        (".", 0o500, "a folder to read and to write in"),
        (".", 0o000, "a folder to read and to write in"),
    ],
)
def test_what_the_agent_may_not_use_is_named(state: StateDir, name: str, mode: int, words: str) -> None:
    path = state.root / name
    path.chmod(mode)
    with as_somebody():
        check = next(examine(state))
        user = os.geteuid()
    assert (check.level, check.detail) == (Level.FAIL, f"{path}: expected {words}, as user {user} it is not")
    assert "chown -R USER" in check.hint


def test_nothing_more_is_said_of_a_folder_that_cannot_be_looked_into(state: StateDir) -> None:
    state.root.chmod(0o000)
    with as_somebody():
        assert [check.name for check in examine(state)] == ["state folder"]


def test_a_folder_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    check = folder_check(StateDir(tmp_path / "new"))
    assert (check.level, check.detail) == (Level.OK, f"{tmp_path / 'new'} is not there yet")


def test_a_limit_of_the_files_size_is_found(state: StateDir) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        check = folder_check(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert check.detail == f"{state.root}: expected to write a file and to flush it, got: File too large"
    assert "ulimit -f" in check.hint and not list(state.root.glob(".doctor*"))


def test_a_read_only_disk_is_found(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root")
    try:
        check = folder_check(StateDir(tmp_path))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert check.level is Level.FAIL and check.detail.endswith("written to, it is read-only")
    assert "Mount it again for writing" in check.hint


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (0, Level.OK, "as the fleet's"),
        (-299, Level.OK, "as the fleet's"),
        (5 * 86_400 + 10, Level.WARN, "5 d ahead of the fleet's"),
        (-2 * 3600, Level.WARN, "2 h behind the fleet's"),
    ],
)
def test_a_clock_is_held_beside_the_fleets(ahead_s: float, level: Level, words: str) -> None:
    check = clock_beside(NOW_S + ahead_s, NOW_S)
    assert (check.level, check.detail) == (level, words)
