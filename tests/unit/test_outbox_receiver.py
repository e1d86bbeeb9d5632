"""The capture stream over a real socket, into a real store."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edgeward_agent.errors import ConfigError
from edgeward_agent.outbox.model import StoreOptions
from edgeward_agent.outbox.receiver import MAX_FRAME_BYTES, capture_receiver, encode_frame
from edgeward_agent.outbox.store import Store, open_store
from edgeward_agent.series import ROW_HEAD, Column, Series
from edgeward_contract.manifest import Datatype
from edgeward_contract.record import RecordClass
from edgeward_contract.schema import JsonValue
from support.outbox import DEVICE, number_of, until

TINY = StoreOptions(max_bytes=1 << 20, ballast_bytes=0)


class Sender:
    """The serving process, as the receiver sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, number: int, *, durable: bool = True, padding: int = 0, **other: JsonValue) -> None:
        self.send_raw(
            encode_frame(
                {
                    "id": number,
                    "durable": durable,
                    "kind": "inference",
                    "class": "result",
                    "wall_us": 1_800_000_000_000_000 + number,
                    "body": {"number": number, "padding": "x" * padding},
                    **other,
                }
            )
        )

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> dict[str, JsonValue]:
        size = int.from_bytes(await self._reader.readexactly(4), "little")
        document: dict[str, JsonValue] = json.loads(await self._reader.readexactly(size))
        return document

    async def closed_by_peer(self) -> bool:
        return await self._reader.read() == b""

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


Connect = Callable[[], Awaitable[Sender]]


def play(tmp_path: Path, work: Callable[[Store, Connect], Awaitable[None]]) -> None:
    path = tmp_path / "capture.sock"

    async def connect() -> Sender:
        sender = Sender(*await asyncio.open_unix_connection(str(path)))
        assert await sender.answer() == {"id": 0, "ok": True, "reads": "series"}
        return sender

    async def run() -> None:
        async with (
            asyncio.timeout(30),
            open_store(tmp_path, device=DEVICE, options=TINY) as store,
            capture_receiver(path, store),
        ):
            assert path.stat().st_mode & 0o777 == 0o600
            await work(store, connect)

    asyncio.run(run())
    assert not path.exists()


async def numbers(store: Store) -> list[int]:
    batch = await store.head()
    return [number_of(record) for record in batch.records] if batch else []


async def arrived(store: Store, count: int) -> None:
    async def here() -> bool:
        return (await store.stats()).records >= count

    await until(here)


def test_what_was_sent_before_the_end_is_read_to_its_end(tmp_path: Path) -> None:
    """It was answered at the bedside. What still lay in the socket when the agent was stopped was lost."""

    async def run() -> None:
        path = tmp_path / "capture.sock"
        async with asyncio.timeout(30), open_store(tmp_path, device=DEVICE, options=TINY) as store:
            async with capture_receiver(path, store):
                sender = Sender(*await asyncio.open_unix_connection(str(path)))
                await sender.answer()
                for number in range(300):
                    sender.send(number, durable=False)
                await sender.close()
            assert await numbers(store) == list(range(300))

    asyncio.run(run())


def test_durable_frames_are_answered_once_they_are_safe(tmp_path: Path) -> None:
    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        for number in range(300):
            sender.send(number)
        answers = [await sender.answer() for _ in range(300)]
        assert answers == [{"id": number, "ok": True} for number in range(300)]
        assert await numbers(store) == list(range(300))
        batch = await store.head()
        assert batch is not None
        assert batch.records[7].wall_us == 1_800_000_000_000_007
        assert batch.records[7].record_class is RecordClass.RESULT
        await sender.close()

    play(tmp_path, work)


def test_asynchronous_frames_are_taken_in_silence_and_in_order(tmp_path: Path) -> None:
    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        for number in range(200):
            sender.send(number, durable=number == 199)
        assert await sender.answer() == {"id": 199, "ok": True}
        assert await numbers(store) == list(range(200))
        await sender.close()

    play(tmp_path, work)


def test_a_full_outbox_is_said_in_one_word(tmp_path: Path) -> None:
    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        answers = []
        for number in range(30):
            sender.send(number, padding=60_000)
            answers.append(await sender.answer())
        assert answers[0] == {"id": 0, "ok": True}
        assert answers[-1]["error"] == "outbox_full"
        assert "expected room within 1048576 bytes" in str(answers[-1]["detail"])
        await sender.close()

    play(tmp_path, work)


def test_a_record_that_is_too_large_does_not_end_the_connection(tmp_path: Path) -> None:
    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        sender.send(1, padding=300_000)
        assert (await sender.answer())["error"] == "record_refused"
        sender.send(2)
        assert await sender.answer() == {"id": 2, "ok": True}
        await sender.close()

    play(tmp_path, work)


def test_the_records_of_a_series_come_one_by_one(tmp_path: Path) -> None:
    series = Series({"model": "toy"}, [Column("outputs", "y", Datatype.INT32, (1,))])

    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        rows = [ROW_HEAD.pack(1_800_000_000_000_000 + number, 7) + bytes([number, 0, 0, 0]) for number in range(1, 41)]
        frame = series.frame(rows)
        sender.send_raw(len(frame).to_bytes(4, "little") + frame)
        sender.send(99)
        assert await sender.answer() == {"id": 99, "ok": True}
        batch = await store.head()
        assert batch is not None
        found = [(each.wall_us - 1_800_000_000_000_000, each.body) for each in batch.records[:-1]]
        assert [number for number, _ in found] == list(range(1, 41))
        told: JsonValue = {"y": {"datatype": "INT32", "shape": [1], "data": [7]}}
        assert found[6][1] == {"model": "toy", "latency_us": 7, "outputs": told}
        await sender.close()

    play(tmp_path, work)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\0", "length: expected 1 to 1048576, got 0"),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "little"), "length: expected 1 to 1048576, got 1048577"),
        (encode_frame({"id": 1}), "kind: expected a value, got nothing"),
        (b"\5\0\0\0hello", "expected JSON"),
        (b"\2\0\0\0\xff\xff", "expected UTF-8"),
        (
            encode_frame({"id": 1, "durable": True, "class": "gossip", "kind": "k", "wall_us": 1, "body": {}}),
            "class: expected one of audit, result, telemetry, got 'gossip'",
        ),
    ],
)
def test_a_malformed_frame_ends_its_connection_alone(
    tmp_path: Path, data: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(store: Store, connect: Connect) -> None:
        good, bad = await connect(), await connect()
        bad.send(1)
        assert await bad.answer() == {"id": 1, "ok": True}
        bad.send_raw(data)
        assert await bad.closed_by_peer()
        good.send(2)
        assert await good.answer() == {"id": 2, "ok": True}
        assert await numbers(store) == [1, 2]
        await bad.close()
        await good.close()

    with caplog.at_level(logging.WARNING):
        play(tmp_path, work)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("capture: a malformed frame, the connection is closed: ")
    assert message in lines[0]


def test_a_sender_that_dies_inside_a_frame_leaves_what_it_sent(tmp_path: Path) -> None:
    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        for number in range(50):
            sender.send(number, durable=False)
        sender.send_raw(b"\x40\0\0\0{")
        await sender.close()
        await arrived(store, 50)
        again = await connect()
        again.send(50)
        assert await again.answer() == {"id": 50, "ok": True}
        assert await numbers(store) == list(range(51))
        await again.close()

    play(tmp_path, work)


def test_a_socket_left_by_a_killed_agent_is_no_obstacle(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "capture.sock"))

    async def work(store: Store, connect: Connect) -> None:
        sender = await connect()
        sender.send(1)
        assert await sender.answer() == {"id": 1, "ok": True}
        await sender.close()

    play(tmp_path, work)


def test_a_place_where_no_socket_can_be_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_store(tmp_path, device=DEVICE, options=TINY) as store:
            with pytest.raises(ConfigError, match=r"capture socket .*expected to listen there, got"):
                async with capture_receiver(tmp_path / "no such folder" / "s", store):
                    raise AssertionError
            with pytest.raises(ConfigError, match="expected a socket path of at most 107 bytes"):
                async with capture_receiver(tmp_path / ("x" * 120), store):
                    raise AssertionError

    asyncio.run(run())
