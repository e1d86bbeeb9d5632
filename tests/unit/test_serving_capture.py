"""Records: what they say, and what becomes of them when the control process is slow, away or full."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgeward_agent.outbox.receiver import GREETING, MAX_FRAME_BYTES
from edgeward_agent.series import ROW_HEAD, Series
from edgeward_agent.serving.capture import CaptureLimits, CaptureStream, NoCapture
from edgeward_agent.serving.losses import Losses
from edgeward_agent.serving.records import InferenceRecord, series_of
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.wire.tensors import Array
from edgeward_contract.artifact import Sha256
from edgeward_contract.manifest import CaptureMode
from edgeward_contract.record import MAX_RECORD_BYTES
from edgeward_contract.schema import parse_json
from support.serving import Json, Sink, until

QUICK = CaptureLimits(records=3, size_bytes=1 << 20, send_s=0.15, commit_s=0.3)


def _record(outputs: Mapping[str, Array] | None = None, inputs: Mapping[str, Array] | None = None) -> InferenceRecord:
    return InferenceRecord(
        wall_us=1_700_000_000_000_000,
        latency_us=42,
        model="toy",
        version=3,
        release_sha256=Sha256("a" * 64),
        request_id="r-1",
        inputs=inputs or {},
        outputs=outputs if outputs is not None else {"score": np.array([[0.5]], np.float32)},
    )


def test_a_record_says_what_was_answered() -> None:
    frame = json.loads(_record(inputs={"x": np.array([1, 2])}).frame(7, durable=True))
    assert frame == {
        "id": 7,
        "durable": True,
        "kind": "inference",
        "class": "result",
        "wall_us": 1_700_000_000_000_000,
        "body": {
            "model": "toy",
            "version": 3,
            "release_sha256": "a" * 64,
            "request_id": "r-1",
            "outcome": "ok",
            "latency_us": 42,
            "inputs": {"x": {"datatype": "INT64", "shape": [2], "data": [1, 2]}},
            "outputs": {"score": {"datatype": "FP32", "shape": [1, 1], "data": [0.5]}},
        },
    }


def test_what_the_policy_leaves_out_is_not_there() -> None:
    body = json.loads(_record(outputs={}).frame(1, durable=False))["body"]
    assert "inputs" not in body
    assert "outputs" not in body


def _outputs(array: Array) -> Json:
    frame = _record(outputs={"y": array}).frame(1, durable=False)
    parse_json(frame)  # as the control process reads it
    return json.loads(frame)["body"]["outputs"]["y"]


def test_numbers_that_json_cannot_say_become_null() -> None:
    assert _outputs(np.array([np.nan, np.inf, 1.0]))["data"] == [None, None, 1.0]


def test_text_and_flags_are_lists() -> None:
    assert _outputs(np.array(["a", "é"], object)) == {"datatype": "BYTES", "shape": [2], "data": ["a", "é"]}
    assert _outputs(np.array(True)) == {"datatype": "BOOL", "shape": [], "data": [True]}


def test_long_tensors_go_as_bytes() -> None:
    array = np.arange(257, dtype=np.float16)
    found = _outputs(array)
    assert found["shape"] == [257]
    assert np.frombuffer(base64.b64decode(found["raw"]), np.float16).tolist() == array.tolist()
    assert "data" not in found


@pytest.mark.parametrize("count", [1, 8])
def test_a_record_never_outgrows_what_the_fleet_takes(count: int) -> None:
    big = {f"y{index}": np.zeros((224, 224), np.float32) for index in range(count)}
    text = {"t": np.array(["x" * 200_000], object)}
    frame = _record(outputs={**big, **text}, inputs={"x": np.full(256, 0.1)}).frame(1, durable=False)
    assert len(frame) < MAX_RECORD_BYTES * 0.9
    outputs = json.loads(frame)["body"]["outputs"]
    assert outputs["y0"] == {"datatype": "FP32", "shape": [224, 224], "omitted_bytes": 224 * 224 * 4}
    assert outputs["t"]["omitted_bytes"] > 200_000


def test_a_large_tensor_does_not_push_out_a_small_one() -> None:
    frame = _record(outputs={"big": np.zeros(100_000), "score": np.array([1.0])}).frame(1, durable=False)
    assert json.loads(frame)["body"]["outputs"]["score"]["data"] == [1.0]


# -- the stream


def _run(client: Callable[[CaptureStream], Awaitable[None]], path: Path, limits: CaptureLimits = QUICK) -> None:
    async def main() -> None:
        stream = CaptureStream(path / "r.sock", limits)
        task = asyncio.create_task(stream.run())
        async with asyncio.timeout(20):
            await client(stream)
        task.cancel()
        await stream.finish()
        await asyncio.sleep(0)

    asyncio.run(main())


async def _commit(stream: CaptureStream) -> str | None:
    done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    stream.commit(_record(), done.set_result)
    return await done


def test_a_durable_record_is_done_when_it_is_committed(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            assert await _commit(stream) is None
            assert [frame["durable"] for frame in sink.frames] == [True]

    _run(client, tmp_path)


def test_a_refusal_is_passed_on(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            sink.answer = lambda frame: {"id": frame["id"], "ok": False, "error": "outbox_full"}
            assert await _commit(stream) == "outbox_full"

    _run(client, tmp_path)


def test_nobody_there_is_said_in_time(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        problem = await _commit(stream)
        assert problem is not None
        assert "does not answer" in problem
        with Sink(tmp_path / "r.sock") as sink:
            assert await _commit(stream) is None  # the one whose time was up is not sent behind its caller's back
            assert len(sink.frames) == 1

    _run(client, tmp_path)


def test_who_waited_in_vain_leaves_the_room_to_others(tmp_path: Path) -> None:
    """Else a control process that is away for a while would cost the asynchronous records of all that time."""

    async def client(stream: CaptureStream) -> None:
        assert all(await asyncio.gather(*(_commit(stream) for _ in range(3))))
        for _ in range(3):
            stream.offer(_record())
        assert (stream.queued, stream.dropped) == (3, 0)
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: len(sink.frames) == 3)
            assert stream.queued == 0
            assert [frame["durable"] for frame in sink.frames] == [False] * 3

    _run(client, tmp_path)


def test_those_who_wait_in_vain_do_not_pile_up(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        for _ in range(5):
            assert all(await asyncio.gather(*(_commit(stream) for _ in range(3))))
        assert len(stream._queue) <= 2 * 3
        assert stream.queued == 0
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: stream.connected)
            assert await _commit(stream) is None
            assert len(sink.frames) == 1

    _run(client, tmp_path)


def test_a_caller_who_cannot_be_told_costs_the_others_nothing(tmp_path: Path) -> None:
    def fails(problem: str | None) -> None:
        raise ZeroDivisionError("a bug")

    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            stream.commit(_record(), fails)
            assert await _commit(stream) is None  # over the same connection
            assert len(sink.frames) == 2

    _run(client, tmp_path)


def test_many_rows_do_not_wait_for_the_timer(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock"):
            await until(lambda: stream.connected)
            for number in range(10_000):
                stream.offer_row(_series(), _row(number))
                if stream.queued > 2048:
                    await asyncio.sleep(0)
            assert stream.dropped == 0

    _run(client, tmp_path, CaptureLimits(records=2100))


def test_silence_is_said_in_time(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            sink.answer = lambda frame: None
            problem = await _commit(stream)
            assert problem is not None
            assert "took too long" in problem

    _run(client, tmp_path)


def test_a_lost_connection_is_said_at_once_and_opened_again(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            sink.answer = lambda frame: None
            waiting = asyncio.create_task(_commit(stream))
            await until(lambda: sink.frames)
            sink.cut()
            problem = await waiting
            assert problem is not None
            assert "connection to the agent was lost" in problem
            sink.answer = lambda frame: {"id": frame["id"], "ok": True}
            assert await _commit(stream) is None

    _run(client, tmp_path, CaptureLimits(send_s=5, commit_s=5))


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        for _ in range(5):
            stream.offer(_record())
        assert (stream.connected, stream.queued, stream.dropped) == (False, 3, 2)
        assert await _commit(stream) == "expected room among 3 waiting records, the queue is full"
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: len(sink.frames) == 3)
            await until(lambda: stream.queued == 0)
            assert await _commit(stream) is None
            assert [frame["id"] for frame in sink.frames] == [1, 2, 3, 4]
            assert [frame["durable"] for frame in sink.frames] == [False] * 3 + [True]

    _run(client, tmp_path)


def test_losses_are_said_once_when_they_begin_and_once_when_they_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        losses = Losses(asyncio.get_running_loop(), calm_s=0.05)
        for count in (3, 5):
            for _ in range(count):
                losses.count()
            await until(lambda: caplog.messages[-1].startswith("results are kept again"))
        losses.count()
        losses.close()
        assert losses.total == 9

    asyncio.run(scenario())
    begin = "results are not kept: there is no room for them on their way to the agent's outbox"
    ends = [f"results are kept again; {count} were not" for count in (3, 5, 1)]
    assert caplog.messages == [begin, ends[0], begin, ends[1], begin, ends[2]]


def test_memory_is_bounded_too(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        for _ in range(3):
            stream.offer(_record(outputs={"y": np.zeros(1 << 13)}))
        assert (stream.queued, stream.dropped) == (2, 1)

    _run(client, tmp_path, CaptureLimits(size_bytes=100_000))


def test_a_record_is_what_was_answered_whatever_is_written_there_later(tmp_path: Path) -> None:
    """The next request may have the same memory."""

    async def client(stream: CaptureStream) -> None:
        lent = np.array([1.0])
        with Sink(tmp_path / "r.sock") as sink:
            stream.offer(_record(outputs={"y": lent}))
            stream.commit(_record(outputs={"y": lent}), lambda problem: None)
            lent[:] = 2.0
            await until(lambda: len(sink.frames) == 2)
            assert [frame["body"]["outputs"]["y"]["data"] for frame in sink.frames] == [[1.0], [1.0]]

    _run(client, tmp_path)


def test_a_record_that_cannot_be_built_costs_nothing_else(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        broken = _record(outputs={"y": np.zeros(1, np.complex64)})  # no datatype of the protocol
        told: list[str | None] = []
        with Sink(tmp_path / "r.sock") as sink:
            stream.offer(broken)
            stream.commit(broken, told.append)
            assert told == ["the record could not be built: see the log of the serving process"]
            assert (stream.queued, stream.dropped) == (0, 1)
            assert await _commit(stream) is None
            assert len(sink.frames) == 1

    _run(client, tmp_path)


def test_many_records_go_before_they_fill_the_socket(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        link = _Writes()
        stream.opened(link)  # type: ignore[arg-type]
        for _ in range(1000):
            stream.offer(_record())
            await asyncio.sleep(0)
        assert sum(link.sizes) > 100
        assert max(link.sizes) < 900

    _run(client, tmp_path, CaptureLimits())


def test_what_waits_at_the_end_is_handed_over(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: stream.connected)
            for _ in range(3):
                stream.offer(_record())
            await stream.finish()
            await until(lambda: len(sink.frames) == 3)

    _run(client, tmp_path)


@pytest.mark.parametrize("reply", [b"\xff\xff\xff\xff", struct.pack("<I", 2) + b"{}", struct.pack("<I", 1) + b"x"])
def test_an_answer_that_is_none_starts_again(tmp_path: Path, reply: bytes) -> None:
    async def client(stream: CaptureStream) -> None:
        connections = 0

        async def confused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            writer.write(reply)
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(confused, tmp_path / "r.sock")
        await until(lambda: connections >= 2)
        server.close()

    _run(client, tmp_path)


# -- what is captured


@pytest.mark.parametrize(
    ("policy", "asked", "mode"),
    [
        ("off", "off", "off"),
        ("off", "async", "async"),
        ("off", "durable", "durable"),
        ("async", "off", "async"),
        ("async", "durable", "durable"),
        ("durable", "off", "durable"),
        ("durable", "async", "durable"),
    ],
)
def test_a_request_may_ask_for_more_never_for_less(tmp_path: Path, policy: str, asked: str, mode: str) -> None:
    async def client(stream: CaptureStream) -> None:
        assert stream.mode(CaptureMode(policy), CaptureMode(asked)) is CaptureMode(mode)

    _run(client, tmp_path)


def test_a_laptop_records_nothing_and_says_so() -> None:
    capture = NoCapture()
    assert capture.mode(CaptureMode.DURABLE, CaptureMode.OFF) is CaptureMode.OFF
    assert capture.mode(CaptureMode.DURABLE, CaptureMode.ASYNC) is CaptureMode.OFF
    with pytest.raises(
        Refusal, match="expected capture off or async, got durable: this server has no outbox"
    ) as caught:
        capture.mode(CaptureMode.OFF, CaptureMode.DURABLE)
    assert caught.value.status == 501  # and no 503, which asks to be asked again


class _Writes:
    """A link whose writes are looked at."""

    stalled = False
    reads_series = True

    def __init__(self) -> None:
        self.transport = self
        self.lost = asyncio.Event()
        self.sizes: list[int] = []
        self.bytes: list[int] = []

    def write(self, data: bytes) -> None:
        self.bytes.append(len(data))
        self.sizes.append(data.count(b'"kind"'))

    def close(self) -> None:
        self.lost.set()


def test_asynchronous_records_go_together_and_a_durable_one_takes_them_along(tmp_path: Path) -> None:
    """Each write wakes another process, which costs more than a small answer."""

    async def client(stream: CaptureStream) -> None:
        link = _Writes()
        stream.opened(link)  # type: ignore[arg-type]
        for _ in range(3):
            stream.offer(_record())
            await asyncio.sleep(0)
        assert link.sizes == []
        stream.commit(_record(), lambda problem: None)
        await until(lambda: link.sizes)
        assert link.sizes == [4]
        stream.offer(_record())
        await until(lambda: len(link.sizes) == 2)
        assert link.sizes == [4, 1]

    _run(client, tmp_path, CaptureLimits())


def _row(number: int) -> bytes:
    return ROW_HEAD.pack(1_000 + number, number) + np.array([number], np.float32).tobytes()


def _series(model: str = "toy") -> Series:
    series = series_of(model, 1, Sha256("a" * 64), {}, {"score": np.zeros(1, np.float32)})
    assert series is not None
    return series


def test_rows_of_several_series_arrive_each_in_its_order(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        one, two = _series("one"), _series("two")
        with Sink(tmp_path / "r.sock") as sink:
            for number in range(2000):
                stream.offer_row(one if number % 3 else two, _row(number))
                if number % 500 == 0:
                    stream.offer(_record())
                    await asyncio.sleep(0.03)
            assert await _commit(stream) is None
            rows = [frame["body"] for frame in sink.frames if frame["body"]["model"] != "toy"]
            for name, found in (("one", lambda n: n % 3), ("two", lambda n: not n % 3)):
                said = [body["outputs"]["score"]["data"][0] for body in rows if body["model"] == name]
                assert said == [number for number in range(2000) if found(number)]
            assert (stream.queued, stream.dropped) == (0, 0)

    _run(client, tmp_path, CaptureLimits())


@pytest.mark.parametrize("greeting", [GREETING, b""], ids=["reads series", "older"])
def test_a_control_process_gets_what_it_reads(tmp_path: Path, greeting: bytes) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock", greeting=greeting) as sink:
            await until(lambda: stream.connected)
            for number in range(100):
                stream.offer_row(_series(), _row(number))
            await until(lambda: len(sink.frames) == 100)
            assert [frame["wall_us"] for frame in sink.frames] == [1_000 + number for number in range(100)]
            assert len(sink.lengths) == (100 if not greeting else 1)
            assert (stream.queued, stream.dropped) == (0, 0)

    _run(client, tmp_path, CaptureLimits())


def test_rows_wait_while_the_control_process_does_not_read(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        link = _Writes()
        stream.opened(link)  # type: ignore[arg-type]
        link.stalled = True
        done: list[str | None] = []
        stream.offer_row(_series(), _row(1))
        stream.commit(_record(), done.append)
        await asyncio.sleep(0.05)
        assert (link.sizes, stream.queued) == ([], 2)
        link.stalled = False
        stream.writable()
        await until(lambda: link.sizes)
        assert (link.sizes, stream.queued, done) == ([2], 0, [])

    _run(client, tmp_path, CaptureLimits())


def test_rows_count_among_what_waits(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        series = _series()
        stream.offer(_record())
        for number in range(4):
            stream.offer_row(series, _row(number))
        assert (stream.queued, stream.dropped) == (3, 2)
        assert await _commit(stream) == "expected room among 3 waiting records, the queue is full"
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: len(sink.frames) == 3)
            assert stream.queued == 0
            stream.offer_row(series, _row(9))
            await until(lambda: len(sink.frames) == 4)

    _run(client, tmp_path)


def test_more_rows_than_a_batch_holds_go_in_several(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        series = series_of("toy", 1, Sha256("a" * 64), {}, {"y": np.zeros(256)})
        assert series is not None
        link = _Writes()
        row = ROW_HEAD.pack(1, 2) + np.zeros(256).tobytes()
        for _ in range(400):
            stream.offer_row(series, row)
        stream.opened(link)  # type: ignore[arg-type]
        await until(lambda: stream.queued == 0)
        assert len(link.sizes) > 2
        assert max(link.bytes) < MAX_FRAME_BYTES

    _run(client, tmp_path, CaptureLimits())


def test_more_than_a_socket_holds_is_handed_over_at_the_end(tmp_path: Path) -> None:
    """What did not fit into the socket at that moment was lost, and nobody counted it."""

    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: stream.connected)
            for _ in range(2000):
                stream.offer(_record(outputs={"y": np.zeros(200)}))
            link = stream._link
            await stream.finish()
            assert link is not None and link.lost.is_set()  # nothing is left in this process, which ends now
            await until(lambda: len(sink.frames) == 2000)

    _run(client, tmp_path, CaptureLimits(records=2000))


def test_what_nobody_takes_at_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def client(stream: CaptureStream) -> None:
        stream.opened(link := _Writes())  # type: ignore[arg-type]
        link.stalled = True
        for _ in range(3):
            stream.offer(_record())
        await stream.finish()
        stream.closed()

    _run(client, tmp_path, CaptureLimits(finish_s=0.05))
    assert "3 results are not kept: the agent did not take them before the end" in caplog.messages


def test_rows_that_wait_at_the_end_are_handed_over(tmp_path: Path) -> None:
    async def client(stream: CaptureStream) -> None:
        with Sink(tmp_path / "r.sock") as sink:
            await until(lambda: stream.connected)
            for number in range(3):
                stream.offer_row(_series(), _row(number))
            await stream.finish()
            await until(lambda: len(sink.frames) == 3)

    _run(client, tmp_path)
