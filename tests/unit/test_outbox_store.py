"""The store against a real file: order, numbers, room, quarantine, keys."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from edgeward_agent.errors import AgentRunning, OutboxFull, OutboxUnwritable
from edgeward_agent.outbox import inspect
from edgeward_agent.outbox.disk import refusal
from edgeward_agent.outbox.model import Receipt, RecordRefused, StoreOptions
from edgeward_agent.outbox.offline import offline_lines
from edgeward_agent.outbox.store import Store, open_store
from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import Batch, Record, RecordClass, Verdict, VerdictStatus
from edgeward_contract.schema import Fields
from support.outbox import DEVICE, SMALL, ImpatientClock, accept, draft, number_of, power_cut

T = TypeVar("T")
TINY = StoreOptions(max_bytes=1 << 20, ballast_bytes=0)


def run(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(work)


def verdict(record: Record, status: VerdictStatus, reason: str = "") -> Verdict:
    return Verdict(epoch=record.epoch, sequence=record.sequence, status=status, reason=reason)


async def take(store: Store) -> Batch:
    batch = await store.head()
    assert batch is not None
    return batch


async def drain(store: Store) -> list[Record]:
    records: list[Record] = []
    while batch := await store.head():
        records += batch.records
        await store.apply(accept(batch))
    return records


def test_records_come_out_by_class_and_then_in_order(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            for number, record_class in enumerate([*RecordClass, *RecordClass][::-1]):
                await store.append([draft(number, record_class)])
            return [number_of(record) for record in (await take(store)).records]

    assert run(scenario()) == [2, 5, 1, 4, 0, 3]


def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    async def once() -> list[Receipt]:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            receipts = [*await store.append([draft(1), draft(2)]), *await store.append([draft(3)])]
            await drain(store)
            return receipts

    receipts = run(once()) + run(once())
    assert len({each.epoch for each in receipts}) == 1
    assert [each.sequence for each in receipts] == [1, 2, 3, 4, 5, 6]


def test_callers_at_once_share_commits_and_keep_their_order(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        async with open_store(tmp_path, device=DEVICE, options=StoreOptions()) as store:
            await asyncio.gather(*(store.append([draft(number)]) for number in range(600)))
            return [number_of(record) for record in await drain(store)]

    assert run(scenario()) == list(range(600))


def test_a_batch_keeps_within_its_limits_but_always_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            await store.append([draft(number, padding=5000) for number in range(20)])
            limited = await store.head(limit_bytes=20_000)
            assert limited is not None
            assert len(limited.records) == 3
            assert len(limited.canonical()) <= 20_000
            few, one = await store.head(limit_records=7), await store.head(limit_bytes=1)
            assert few is not None
            assert one is not None
            assert (len(few.records), len(one.records)) == (7, 1)

    run(scenario())


def test_a_rejected_record_goes_to_quarantine_and_back_to_its_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            await store.append([draft(1), draft(2)])
            first = (await take(store)).records[0]
            applied = await store.apply([verdict(first, VerdictStatus.REJECTED, "no such model")])
            assert (applied.removed, applied.quarantined) == (0, 1)
            (held,) = await store.quarantined()
            assert (held.record, held.reason) == (first, "no such model")
            stats = await store.stats()
            assert (stats.records, stats.quarantined, stats.alarms) == (1, 1, ("outbox_quarantine",))
            assert await store.requeue([held.row, 12345]) == 1
            assert [number_of(each) for each in (await take(store)).records] == [1, 2]
            assert (await store.stats()).alarms == ()

    run(scenario())


def test_a_verdict_twice_or_on_nothing_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            await store.append([draft(1)])
            batch = await take(store)
            assert (await store.apply(accept(batch))).removed == 1
            again = await store.apply([verdict(each, status) for each in batch.records for status in VerdictStatus])
            assert (again.removed, again.quarantined, again.moved) == (0, 0, 0)

    run(scenario())


def test_a_conflict_starts_an_epoch_and_moves_only_what_conflicts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            await store.append([draft(number) for number in range(1, 5)])
            old = (await take(store)).records
            applied = await store.apply(
                [verdict(old[0], VerdictStatus.DUPLICATE)]
                + [verdict(each, VerdictStatus.CONFLICT) for each in old[1:3]]
            )
            assert (applied.removed, applied.moved) == (1, 2)
            (receipt,) = await store.append([draft(5)])
            now = (await take(store)).records
            assert [number_of(each) for each in now] == [2, 3, 4, 5]
            assert now[2].epoch == old[3].epoch, "a row without a verdict may be in the fleet under its old number"
            fresh = [now[0], now[1], now[3]]
            assert {each.epoch for each in fresh} == {receipt.epoch} != {old[0].epoch}
            assert [each.sequence for each in fresh] == sorted({each.sequence for each in fresh})
            assert (await store.apply([verdict(now[2], VerdictStatus.CONFLICT)])).moved == 1
            later = (await take(store)).records
            assert [number_of(each) for each in later] == [2, 3, 4, 5]
            assert {each.epoch for each in later} == {receipt.epoch}
            assert [each.sequence for each in later] == sorted({each.sequence for each in later})

    run(scenario())


def test_a_full_store_refuses_results_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=TINY) as store:
            taken = 0
            with pytest.raises(OutboxFull, match=r"expected room within 1048576 bytes, found \d+ in use"):
                while True:
                    await store.append([draft(taken, padding=3000)])
                    taken += 1
            assert taken > 150
            stats = await store.stats()
            assert (stats.records, stats.refused, stats.alarms) == (taken, 1, ("outbox_full",))
            await store.append([draft(-1)], durable=False)  # counted, not raised
            with pytest.raises(RecordRefused):
                await store.append([draft(-1, padding=2 << 20)])
            assert (await store.stats()).refused == 3
            assert [number_of(each) for each in await drain(store)] == list(range(taken))
            await store.append([draft(taken)])
            assert (await store.stats()).alarms == ()

    run(scenario())
    assert caplog.messages[-1] == "the outbox takes results again; 2 were refused"


def test_a_disk_that_takes_nothing_is_not_called_full(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=TINY) as store:
            ledger = store._owner._ledger
            assert ledger is not None
            store._owner.call(lambda ledger: ledger.connection.execute("PRAGMA query_only=ON")).result()
            with pytest.raises(
                OutboxUnwritable, match=r"refused with \d+ bytes free: it is broken, or .* \(attempt to"
            ):
                await store.append([draft(1)])
            assert (await store.stats()).alarms == ("outbox_unwritable",)
            store._owner.call(lambda ledger: ledger.connection.execute("PRAGMA query_only=OFF")).result()
            await store.append([draft(1)])
            assert list((await store.stats()).alarms) == []

    run(scenario())


def test_a_ballast_that_the_disk_has_no_room_for_is_named(tmp_path: Path) -> None:
    """With gigabytes free it was called a full disk, and the way out was said to be a larger outbox."""

    async def scenario() -> None:
        options = StoreOptions(max_bytes=1 << 20, ballast_bytes=1 << 60)
        async with open_store(tmp_path, device=DEVICE, options=options) as store:
            with pytest.raises(OutboxFull, match=r"expected \d+ bytes free on the disk, twice outbox\.ballast_bytes"):
                await store.append([draft(1)])

    run(scenario())


@pytest.mark.parametrize(
    ("free", "flag", "kind", "words"),
    [
        (
            1 << 30,
            os.ST_RDONLY,
            OutboxUnwritable,
            "expected a disk that takes the outbox, found it read-only (disk I/O)",
        ),
        (4096, 0, OutboxFull, "expected room on the disk for the outbox, found 4096 bytes (disk I/O)"),
        (1 << 30, 0, OutboxUnwritable, "expected the disk to take the outbox, refused with 1073741824 bytes free: "),
    ],
)
def test_the_disk_says_why_it_takes_nothing(free: int, flag: int, kind: type[Exception], words: str) -> None:
    disk = os.statvfs_result((4096, 1, 0, free, free, 0, 0, 0, flag, 255))
    said = refusal(OutboxUnwritable("disk I/O"), disk)
    assert (type(said), str(said)[: len(words)]) == (kind, words)


def test_telemetry_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    total = 600

    async def scenario() -> tuple[list[Record], int]:
        async with open_store(tmp_path, device=DEVICE, options=TINY) as store:
            for number in range(total):
                await store.append([draft(number, RecordClass.TELEMETRY, padding=3000)])
            dropped = (await store.stats()).dropped
            return await drain(store), dropped

    records, dropped = run(scenario())
    kept = [number_of(each) for each in records if each.kind != "tombstone"]
    assert kept == list(range(total - len(kept), total))
    spans = [_span(each) for each in records if each.kind == "tombstone"]
    assert sum(count for _, _, count in spans) == dropped == total - len(kept) > 0
    known = {each.sequence for each in records}
    gap = set(range(1, max(known) + 1)) - known
    assert gap <= {number for first, last, _ in spans for number in range(first, last + 1)}


def _span(tombstone: Record) -> tuple[int, int, int]:
    body = Fields.of(dict(tombstone.body), "body")
    return body.integer("first"), body.integer("last"), body.integer("count")


def test_telemetry_makes_way_for_results(tmp_path: Path) -> None:
    async def scenario() -> list[Record]:
        async with open_store(tmp_path, device=DEVICE, options=TINY) as store:
            await store.append([draft(number, RecordClass.TELEMETRY, padding=3000) for number in range(100)])
            results = 0
            with pytest.raises(OutboxFull):
                while True:
                    await store.append([draft(results, padding=3000)])
                    results += 1
            for number in range(5):  # nothing is left to drop: it is itself what goes
                await store.append([draft(number, RecordClass.TELEMETRY, padding=3000)])
            assert (await store.stats()).dropped == 105
            return await drain(store)

    records = run(scenario())
    results = [number_of(each) for each in records if each.record_class is RecordClass.RESULT]
    assert results == list(range(len(results)))
    assert len(results) > 150
    (stone,) = [each for each in records if each.record_class is RecordClass.TELEMETRY]
    assert stone.body["count"] == 105


def test_a_record_too_large_or_not_json_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            with pytest.raises(RecordRefused, match="expected at most 262144 bytes"):
                await store.append([draft(1, padding=300_000)])
            assert await store.head() is None

    run(scenario())


def test_one_agent_per_folder(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL):
            with pytest.raises(AgentRunning, match="another process has it open"):
                async with open_store(tmp_path, device=DEVICE, options=SMALL):
                    raise AssertionError

    run(scenario())


def test_nothing_readable_lies_on_the_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            await store.append([draft(1, padding=2000)])
            assert not _on_disk(tmp_path, b"xxxxxxxx")
            modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("outbox.db", "outbox.db-wal")}
            assert set(modes.values()) == {0o600}

    run(scenario())


def test_after_acknowledgement_and_a_day_the_key_and_the_bytes_are_gone(tmp_path: Path) -> None:
    clock = ImpatientClock()

    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL, clock=clock) as store:
            await store.append([draft(1, padding=2000)])
            with closing(sqlite3.connect(power_cut(tmp_path, tmp_path.with_name("image")) / "outbox.db")) as image:
                (sealed,) = image.execute("SELECT sealed FROM records").fetchone()
                (wrapped,) = image.execute("SELECT wrapped FROM period_keys").fetchone()
            assert _on_disk(tmp_path, sealed[:100])
            await drain(store)
            await store.maintain()
            assert not _on_disk(tmp_path, sealed[:100])
            assert _on_disk(tmp_path, wrapped), "its period is not over"
            clock.now_s += 86_400
            await store.maintain()
            assert not _on_disk(tmp_path, wrapped)
            await store.append([draft(2)])
            assert [number_of(each) for each in await drain(store)] == [2]

    run(scenario())


def _on_disk(folder: Path, part: bytes) -> bool:
    return any(part in path.read_bytes() for path in folder.iterdir())


def test_room_goes_back_to_the_disk_after_an_outage(tmp_path: Path) -> None:
    options = StoreOptions(max_bytes=64 << 20, ballast_bytes=0)

    async def scenario() -> tuple[int, int]:
        async with open_store(tmp_path, device=DEVICE, options=options) as store:
            for _ in range(10):
                await store.append([draft(number, padding=200_000) for number in range(15)])
            await store.maintain()
            before = (tmp_path / "outbox.db").stat().st_size
            await drain(store)
            await store.maintain()
            return before, (tmp_path / "outbox.db").stat().st_size

    before, after = run(scenario())
    assert before > 28 << 20
    assert after < 18 << 20


def test_stats_tell_age_numbers_and_size(tmp_path: Path) -> None:
    clock = ImpatientClock()

    async def scenario() -> None:
        async with open_store(tmp_path, device=DEVICE, options=SMALL, clock=clock) as store:
            (receipt,) = await store.append([draft(1)])
            clock.now_s += 90
            stats = await store.stats()
            assert (stats.records, stats.oldest_s, stats.epoch, stats.last_sequence) == (1, 90, receipt.epoch, 1)
            assert 0 < stats.bytes < SMALL.max_bytes

    run(scenario())


def test_people_read_the_outbox_as_lines_running_or_stopped(tmp_path: Path) -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            await store.append([draft(number) for number in range(450)])
            bad = (await take(store)).records[3]
            await store.apply([verdict(bad, VerdictStatus.REJECTED, "poison")])
            with pytest.raises(AgentRunning, match="expected an agent that is stopped"):
                list(offline_lines(tmp_path))
            waiting = [line async for line in inspect.lines(store)]
            return waiting, [line async for line in inspect.lines(store, quarantined=True)]

    waiting, held = run(scenario())
    assert [json.loads(line)["body"]["number"] for line in waiting] == [n for n in range(450) if n != 3]
    assert json.loads(held[0])["reason"] == "poison"
    assert list(offline_lines(tmp_path)) == waiting
    assert list(offline_lines(tmp_path, quarantined=True)) == held


def test_people_read_the_outbox_of_a_disk_that_became_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite can make no index beside its log there, and opened nothing: just when a person was to save the results."""

    async def scenario() -> Path:
        async with open_store(tmp_path / "live", device=DEVICE, options=TINY) as store:
            await store.append([draft(number) for number in range(5)])
            return power_cut(tmp_path / "live", tmp_path / "left")

    (tmp_path / "live").mkdir()
    left = run(scenario())
    found = os.statvfs(left)
    read_only = os.statvfs_result((*found[:8], found.f_flag | os.ST_RDONLY, found.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    before = sorted(left.iterdir())
    assert [json.loads(line)["body"]["number"] for line in offline_lines(left)] == list(range(5))
    assert sorted(left.iterdir()) == before


def test_the_outbox_of_another_device_is_put_aside(tmp_path: Path) -> None:
    async def scenario(device: str) -> tuple[str, ...]:
        async with open_store(tmp_path, device=DeviceId(device), options=SMALL) as store:
            await store.append([draft(1)])
            return (await store.stats()).alarms

    assert run(scenario("ward-3")) == ()
    assert run(scenario("ward-4")) == ("outbox_corrupt",)
    reason = (tmp_path / "quarantine" / "outbox-0001" / "reason.txt").read_text()
    assert reason == "expected the outbox of device ward-4, got that of ward-3\n"
    before = sorted((tmp_path / "quarantine" / "outbox-0001").iterdir())
    (line,) = offline_lines(tmp_path / "quarantine" / "outbox-0001")
    assert json.loads(line)["body"] == {"number": 1}
    assert sorted((tmp_path / "quarantine" / "outbox-0001").iterdir()) == before
