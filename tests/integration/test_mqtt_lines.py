"""The same tests with the other line of paho: 1.6.1, which azure-iot-device forces, or the newest of 2.x."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support import mosquitto

OTHER = "paho-mqtt==1.6.1" if version("paho-mqtt").startswith("2.") else "paho-mqtt>=2.1,<3"


@pytest.fixture(scope="module")
def other_line() -> Path:
    """A folder with the other line, kept outside the checkout for the next time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeward-tests"
    folder = cache / OTHER.replace(">", "").replace("<", "").replace("=", "-").replace(",", "-")
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as made:  # whole or not at all, whoever else does the same
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps")
            done = subprocess.run([*pip, "--target", made, OTHER], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            with suppress(OSError):
                Path(made).rename(folder)
            Path(made).mkdir(exist_ok=True)
    return folder


def test_the_other_line_passes_the_same_tests(other_line: Path, checkout: Path) -> None:
    mosquitto.command()  # skips
    environment = {**os.environ, "PYTHONPATH": str(other_line)}
    seen = subprocess.run(
        [sys.executable, "-c", "import paho.mqtt; print(paho.mqtt.__file__)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.startswith(str(other_line))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mqtt and not flood"]
    tests = [
        "tests/conformance/test_link.py",
        *(f"tests/integration/test_mqtt_{name}.py" for name in ("faults", "hostile")),
    ]
    done = subprocess.run(
        [*command, *tests], cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
