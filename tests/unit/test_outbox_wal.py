"""The scan of a write-ahead log against real ones, written by SQLite itself."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeward_agent.outbox.wal import FRAME_HEADER_BYTES, HEADER_BYTES, find_damage, frames

PAGE = 4096
COMMITS = 30
STEP = FRAME_HEADER_BYTES + PAGE


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of which everything but the schema is in the log, in a second generation over an older, longer one."""
    live = tmp_path_factory.mktemp("live") / "x.db"
    copy = tmp_path_factory.mktemp("cut") / "x.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE t (n INTEGER, data BLOB)")
        for _ in range(COMMITS):
            connection.execute("INSERT INTO t VALUES (-1, randomblob(9000))")
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        for number in range(COMMITS):
            connection.execute("INSERT INTO t VALUES (?, randomblob(500))", (number,))
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{live}{suffix}", f"{copy}{suffix}")
    return copy


def _wal(store: Path) -> bytes:
    return Path(f"{store}-wal").read_bytes()


def _seen(store: Path, wal: bytes, folder: Path) -> int:
    copy = folder / "y.db"
    shutil.copyfile(store, copy)
    Path(f"{copy}-wal").write_bytes(wal)
    with closing(sqlite3.connect(copy)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM t WHERE n >= 0").fetchone()
    return int(count)


def _live_bytes(wal: bytes) -> int:
    salts = next(frames(wal, PAGE)).salts
    return HEADER_BYTES + STEP * sum(frame.salts == salts for frame in frames(wal, PAGE))


def test_a_sound_log_over_an_older_one_is_sound(store: Path, tmp_path: Path) -> None:
    wal = _wal(store)
    assert _live_bytes(wal) < len(wal), "the older generation should show behind the newer one"
    assert find_damage(wal, PAGE) is None
    assert _seen(store, wal, tmp_path) == COMMITS


@pytest.mark.parametrize("part", ["header", "first", "middle", "last", "anywhere"])
def test_a_flipped_bit_is_noticed_wherever_it_hides_a_commit(store: Path, tmp_path: Path, part: str) -> None:
    wal, chosen = _wal(store), random.Random(part)
    live = _live_bytes(wal)
    span = {
        "header": (0, HEADER_BYTES),
        "first": (HEADER_BYTES, HEADER_BYTES + FRAME_HEADER_BYTES),
        "middle": (HEADER_BYTES + STEP * 9, HEADER_BYTES + STEP * 9 + FRAME_HEADER_BYTES),
        "last": (live - STEP, live),
        "anywhere": (0, live),
    }[part]
    hidden = 0
    for turn in range(40):
        damaged = bytearray(wal)
        damaged[chosen.randrange(*span)] ^= 1 << chosen.randrange(8)
        folder = tmp_path / str(turn)
        folder.mkdir()
        if _seen(store, bytes(damaged), folder) < COMMITS:
            hidden += 1
            assert find_damage(bytes(damaged), PAGE) is not None
    assert hidden


def test_a_write_that_was_cut_short_is_no_damage(store: Path) -> None:
    wal, chosen = _wal(store), random.Random(1)
    live = _live_bytes(wal)
    for _ in range(40):
        assert find_damage(wal[: chosen.randrange(live)], PAGE) is None
    assert find_damage(b"", PAGE) is None
    assert find_damage(bytes(100_000), PAGE) is None


def test_an_unfinished_commit_behind_the_last_is_no_damage(store: Path) -> None:
    wal = _wal(store)
    live = _live_bytes(wal)
    header = bytearray(wal[HEADER_BYTES : HEADER_BYTES + FRAME_HEADER_BYTES])
    header[4:8] = bytes(4)  # no commit: the first of several pages
    assert find_damage(wal[:live] + bytes(header) + b"torn" * (PAGE // 4), PAGE) is None


@pytest.mark.parametrize("written", [FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + 1000, STEP - 64])
def test_a_commit_that_was_cut_short_over_an_older_generation_is_no_damage(store: Path, written: int) -> None:
    """The head is there, of the page only a part: behind it lies what was there before.

    A disk cuts between sectors. Where a single byte were missing, it could differ from the old one in a single bit.
    """
    wal = _wal(store)
    live = _live_bytes(wal)
    older = wal[live + FRAME_HEADER_BYTES : live + STEP]
    torn = wal[: live - STEP + written] + older[written - FRAME_HEADER_BYTES :] + wal[live:]
    assert len(torn) == len(wal)
    assert find_damage(torn, PAGE) is None
    before = HEADER_BYTES + STEP * 9
    assert find_damage(wal[: before + written] + older[: STEP - written] + wal[before + STEP :], PAGE) is not None


def test_damage_says_where(store: Path) -> None:
    damaged = bytearray(_wal(store))
    damaged[HEADER_BYTES + STEP * 3 + 100] ^= 1
    found = find_damage(bytes(damaged), PAGE)
    assert found is not None
    assert found.offset == HEADER_BYTES + STEP * 3
    assert "a later commit is cut off" in found.problem
