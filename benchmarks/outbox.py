"""What a durable record costs over the one thing that it cannot do without: a commit of SQLite that reaches the disk.

The baseline inserts the same bytes with `synchronous=FULL`, one commit each, in the same folder and in turn with ours.
Ours numbers, seals and stores the record; with several callers at once they share a commit.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.report import Result, median_ratio
from edgeward_agent.outbox.model import Draft
from edgeward_agent.outbox.store import Store, open_store
from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import RecordClass
from edgeward_contract.schema import JsonValue

ROUNDS: Final = 9
_RECORDS: Final = 200
_CALLERS: Final = 16
_BODY: Final[Mapping[str, JsonValue]] = {
    "model": "wdbc-risk",
    "version": 2,
    "request_id": "p001",
    "outputs": {"risk": [0.25] * 30},
}
_DRAFT: Final = Draft(record_class=RecordClass.RESULT, kind="inference", body=_BODY)


def measure(rounds: int = ROUNDS) -> Result:
    """On the disk of the working directory: where /tmp is memory it would measure nothing."""
    with tempfile.TemporaryDirectory(prefix="edgeward-bench-", dir=Path.cwd()) as folder:
        return asyncio.run(_measure(Path(folder), rounds))


async def _measure(folder: Path, rounds: int) -> Result:
    raw: list[float] = []
    alone: list[float] = []
    together: list[float] = []
    async with open_store(folder, device=DeviceId("bench")) as store:
        with closing(_database(folder)) as database:
            for _ in range(rounds):
                raw.append(_timed(lambda: _insert(database)))
                alone.append(await _appended(store, callers=1))
                together.append(await _appended(store, callers=_CALLERS))
    return _result(raw, alone, together)


def _result(raw: list[float], alone: list[float], together: list[float]) -> Result:
    rows = {
        "SQLite, a commit each": _figures(raw, raw),
        "outbox, one caller": _figures(alone, raw),
        f"outbox, {_CALLERS} callers": _figures(together, raw),
    }
    return Result(
        what=f"{_RECORDS} durable records, {len(raw)} rounds in turn; ratio of times to plain SQLite", rows=rows
    )


def _figures(times_s: list[float], raw_s: list[float]) -> dict[str, float]:
    middle = sorted(times_s)[len(times_s) // 2]
    return {
        "median_us_per_record": middle / _RECORDS * 1e6,
        "ratio": median_ratio(list(zip(times_s, raw_s, strict=True))),
    }


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _database(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "raw.db", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "CREATE TABLE r (n INTEGER PRIMARY KEY, b)",
    ):
        database.execute(statement)
    return database


def _insert(database: sqlite3.Connection) -> None:
    for _ in range(_RECORDS):
        database.execute("INSERT INTO r (b) VALUES (?)", (json.dumps(dict(_BODY)),))


async def _appended(store: Store, *, callers: int) -> float:
    async def caller() -> None:
        for _ in range(_RECORDS // callers):
            await store.append([_DRAFT])

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    done = _RECORDS // callers * callers
    return (time.perf_counter() - began) * _RECORDS / done
