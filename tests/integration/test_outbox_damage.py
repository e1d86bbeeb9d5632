"""A store that is not what was written: it begins anew at once, and gives back what can be read."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeward_agent.outbox import recovery
from edgeward_agent.outbox.ballast import Ballast
from edgeward_agent.outbox.model import StoreOptions
from edgeward_agent.outbox.sealing import create_master
from edgeward_agent.outbox.store import Store, open_store
from edgeward_agent.outbox.wal import likely_frames
from edgeward_contract.record import Record
from support.outbox import DEVICE, MemoryFleet, draft, number_of, power_cut, until

OPTIONS = StoreOptions(max_bytes=32 << 20, ballast_bytes=0)
COUNT = 300
PAGE = 4096

Damage = Callable[[Path], None]


async def fill(folder: Path, image: Path) -> str:
    """Records 0 to COUNT - 1, one commit each; the disk as a power cut leaves it goes to `image`. Returns the epoch."""
    async with open_store(folder, device=DEVICE, options=OPTIONS) as store:
        for number in range(COUNT):
            await store.append([draft(number, padding=300)])
        await asyncio.to_thread(power_cut, folder, image)
        return (await store.stats()).epoch


async def salvaged(store: Store, count: int) -> None:
    """Wait until that many damaged stores have been read to the end: each leaves an audit record."""

    async def done() -> bool:
        batch = await store.head()
        return batch is not None and sum(each.kind == "outbox_recovered" for each in batch.records) >= count

    await until(done)


async def everything(store: Store) -> list[Record]:
    fleet = MemoryFleet()
    while batch := await store.head():
        await store.apply((await fleet.deliver(batch)).verdicts)
    return fleet.records


def recover(image: Path) -> tuple[list[Record], tuple[str, ...], str]:
    """Open a damaged image: what it gives back, its alarms, its epoch."""

    async def run() -> tuple[list[Record], tuple[str, ...], str]:
        started = time.monotonic()
        async with open_store(image, device=DEVICE, options=OPTIONS) as store:
            (receipt,) = await store.append([draft(COUNT)])
            assert time.monotonic() - started < 10
            await salvaged(store, 1)
            alarms = (await store.stats()).alarms
            return await everything(store), alarms, receipt.epoch

    return asyncio.run(run())


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def _overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(random.Random(1).randbytes(size))


def a_bit_early_in_the_log(folder: Path) -> None:
    _flip(folder / "outbox.db-wal", 32 + 3 * (PAGE + 24) + 2000)


def a_bit_in_the_last_commit(folder: Path) -> None:
    wal = folder / "outbox.db-wal"
    _flip(wal, _live_end(wal) - 100)


def the_header_of_the_log(folder: Path) -> None:
    _overwrite(folder / "outbox.db-wal", 0, 32)


def the_header_of_the_database(folder: Path) -> None:
    _overwrite(folder / "outbox.db", 0, 100)


def the_first_page_of_the_database(folder: Path) -> None:
    (folder / "outbox.db-wal").write_bytes(b"")
    _overwrite(folder / "outbox.db", 0, PAGE)


def _live_end(wal: Path) -> int:
    return [frame.offset for frame in likely_frames(wal.read_bytes(), PAGE)][-1] + 24 + PAGE


@pytest.mark.parametrize(
    ("damage", "may_lose", "reason"),
    [
        (a_bit_early_in_the_log, 1, "write-ahead log, byte "),
        (a_bit_in_the_last_commit, 1, "write-ahead log, byte "),
        (the_header_of_the_log, 0, "expected the header of a write-ahead log, got a damaged one"),
        (the_header_of_the_database, 0, "expected the header of an SQLite database, got a damaged one"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_records_come_back_from_a_damaged_store(tmp_path: Path, damage: Damage, may_lose: int, reason: str) -> None:
    (tmp_path / "live").mkdir()
    image = tmp_path / "image"
    old_epoch = asyncio.run(fill(tmp_path / "live", image))
    damage(image)
    evidence = {path.name: path.read_bytes() for path in recovery.store_files(image)}
    records, alarms, epoch = recover(image)

    kept = [each for each in records if each.kind == "inference" and each.epoch == old_epoch]
    assert len(kept) >= COUNT - may_lose
    assert [number_of(each) for each in kept] == sorted({number_of(each) for each in kept})
    assert epoch != old_epoch
    assert alarms == ("outbox_corrupt",)
    (note,) = [each.body for each in records if each.kind == "outbox_recovered"]
    assert note["salvaged"] == len(kept)
    assert reason in str(note["reason"])
    folder = image / "quarantine" / "outbox-0001"
    assert {path.name: path.read_bytes() for path in recovery.store_files(folder)} == evidence, "nothing is deleted"
    assert number_of(records[-1]) == COUNT, "what is older goes first"


def test_pages_that_are_left_give_back_their_records(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    image = tmp_path / "image"
    asyncio.run(fill(tmp_path / "live", image))
    the_first_page_of_the_database(image)
    records, alarms, _ = recover(image)
    assert alarms == ("outbox_corrupt",)
    kept = [number_of(each) for each in records if each.kind == "inference"]
    assert kept == sorted(set(kept))
    assert len(kept) > 20, "what had been written back from the log"


def test_a_log_without_its_database_is_kept(tmp_path: Path) -> None:
    """SQLite would delete it. The data keys are gone with the database, so a person must find it again."""
    (tmp_path / "live").mkdir()
    image = tmp_path / "image"
    asyncio.run(fill(tmp_path / "live", image))
    (image / "outbox.db").unlink()
    log = (image / "outbox.db-wal").read_bytes()
    records, alarms, _ = recover(image)
    assert alarms == ("outbox_corrupt",)
    assert [number_of(each) for each in records if each.kind == "inference"] == [COUNT]
    assert (image / "quarantine" / "outbox-0001" / "outbox.db-wal").read_bytes() == log


@pytest.mark.parametrize(("gone", "found"), [(False, "it empty"), (True, "none")])
def test_a_database_that_was_emptied_is_damage(tmp_path: Path, gone: bool, found: str) -> None:
    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            await store.append([draft(number) for number in range(3)])
        (tmp_path / "outbox.db").unlink() if gone else (tmp_path / "outbox.db").write_bytes(b"")
        for _ in range(2):
            async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
                assert (await store.stats()).alarms == ("outbox_corrupt",)
        (folder,) = recovery.quarantined_stores(tmp_path)
        reason = (folder / "reason.txt").read_text()
        assert reason == f"expected the database of an outbox that was begun, found {found}\n"

    asyncio.run(run())


@pytest.mark.parametrize("left", [("outbox.key",), ("outbox.key", "outbox.db")])
def test_a_start_that_was_cut_short_is_no_damage(tmp_path: Path, left: tuple[str, ...]) -> None:
    async def run() -> None:
        (tmp_path / "outbox.db").touch()
        create_master(tmp_path / "outbox.key")
        if "outbox.db" not in left:
            (tmp_path / "outbox.db").unlink()
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            assert (await store.stats()).alarms == ()

    asyncio.run(run())


def test_a_salvage_counts_what_left_no_trace(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            await store.append([draft(number, padding=300) for number in range(COUNT)])
        _overwrite(tmp_path / "outbox.db", PAGE * 20, PAGE)
        _overwrite(tmp_path / "outbox.db", (tmp_path / "outbox.db").stat().st_size - PAGE, PAGE)
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            await salvaged(store, 1)
            (note,) = [each.body for each in await everything(store) if each.kind == "outbox_recovered"]
        lost = COUNT - int(str(note["salvaged"])) - int(str(note["unreadable"]))
        assert note["missing"] == lost > 0

    asyncio.run(run())


@pytest.mark.parametrize("page", [0, *range(1, 24)])
def test_whatever_page_is_destroyed_only_true_records_come_back(tmp_path: Path, page: int) -> None:
    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            await store.append([draft(number, padding=300) for number in range(COUNT)])
        database = tmp_path / "outbox.db"
        _overwrite(database, PAGE * page, PAGE)
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            if recovery.quarantined_stores(tmp_path):
                await salvaged(store, 1)
            records = [each for each in await everything(store) if each.kind == "inference"]
            held = (await store.stats()).quarantined
        assert [each.body for each in records] == [
            {"number": number_of(each), "padding": "x" * 300} for each in records
        ]
        assert len(records) + held >= COUNT - 10, "more is lost than lay on one page"

    asyncio.run(run())


def test_a_row_that_no_longer_opens_is_put_aside_and_blocks_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            await store.append([draft(number, padding=3000) for number in range(10)])
        database = tmp_path / "outbox.db"
        content = database.read_bytes()
        # A page that is full of sealed bytes, not of structure: SQLite sees nothing wrong with it.
        middle = content.index(b"inference") + 1000
        _flip(database, middle)
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            assert len(await everything(store)) == 9
            (held,) = await store.quarantined()
            assert held.record is None
            assert held.reason.startswith("unreadable: expected the bytes that were sealed")
            assert (await store.stats()).alarms == ("outbox_quarantine",)

    asyncio.run(run())


def test_damage_while_running_begins_anew_and_loses_no_call(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            for _ in range(8):
                await store.append([draft(number, padding=2500) for number in range(300)])  # more than SQLite caches
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            before = (await store.stats()).epoch
            database = tmp_path / "outbox.db"
            _overwrite(database, 40 * PAGE, database.stat().st_size - 40 * PAGE)
            assert await store.head() is None
            (receipt,) = await store.append([draft(99)])
            assert receipt.epoch != before
            await salvaged(store, 1)
            assert 99 in [number_of(each) for each in await everything(store) if each.kind == "inference"]

    asyncio.run(run())


def test_damage_that_maintenance_finds_begins_anew(tmp_path: Path) -> None:
    options = replace(OPTIONS, maintain_s=1.5)  # a busy machine must not look before the damage is done

    async def set_aside() -> bool:
        return bool(recovery.quarantined_stores(tmp_path))

    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            for _ in range(8):
                await store.append([draft(number, padding=2500) for number in range(300)])
        async with open_store(tmp_path, device=DEVICE, options=options) as store:
            before = (await store.stats()).epoch
            database = tmp_path / "outbox.db"
            _overwrite(database, 2 * PAGE, database.stat().st_size - 2 * PAGE)
            await until(set_aside)  # nobody asks the store anything meanwhile
            (receipt,) = await store.append([draft(99)])
            assert receipt.epoch != before
            assert (await store.stats()).alarms == ("outbox_corrupt",)

    asyncio.run(run())


def test_a_disk_that_refuses_maintenance_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Ballast) -> bool:
        raise OSError(errno.EROFS, "Read-only file system")

    async def run() -> None:
        options = replace(OPTIONS, maintain_s=0.05, ballast_bytes=64 << 10)
        async with open_store(tmp_path, device=DEVICE, options=options) as store:

            async def neglected() -> bool:
                return "outbox_maintenance" in (await store.stats()).alarms

            async def well() -> bool:
                return not await neglected()

            with monkeypatch.context() as patch:
                patch.setattr(Ballast, "restore", refuse)
                await until(neglected)
            await until(well)
            await store.append([draft(1)])

    asyncio.run(run())


def test_a_check_that_takes_too_long_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(alarms: tuple[str, ...]) -> None:
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            await store.append([draft(number, padding=2000) for number in range(COUNT)])
            assert (await store.stats()).alarms == alarms

    for _ in range(4):
        asyncio.run(run(()))
    for check_s in (0.0, 0.001, 0.002, 0.004):
        monkeypatch.setattr(recovery, "CHECK_S", check_s)
        asyncio.run(run(()))


def test_what_the_fleet_has_is_not_delivered_twice_after_salvage(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    image = tmp_path / "image"
    asyncio.run(fill(tmp_path / "live", image))
    a_bit_early_in_the_log(image)

    async def run() -> None:
        fleet = MemoryFleet()
        async with open_store(image, device=DEVICE, options=OPTIONS) as store:
            await salvaged(store, 1)
            for marker in image.glob("quarantine/*/salvaged.txt"):
                marker.unlink()  # as if the power had gone before the end
            while batch := await store.head():
                await store.apply((await fleet.deliver(batch)).verdicts)
        async with open_store(image, device=DEVICE, options=OPTIONS) as store:
            await salvaged(store, 1)
            while batch := await store.head():
                await store.apply((await fleet.deliver(batch)).verdicts)
        numbers = [number_of(each) for each in fleet.records if each.kind == "inference"]
        assert len(numbers) == len(set(numbers)) >= COUNT - 1

    asyncio.run(run())


@pytest.mark.parametrize("moved", [(), ("outbox.db-wal",), ("outbox.db", "outbox.db-wal")])
def test_a_power_cut_while_the_store_is_moved_aside_loses_nothing(tmp_path: Path, moved: tuple[str, ...]) -> None:
    (tmp_path / "live").mkdir()
    image = tmp_path / "image"
    asyncio.run(fill(tmp_path / "live", image))
    folder = image / "quarantine" / "outbox-0001"
    folder.mkdir(parents=True)
    (folder / "reason.txt").write_text("as found\n")
    (image / "outbox.quarantining").write_text(folder.name)
    for name in moved:
        (image / name).rename(folder / name)
    records, _, _ = recover(image)
    assert [number_of(each) for each in records if each.kind == "inference"] == list(range(COUNT + 1))


@pytest.mark.parametrize("content", [None, b"short", bytes(32)])
def test_without_its_key_a_store_is_kept_and_a_new_one_begins(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "live").mkdir()
    image = tmp_path / "image"
    asyncio.run(fill(tmp_path / "live", image))
    key = image / "outbox.key"
    if content is None:
        key.unlink()
    else:
        key.write_bytes(content)
    records, alarms, _ = recover(image)
    assert alarms == ("outbox_corrupt",)
    (note,) = [each.body for each in records if each.kind == "outbox_recovered"]
    assert (note["salvaged"], note["unreadable"]) == (0, COUNT)
    assert "expected outbox.key to open the data keys" in str(note["reason"])
    assert [number_of(each) for each in records if each.kind == "inference"] == [COUNT]
    assert key.stat().st_size == 32
