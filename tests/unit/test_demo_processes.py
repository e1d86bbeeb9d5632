"""The processes of a demonstration end with it, whichever way it ends."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgeward_fleet.cli.errors import Undecided
from edgeward_fleet.demo.errors import DemoFailed
from edgeward_fleet.demo.processes import Household, last_words
from edgeward_fleet.demo.show import place
from support.waiting import until

_DEMONSTRATION = """\
import sys, time
import tempfile
from pathlib import Path
from edgeward_fleet.demo.processes import Household, last_words
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


def test_who_does_not_answer_because_it_has_ended_is_named(tmp_path: Path) -> None:
    """The client of the fleet sees a refused connection, and would ask to check the network."""
    last_words = "import sys; sys.exit('no room left')"
    with (
        pytest.raises(DemoFailed, match="fleet ended by itself with 1: no room left"),
        Household(tmp_path) as household,
    ):
        fleet = household.run("fleet", [sys.executable, "-c", last_words])
        fleet.process.wait(20)
        raise Undecided("https://localhost: expected a fleet to answer, found: Connection refused")
    with pytest.raises(Undecided), Household(tmp_path):
        raise Undecided("still there, and too slow")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "it said nothing"),
        ("it runs\nit stops\n", "it stops"),
        (
            "it runs\nerror: run/a.sock: expected at most 107 bytes\n  Choose a shorter one.\n",
            "run/a.sock: expected at most",
        ),
    ],
)
def test_the_last_words_are_the_error_and_not_its_hint(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "it.log").write_text(log)
    assert last_words(tmp_path / "it.log").startswith(words)


def test_a_disk_without_room_is_named_with_the_way_to_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DemoFailed, match="expected room .* got: No space left") as caught, place(keep=False):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "TMPDIR=" in caught.value.hint and str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError), place(keep=False):
        raise FileNotFoundError(errno.ENOENT, "No such file")
