"""agent.db: what survives what."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edgeward_agent.errors import AgentRunning
from edgeward_agent.update.deployment import Deployment, Trial
from edgeward_agent.update.journal import FILE, Journal, JournalFull, JournalUnusable, read_book
from edgeward_agent.update.machine import Event
from edgeward_agent.update.slots import Installed, Slots
from edgeward_contract.reported import UpdateState
from support.update import MODEL, CutJournal, desired, make_release

ONE = make_release(1)
WANTED = desired(3, ("d1", ONE))
DEPLOYMENT = Deployment.of(WANTED.models[MODEL])
SLOTS = Slots(current=Installed(version=1, sha256=ONE.sha256))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[CutJournal]:
    with closing(CutJournal(tmp_path / FILE)) as journal:
        yield journal


def test_everything_comes_back(tmp_path: Path) -> None:
    trial = Trial(serving_started_us=7, crashes=1, elapsed_s=2.5, earlier_errors=3)
    stored = replace(
        DEPLOYMENT.after(Event.ACCEPT), trial=trial, attempts=2, retries=1, detail="as it was — with a dash"
    )
    with closing(Journal(tmp_path / FILE)) as journal:
        journal.take(WANTED)
        journal.open(DEPLOYMENT)
        journal.store(stored, SLOTS)
    book = read_book(tmp_path)
    assert (book.desired, book.slots, book.deployments) == (WANTED, {MODEL: SLOTS}, {MODEL: stored})


def test_the_newest_deployment_of_a_model_counts(journal: Journal) -> None:
    other = replace(DEPLOYMENT, deployment="d2")
    journal.open(DEPLOYMENT)
    journal.open(other)
    assert journal.load().deployments[MODEL] == other
    journal.open(DEPLOYMENT)
    assert journal.load().deployments[MODEL] == DEPLOYMENT
    assert journal.find(other) == other


def test_a_long_history_is_cut(journal: Journal) -> None:
    every = [replace(DEPLOYMENT, deployment=f"d{number}") for number in range(30)]
    for each in every:
        journal.open(each)
    assert [journal.find(each) is not None for each in every] == [False] * 10 + [True] * 20


def test_empty_slots_are_no_model(journal: Journal) -> None:
    journal.put_slots(MODEL, SLOTS)
    journal.put_slots(MODEL, Slots())
    assert journal.load().slots == {}


def test_one_owner(tmp_path: Path, journal: Journal) -> None:
    program = (
        "import sys; from pathlib import Path; from edgeward_agent.errors import AgentRunning\n"
        "from edgeward_agent.update.journal import Journal\n"
        "try: Journal(Path(sys.argv[1]))\n"
        "except AgentRunning as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / FILE)], capture_output=True, text=True, check=True
    )
    assert run.stdout == "expected agent.db to be free, another process has it open\n"
    with pytest.raises(AgentRunning):
        read_book(tmp_path)


@pytest.mark.parametrize("damage", ["not-a-database", "page", "body"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FILE
    with closing(Journal(path)) as journal:
        journal.open(DEPLOYMENT)
        if damage == "body":
            journal._connection.execute("UPDATE deployments SET body = '{'")
    data = path.read_bytes()
    if damage == "page":
        path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    elif damage == "not-a-database":
        path.write_bytes(b"#" * len(data))
    before = path.read_bytes()
    with closing(Journal(path)) as journal:
        assert journal.quarantined is not None
        assert journal.quarantined.read_bytes() == before
        assert journal.load().deployments == {}
        journal.open(DEPLOYMENT)
    with closing(Journal(path)) as journal:
        assert journal.quarantined is None
        assert journal.load().deployments == {MODEL: DEPLOYMENT}


def test_on_a_full_disk_the_ballast_is_given_up(tmp_path: Path, journal: CutJournal) -> None:
    ballast = tmp_path / f"{FILE}.ballast"
    assert ballast.stat().st_size == 1 << 20
    journal.refusals = 1
    journal.open(DEPLOYMENT)
    assert journal.load().deployments == {MODEL: DEPLOYMENT}
    assert not ballast.exists()
    journal.restore_ballast()
    assert ballast.stat().st_size == 1 << 20


def test_without_any_room_nothing_is_half_stored(journal: CutJournal) -> None:
    journal.open(DEPLOYMENT)
    journal.refusals = 2
    with pytest.raises(JournalFull, match=r"expected room for a few kilobytes in agent\.db, got: .* is full"):
        journal.store(DEPLOYMENT.after(Event.ACCEPT), SLOTS)
    book = journal.load()
    assert (book.deployments[MODEL].state, book.slots) == (UpdateState.OFFERED, {})
    journal.store(DEPLOYMENT.after(Event.ACCEPT), SLOTS)
    assert journal.load().slots == {MODEL: SLOTS}


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A roll-back can be stored although nothing else can: a tmpfs of 3 MB, filled up to the last byte."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs root")
    try:
        with closing(Journal(tmp_path / FILE)) as journal:
            journal.open(DEPLOYMENT)
            fill(tmp_path / "filler")
            for number in range(60):
                journal.store(replace(DEPLOYMENT, detail=str(number) * 200), SLOTS)
            assert not (tmp_path / f"{FILE}.ballast").exists()
            fill(tmp_path / "more")
            with pytest.raises(JournalFull):
                for number in range(200):
                    journal.open(replace(DEPLOYMENT, deployment=f"d{number}", detail="x" * 600))
            (tmp_path / "filler").unlink()
            journal.store(replace(DEPLOYMENT, detail="room again"))
            journal.restore_ballast()
        assert read_book(tmp_path).slots == {MODEL: SLOTS}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_quota_is_waited_for_like_a_full_disk(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(Journal(tmp_path / FILE)) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        try:
            with pytest.raises(
                JournalFull, match=r"expected room for a few kilobytes in agent\.db, got: disk I/O error"
            ):
                for number in range(200):
                    journal.open(replace(DEPLOYMENT, deployment=f"d{number}", detail="x" * 600))
            kept = journal.load().deployments[MODEL]
            with pytest.raises(JournalFull):
                journal.open(replace(DEPLOYMENT, deployment="later", detail="x" * 20_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert journal.load().deployments[MODEL] == kept
        journal.open(replace(DEPLOYMENT, deployment="later"))
    assert read_book(tmp_path).deployments[MODEL].deployment == "later"


def test_a_journal_that_became_read_only_is_waited_for_like_a_full_disk(journal: Journal) -> None:
    journal._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalFull, match="got: attempt to write a readonly database"):
        journal.open(DEPLOYMENT)
    journal._connection.execute("PRAGMA query_only = OFF")
    journal.open(DEPLOYMENT)


@pytest.mark.parametrize("look", [Journal, lambda path: read_book(path.parent)], ids=["opened", "read"])
def test_a_journal_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path, look: Callable[[Path], object]) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(
        JournalUnusable, match=r"agent\.db: expected a database on a disk that works, got: unable to open"
    ):
        look(tmp_path / FILE)
    assert (tmp_path / FILE).is_dir()


def test_a_read_only_disk_is_said_in_one_line(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root")
    try:
        Journal(tmp_path / FILE).close()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(
            JournalUnusable, match=r"agent\.db: expected a file to write to, got: Read-only file system"
        ):
            Journal(tmp_path / FILE)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            os.fsync(file.fileno())
