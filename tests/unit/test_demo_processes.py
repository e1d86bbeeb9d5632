"""The processes of a demonstration end with it, whichever way it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import until

_DEMONSTRATION = """\
import sys, time
from pathlib import Path
from edgeward_fleet.demo.processes import Household
with Household(Path(sys.argv[1])) as household:
    started = household.run("sleeper", [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(300)"])
    print(started.process.pid, flush=True)
    time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_nothing_goes_on_when_the_demonstration_itself_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _DEMONSTRATION, str(tmp_path)], stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        pid = int(demo.stdout.readline())
        until(lambda: b"up" in (tmp_path / "sleeper.log").read_bytes(), "the process to have begun")
        demo.kill()
    until(lambda: not _lives(pid), "the process to end with the one that started it")


def _lives(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
