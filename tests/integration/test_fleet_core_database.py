"""The database: one owner, the migration and the schema agree, the audit log cannot be edited, copies are made."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, exc, text
from sqlalchemy.orm import Session

import edgeward_fleet.db.schema  # noqa: F401
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.clock import utc_now
from edgeward_fleet.db import migrate
from edgeward_fleet.db.base import Base
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.migrate import upgrade
from edgeward_fleet.db.schema import AccountRow, AuditRow
from edgeward_fleet.errors import DatabaseError, DatabaseUrlError, Invalid

ADA = Actor(name="ada", address="192.0.2.1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{tmp_path / 'fleet.db'}")) as made:
        upgrade(made, tmp_path / "backups", utc_now())
        yield made


def test_the_migrations_lead_to_the_schema(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))

    assert database.with_connection(differences) == []


def test_sqlite_is_set_so_that_a_power_cut_loses_nothing(database: Database) -> None:
    def pragmas(session: Session) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [session.execute(text(f"PRAGMA {name}")).scalar() for name in names]

    assert database.run_sync(pragmas) == ["wal", 2, 1, 5000]


def test_a_disk_that_takes_no_writes_is_no_reason_to_restore_an_old_copy(database: Database) -> None:
    database.run_sync(lambda session: session.execute(text("PRAGMA query_only=ON")).close())
    with pytest.raises(DatabaseError, match="expected a disk that can be written, got: attempt to write") as caught:
        database.run_sync(lambda session: audit.record(session, ADA, "a.b", "x"))
    assert "Look at the disk of the data folder" in caught.value.hint


def test_work_that_lost_a_race_is_done_again_and_says_what_there_is(database: Database) -> None:
    tries = []

    def work(session: Session) -> str:
        tries.append(session)
        if len(tries) == 1:  # as when another replica has committed it in between
            session.execute(text("INSERT INTO settings (key, value) VALUES ('a', '1'), ('a', '2')"))
        return "done"

    assert database.run_sync(work) == "done"
    tries.clear()

    def bug(session: Session) -> None:
        tries.append(session)
        session.execute(
            text("INSERT INTO settings (key, value) VALUES ('a', '1'), ('a', :value)"), {"value": "Ada Lovelace"}
        )

    with pytest.raises(exc.IntegrityError) as caught:
        database.run_sync(bug)
    assert len(tries) == 2
    assert "Ada Lovelace" not in str(caught.value)  # the error is logged, and may be about a patient


def test_a_copy_for_which_there_is_no_room_leaves_nothing_that_passes_for_one(
    database: Database, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    try:
        with pytest.raises(DatabaseError, match="expected to write a copy of the database to"):
            database.copy_to(str(tmp_path / "copy.db"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "copy.db").exists()


def test_the_files_are_their_owners_alone_in_any_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "fleet.db").touch(mode=0o644)  # of a version that left it readable
    with closing(Database(f"sqlite:///{tmp_path / 'fleet.db'}")) as made:
        upgrade(made, tmp_path / "backups", utc_now())
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("fleet.db*")}
    assert modes == {"fleet.db": 0o600, "fleet.db-wal": 0o600, "fleet.db-shm": 0o600}


@pytest.mark.parametrize("url", ["nonsense", "oracle+nothing://host/fleet", "nonsense://host"])
def test_an_address_that_is_none_says_which_option_it_came_from(url: str) -> None:
    with pytest.raises(DatabaseUrlError, match="--database-url: expected ") as caught:
        Database(url)
    assert "EDGEWARD_FLEET_DATABASE_URL" in caught.value.hint
    assert "backups" not in caught.value.hint


def test_a_server_that_does_not_answer_is_not_a_damaged_file() -> None:
    pytest.importorskip("psycopg")
    with (
        closing(Database("postgresql+psycopg://fleet@127.0.0.1:1/fleet?connect_timeout=2")) as database,
        pytest.raises(DatabaseError, match="expected an answer of the database, got") as caught,
    ):
        database.run_sync(lambda session: session.execute(text("SELECT 1")).scalar())
    assert "--database-url" in caught.value.hint and "backups" not in caught.value.hint


def test_a_value_that_a_server_cannot_hold_is_the_callers_fault() -> None:
    """A device whose text has a NUL in it would ask again for ever, and nothing behind it would arrive."""
    pytest.importorskip("psycopg")

    def work(_: Session) -> None:
        raise exc.DataError("INSERT", None, ValueError("text fields cannot contain NUL (0x00) bytes"))

    with (
        closing(Database("postgresql+psycopg://fleet@127.0.0.1:1/fleet")) as database,
        pytest.raises(Invalid, match="expected values that the database can hold, got: text fields cannot contain NUL"),
    ):
        database.run_sync(work)


def test_all_work_runs_in_one_thread_also_when_many_ask_at_once(database: Database) -> None:
    async def main() -> list[str]:
        return list(await asyncio.gather(*(database.run(lambda _: threading.current_thread().name) for _ in range(20))))

    assert set(asyncio.run(main())) == {"database_0"}


def test_what_raises_is_rolled_back_whole(database: Database) -> None:
    def work(session: Session) -> None:
        audit.record(session, ADA, "a.b", "x")
        raise LookupError("no")

    with pytest.raises(LookupError):
        database.run_sync(work)
    assert database.run_sync(audit.verify).entries == 0


async def together(database: Database, works: Sequence[Callable[[Session], int]]) -> list[int | BaseException]:
    """Answers of works that wait while the database is busy with another."""
    gate = threading.Event()
    asking = [asyncio.create_task(database.run(work)) for work in (lambda _: int(gate.wait(10)), *works)]
    await asyncio.sleep(0)  # each has taken its place in the queue
    gate.set()
    return (await asyncio.gather(*asking, return_exceptions=True))[1:]


def noted(number: int) -> Callable[[Session], int]:
    def work(session: Session) -> int:
        audit.record(session, ADA, "a.b", str(number))
        session.flush()
        if number % 5 == 0:
            raise LookupError(number)
        return number

    return work


def test_works_that_wait_share_a_commit_but_no_failure(database: Database) -> None:
    commits: list[Connection] = []
    count = commits.append  # one object: SQLAlchemy knows a listener by its identity
    event.listen(Engine, "commit", count)
    try:
        answers = asyncio.run(together(database, [noted(number) for number in range(20)]))
    finally:
        event.remove(Engine, "commit", count)
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [
        number if number % 5 else LookupError for number in range(20)
    ]
    assert len(commits) <= 2
    assert database.run_sync(audit.verify).entries == 16


def test_a_database_that_fails_fails_all_who_share_the_commit(database: Database) -> None:
    def fill(session: Session) -> int:
        session.execute(text("CREATE TABLE filler (x)"))
        session.execute(text("INSERT INTO filler VALUES (zeroblob(10000000))"))
        return 0

    pages = database.run_sync(lambda session: session.execute(text("PRAGMA page_count")).scalar())
    database.run_sync(lambda session: session.execute(text(f"PRAGMA max_page_count={pages}")).close())
    answers = asyncio.run(together(database, [noted(1), fill, noted(2)]))
    database.run_sync(lambda session: session.execute(text("PRAGMA max_page_count=100000")).close())
    written = database.run_sync(audit.verify).entries
    assert written == sum(isinstance(answer, int) for answer in answers)
    assert isinstance(answers[1], DatabaseError)


def test_a_full_disk_is_said_and_nothing_is_half_written(database: Database) -> None:
    def fill(session: Session) -> None:
        session.execute(text("CREATE TABLE filler (x)"))
        session.execute(text("INSERT INTO filler VALUES (zeroblob(10000000))"))

    pages = database.run_sync(lambda session: session.execute(text("PRAGMA page_count")).scalar())
    database.run_sync(lambda session: session.execute(text(f"PRAGMA max_page_count={pages}")).close())
    with pytest.raises(DatabaseError, match="expected room for the database, got: database or disk is full") as caught:
        database.run_sync(fill)
    assert caught.value.status == 503
    database.run_sync(lambda session: session.execute(text("PRAGMA max_page_count=100000")).close())
    database.run_sync(lambda session: audit.record(session, ADA, "a.b", "x"))
    assert database.run_sync(audit.verify).entries == 1


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit"])
def test_the_database_itself_forbids_to_edit_the_audit_log(database: Database, change: str) -> None:
    database.run_sync(lambda session: audit.record(session, ADA, "a.b", "x", {"n": 1}))
    with pytest.raises(Exception, match="the audit log is append-only"):
        database.run_sync(lambda session: session.execute(text(change)))
    assert database.run_sync(audit.verify).problem is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE audit SET detail = '[]' WHERE sequence = 2", "entry 2: expected its content"),
        ("DELETE FROM audit WHERE sequence = 2", "expected entry 2, got entry 3"),
        ("DELETE FROM audit WHERE sequence = 4", "expected the log to end at entry 4, its end was cut off"),
        (
            "UPDATE settings SET value = 'nonsense' WHERE key = 'audit_head'",
            "expected the log to end at entry nonsense",
        ),
        ("DELETE FROM audit", "expected the log to end at entry 4"),
    ],
)
def test_who_removes_the_trigger_is_still_noticed(database: Database, change: str, words: str) -> None:
    for number in range(4):
        database.run_sync(lambda session, n=number: audit.record(session, ADA, "a.b", "x", {"n": n}))  # type: ignore[misc]
    assert database.run_sync(audit.verify).problem is None
    for statement in ("DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete", change):
        database.run_sync(lambda session, sql=statement: session.execute(text(sql)))  # type: ignore[misc]
    assert words in str(database.run_sync(audit.verify).problem)


def test_pages_of_the_audit_log_join(database: Database) -> None:
    for number in range(7):
        database.run_sync(lambda session, n=number: audit.record(session, ADA, "a.b", str(n)))  # type: ignore[misc]
    first = database.run_sync(lambda session: audit.page(session, after=0, limit=4))
    rest = database.run_sync(lambda session: audit.page(session, after=first[-1].sequence, limit=4))
    assert [entry.subject for entry in first + rest] == [str(number) for number in range(7)]


def test_an_upgrade_copies_the_old_database_first(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upgrade(database, tmp_path / "backups", utc_now()).copy is None  # nothing to change, nothing to copy
    database.run_sync(lambda session: audit.record(session, ADA, "a.b", "x"))
    script = Script(former="0003", head="0004")
    monkeypatch.setattr(migrate, "ScriptDirectory", script)
    monkeypatch.setattr("alembic.command.upgrade", script.upgrade)
    done = upgrade(database, tmp_path / "backups", datetime(2026, 11, 23, tzinfo=UTC))
    assert done.copy == tmp_path / "backups" / "fleet-0003-20261123T000000Z.db"
    assert done.copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(done.copy)) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
        assert copy.execute("SELECT subject FROM audit").fetchall() == [("x",)]
    assert upgrade(database, tmp_path / "backups", utc_now()).former == "0004"


class Script:
    """A migration that is not there yet: Alembic's two faces that `upgrade` uses."""

    def __init__(self, *, former: str, head: str) -> None:
        self._former = former
        self.revision = head

    def from_config(self, _config: object) -> Script:
        return self

    def get_current_head(self) -> str:
        return self.revision

    def walk_revisions(self) -> list[Script]:
        return [self, Script(former="", head=self._former)]

    def upgrade(self, config: Config, _target: str) -> None:
        connection = config.attributes["connection"]
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": self.revision})


def test_a_database_of_a_newer_version_is_refused(database: Database, tmp_path: Path) -> None:
    database.run_sync(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(DatabaseError, match="expected a database of at most revision 0003, got 9999"):
        upgrade(database, tmp_path / "backups", utc_now())


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"no database at all, " * 400)
    with (
        closing(Database(f"sqlite:///{tmp_path / 'fleet.db'}")) as database,
        pytest.raises(DatabaseError, match="expected a sound database, got: file is not a database"),
    ):
        upgrade(database, tmp_path / "backups", utc_now())


def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "fleet.db"
    with closing(Database(f"sqlite:///{file}")) as database:
        upgrade(database, tmp_path / "backups", utc_now())
    content = bytearray(file.read_bytes())
    content[4096 * 5 : 4096 * 9] = b"\xff" * 4096 * 4
    file.write_bytes(content)
    with closing(Database(f"sqlite:///{file}")) as database, pytest.raises(DatabaseError, match="expected a sound"):
        upgrade(database, tmp_path / "backups", utc_now())


@pytest.mark.parametrize("url", ["no url", "sqlite", "nodialect://x/y"])
def test_a_database_url_that_means_nothing_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError, match="expected"):
        Database(url)


def test_times_come_back_as_they_went_in(database: Database) -> None:
    moment = datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC)
    row = AccountRow(
        username="ada", password_hash="x", role="admin", disabled=False, created_at=moment, created_by="system"
    )
    database.run_sync(lambda session: session.add(row))
    found = database.run_sync(lambda session: session.get_one(AccountRow, "ada").created_at)
    assert found == moment
    with pytest.raises(Exception, match="expected a time with a zone"):
        database.run_sync(lambda session: session.query(AuditRow).filter(AuditRow.at > datetime(2026, 1, 1)).all())
