"""Requests that come again: the answers are those that each would get alone. Real models, real HTTP, no network."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import itertools
import json
import socket
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from edgeward_agent.serving.api import DataApi
from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.capture import Capture, NoCapture
from edgeward_agent.serving.codec import Codec
from edgeward_agent.serving.connection import Connection
from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.http import HttpServer, no_guard
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.plans import Plans
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.serving.shared_memory import NoRegions
from edgeward_agent.wire.tensors import DATATYPE, Array
from edgeward_contract.manifest import CaptureMode, CapturePolicy
from support.serving import (
    FEATURES,
    Json,
    Kept,
    constant_model,
    failing_model,
    identity_model,
    nonzero_model,
    slow_lookup_model,
    slow_model,
    sum_model,
    total_model,
    until,
)


class Wire(asyncio.Transport):
    """Takes what a connection writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, parts: object) -> None:
        assert isinstance(parts, Sequence)
        self.write(b"".join(parts))

    def write_eof(self) -> None: ...

    def close(self) -> None: ...

    def set_protocol(self, protocol: object) -> None:
        """What is fed goes to the connection all the same."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Asking:
    """One connection to a server of some models."""

    def __init__(self, versions: Sequence[Version], capture: Capture | None = None) -> None:
        self.registry = Registry()
        for version in versions:
            self.registry.adopt(version)
        self._scheduler = Scheduler(asyncio.get_running_loop(), threads=2)
        self._scheduler.start()
        limits = Limits()
        self._codec = Codec(limit_bytes=limits.body_bytes)
        api = DataApi(
            self.registry,
            Runner(self._scheduler, capture or NoCapture()),
            management=Management(self.registry, NoRegions(), body_bytes=limits.body_bytes),
            codec=self._codec,
            terms=Terms(),
        )
        self.server = HttpServer(api, limits)

    def connect(self) -> tuple[Connection, Wire]:
        connection, wire = Connection(self.server.state, no_guard), Wire()
        connection.connection_made(wire)
        return connection, wire

    async def close(self) -> None:
        await self._scheduler.close()
        await self.registry.close()
        self._codec.close()


async def _ask(client: tuple[Connection, Wire], request: bytes) -> tuple[int, Json, bytes]:
    connection, wire = client
    before = len(wire.written)
    connection.data_received(request)
    await until(lambda: len(wire.written) > before)
    return _read(b"".join(wire.written[before:]))


def _read(answer: bytes) -> tuple[int, Json, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert int(lines[b"Content-Length"]) == len(body)
    length = int(lines.get(b"Inference-Header-Content-Length", len(body)))
    return int(head.split(b" ")[1]), json.loads(body[:length]), body[length:]


def _request(model: str, feeds: dict[str, Array], **more: Json) -> bytes:
    inputs, data = [], b""
    for name, array in feeds.items():
        raw = array.tobytes()
        tensor = {"name": name, "datatype": DATATYPE[array.dtype].value, "shape": list(array.shape)}
        inputs.append(tensor | {"parameters": {"binary_data_size": len(raw)}})
        data += raw
    document = {"inputs": inputs, "parameters": {"binary_data_output": True}} | more
    header = json.dumps(document).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\nContent-Length: {len(header) + len(data)}\r\n\r\n"
    )
    return head.encode() + header + data


def _run(
    client: Callable[[Asking], Awaitable[None]], versions: Sequence[Version], capture: Capture | None = None
) -> None:
    async def main() -> None:
        asking = Asking(versions, capture)
        async with asyncio.timeout(30):
            await client(asking)
        await asking.close()

    asyncio.run(main())


def _plans(version: Version) -> int:
    return len(version.plans._plans)


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sum_model(tmp_path_factory.mktemp("plans") / "sums.onnx")


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(-1000, 1000)), min_size=4, max_size=30))
def test_each_request_gets_its_own_answer(sums: Path, asked: list[tuple[int, bool, int]]) -> None:
    """Shapes, the order of the inputs and the numbers change; whatever came before, the sums are right."""
    version = load_file(sums)

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for rows, swapped, number in asked:
            a = np.full((rows, 4), number, np.int32)
            b = np.arange(rows * 4, dtype=np.int32).reshape(rows, 4)
            feeds: dict[str, Array] = {"b": b, "a": a} if swapped else {"a": a, "b": b}
            status, document, data = await _ask(connection, _request("sums", feeds))
            assert status == 200
            assert [each["shape"] for each in document["outputs"]] == [[rows, 4]] * 2
            assert data == (a + b).tobytes() + (a - b).tobytes()

    _run(client, [version])


def test_a_plan_is_made_for_the_second_and_used_from_the_third(sums: Path) -> None:
    version = load_file(sums)
    one = np.ones((1, 4), np.int32)

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        made, answers = [], []
        for number in range(6):
            answers.append(await _ask(connection, _request("sums", {"a": one * number, "b": one})))
            made.append(_plans(version))
        assert made == [0, 1, 1, 1, 1, 1]
        (plan,) = version.plans._plans.values()
        assert plan.answer is not None
        assert not plan.busy
        assert {json.dumps(document) for _, document, _ in answers} == {json.dumps(answers[0][1])}
        assert [np.frombuffer(data, np.int32)[0] for _, _, data in answers] == [1, 2, 3, 4, 5, 6]

    _run(client, [version])


def test_how_long_a_run_takes_is_learnt_by_its_size_with_a_plan_too(tmp_path: Path) -> None:
    """Else small requests would tell that a large one is quick, and it would hold up the loop."""
    version = load_file(slow_model(tmp_path / "slow.onnx"))

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        sizes = {}
        for rows in (1, 64):
            request = _request("slow", {"in": np.zeros((rows, 512), np.float32)})
            for _ in range(6):
                assert (await _ask(connection, request))[0] == 200
            sizes[rows] = len(request.partition(b"\r\n\r\n")[2])
        assert _plans(version) == 2
        assert version.pace.of(sizes[64]).usual_ns > 5 * version.pace.of(sizes[1]).usual_ns > 0
        assert not version.pace.of(0).usual_ns

    _run(client, [version])


def test_a_result_may_change_its_shape(tmp_path: Path) -> None:
    version = load_file(nonzero_model(tmp_path / "where.onnx"))

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for values in ([1, 1, 1], [1, 1, 1], [1, 0, 1], [2, 3, 4], [0, 0, 0], [5, 0, 0], [1, 1, 1], [0, 1, 0]) * 3:
            array = np.array(values, np.float32)
            status, document, data = await _ask(connection, _request("where", {"in": array}))
            assert (status, document["outputs"][0]["shape"]) == (200, [1, np.count_nonzero(array)])
            assert data == np.array(np.nonzero(array), np.int64).tobytes()

    _run(client, [version])


def test_a_failure_is_an_answer_and_the_next_one_is_right(tmp_path: Path) -> None:
    version = load_file(failing_model(tmp_path / "table.onnx"))

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for index in (0, 1, 2, 9, 1, 9, 9, 9, 9, 0, 2):
            status, _, data = await _ask(connection, _request("table", {"index": np.array([index], np.int64)}))
            assert (status, data) == ((200, np.array([index + 1], np.float32).tobytes()) if index < 3 else (500, b""))
        assert not any(plan.busy for plan in version.plans._plans.values())

    _run(client, [version])


def test_equal_requests_at_once_do_not_share_memory(tmp_path: Path) -> None:
    """In the pool a plan is busy for many ms; the others are read anew."""
    version = load_file(slow_model(tmp_path / "slow.onnx"))

    async def client(asking: Asking) -> None:
        async def ask(number: int) -> None:
            connection = asking.connect()
            rows = np.full((16, 512), number, np.float32)
            for _ in range(4):
                status, _, data = await _ask(connection, _request("slow", {"in": rows}))
                assert (status, data) == (200, rows.tobytes())

        await asyncio.gather(*(ask(number) for number in range(5)))
        assert _plans(version) == 1

    _run(client, [version])


@pytest.mark.parametrize("rows", [2, 6000], ids=["small", "large"])
def test_clients_at_once_are_never_given_each_others_results(sums: Path, rows: int) -> None:
    """Each over its own socket, some of them slow to read; every number of every answer is looked at."""
    version = load_file(sums)

    async def client(asking: Asking) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await asking.server.listen(listener)
            await asyncio.gather(*(_hammer(listener.getsockname()[1], number, rows) for number in range(4)))
            assert _plans(version) == 1
            await until(lambda: not asking.server.state.connections)

    _run(client, [version])


async def _hammer(port: int, number: int, rows: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for turn in range(25):
        a, b = (np.full((rows, 4), value, np.int32) for value in (1000 * number + turn, 7 * turn))
        writer.write(_request("sums", {"a": a, "b": b}))
        await asyncio.sleep(0.001 * (number % 2))
        assert await _answer(reader) == (200, (a + b).tobytes() + (a - b).tobytes())
    writer.close()
    await writer.wait_closed()


def test_what_a_client_sends_too_early_does_not_change_what_runs(tmp_path: Path) -> None:
    """The plan is busy with another's, so it is read from where it came in; the next one comes there too."""
    version = load_file(slow_model(tmp_path / "slow.onnx", rounds=60))

    async def client(asking: Asking) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await asking.server.listen(listener)
            port = listener.getsockname()[1]
            await asyncio.gather(*(_send_early(asking, port, number) for number in range(1, 7)))
            await until(lambda: not asking.server.state.connections)

    _run(client, [version])


async def _send_early(asking: Asking, port: int, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    own_port = writer.get_extra_info("sockname")[1]
    rows = [np.full((64, 512), 100 * number + turn, np.float32) for turn in range(6)]
    writer.write(_aligned(rows[0]))
    assert await _answer(reader) == (200, rows[0].tobytes())
    for first, second in itertools.pairwise(rows):
        writer.write(_aligned(first))
        await until(lambda: _asks(asking, own_port))
        writer.write(_aligned(second))
        for each in (first, second):
            assert await _answer(reader) == (200, each.tobytes())
    writer.close()
    await writer.wait_closed()


def _aligned(rows: Array) -> bytes:
    """A request whose tensor could be used where it lies."""
    request = _request("slow", {"in": rows})
    return request.replace(b"\r\nHost", b"\r\nX: " + b"x" * (-(len(request) + 5) % 4) + b"\r\nHost", 1)


def _asks(asking: Asking, port: int) -> bool:
    """Whether a request of the client with this port is being answered."""
    connections = [each for each in asking.server.state.connections if isinstance(each, Connection)]
    return any(each._current and each._transport.get_extra_info("peername")[1] == port for each in connections)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.split(b"\r\nContent-Length: ")[1].split(b"\r\n")[0])
    status, _, data = _read(head + await reader.readexactly(length))
    return status, data


def test_a_large_request_runs_where_it_lies_each_time(tmp_path: Path) -> None:
    """Each connection has memory of its own, and a plan knows one of them; the others are copied."""
    version = load_file(total_model(tmp_path / "total.onnx"))
    version.capture = CapturePolicy(mode=CaptureMode.ASYNC, inputs=True, outputs=True)
    capture = Kept()
    asked: list[float] = []

    async def client(asking: Asking) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await asking.server.listen(listener)
            clients = [await asyncio.open_connection("127.0.0.1", listener.getsockname()[1]) for _ in range(2)]
            for number, turn in enumerate([0] * 6 + [1] * 6 + [0, 1] * 4 + [0] * 3):
                asked.append(number)
                await _ask_total(clients[turn], number)
                assert number < 6 or next(iter(version.plans._plans.values()))._there is not None
            for _, writer in clients:
                writer.close()
                await writer.wait_closed()
            await until(lambda: not asking.server.state.connections)
            (plan,) = version.plans._plans.values()
            assert plan._lies() is None  # the memory of a connection that has ended
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            for number in range(100, 105):
                asked.append(number)
                await _ask_total((reader, writer), number)
            writer.close()
            await writer.wait_closed()
            await until(lambda: not asking.server.state.connections)

    _run(client, [version], capture)
    recorded = [base64.b64decode(each["inputs"]["a"]["raw"]) for each in capture.bodies]
    assert [np.frombuffer(each, np.float32)[0] for each in recorded] == asked


async def _ask_total(client: tuple[asyncio.StreamReader, asyncio.StreamWriter], number: float) -> None:
    reader, writer = client
    a, b = np.full((160, 64), number, np.float32), np.ones((160, 64), np.float32)
    writer.write(_request("total", {"a": a, "b": b}))
    status, data = await _answer(reader)
    assert status == 200
    assert np.frombuffer(data, np.float32).tolist() == [64.0 * (number - 1)] * 160


def test_a_failure_of_what_runs_where_it_lies_is_an_answer_and_the_next_one_is_right(tmp_path: Path) -> None:
    version = load_file(slow_lookup_model(tmp_path / "slow.onnx", rounds=1))

    async def client(asking: Asking) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await asking.server.listen(listener)
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            rows = np.ones((64, 512), np.float32)
            for number in [0, 1, 2, 0, 1, 2, 9, 0, 1, 2, 9, 1]:
                writer.write(_request("slow", {"in": rows, "index": np.full(64, number, np.int64)}))
                status, data = await _answer(reader)
                assert (status == 200) == (number < 3)
                assert number > 2 or np.frombuffer(data, np.float32).tolist() == [number + 1.0] * 64
            writer.close()
            await writer.wait_closed()
            await until(lambda: not asking.server.state.connections)

    _run(client, [version])


def test_records_keep_what_was_answered(sums: Path) -> None:
    version = load_file(sums)
    version.capture = CapturePolicy(mode=CaptureMode.ASYNC, inputs=True, outputs=True)
    capture = Kept()

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for number in range(6):
            array = np.full((1, 4), number, np.int32)
            await _ask(connection, _request("sums", {"a": array, "b": array}))

    _run(client, [version], capture)
    assert [each["inputs"]["a"]["data"] for each in capture.bodies] == [[number] * 4 for number in range(6)]
    assert [each["outputs"]["sum"]["data"] for each in capture.bodies] == [[2 * number] * 4 for number in range(6)]


def test_a_durable_request_is_read_anew(sums: Path) -> None:
    """Its answer waits for the commit, and another request would have the memory by then."""
    version = load_file(sums)
    version.capture = CapturePolicy(mode=CaptureMode.DURABLE, inputs=True, outputs=True)

    async def client(asking: Asking) -> None:
        async def ask(number: int) -> None:
            connection = asking.connect()
            array = np.full((1, 4), number, np.int32)
            for _ in range(4):
                status, _, data = await _ask(connection, _request("sums", {"a": array, "b": array}))
                assert (status, data) == (200, (2 * array).tobytes() + (0 * array).tobytes())

        await asyncio.gather(*(ask(number) for number in range(4)))
        assert _plans(version) == 0

    _run(client, [version], Kept())


ONE = np.ones((1, 4), np.int32)
UNPLANNED: dict[str, Json] = {
    "an id": {"id": "exam 7"},
    "outputs in JSON": {"parameters": {}},
    "a durable record": {"parameters": {"binary_data_output": True, "capture": "durable"}},
}


@pytest.mark.parametrize("case", UNPLANNED)
def test_some_requests_are_always_read_anew(sums: Path, case: str) -> None:
    version = load_file(sums)

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for _ in range(4):
            await _ask(connection, _request("sums", {"a": ONE, "b": ONE}, **UNPLANNED[case]))
        assert _plans(version) == 0

    _run(client, [version])


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.BOOL, np.bool_)])
def test_flags_are_looked_at_each_time(tmp_path: Path, kind: int, dtype: type[np.generic]) -> None:
    version = load_file(identity_model(tmp_path / "flags.onnx", kind, ["n"]))

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        request = _request("flags", {"in": np.zeros(3, dtype)})
        for _ in range(5):
            status, _, data = await _ask(connection, request[:-3] + b"\x00\x02\xff")
            assert (status, data) == (200, b"\x00\x01\x01")
        assert _plans(version) == 0

    _run(client, [version])


def test_a_shorter_body_under_the_same_json_is_refused(sums: Path) -> None:
    version = load_file(sums)

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        request = _request("sums", {"a": ONE, "b": ONE})
        for _ in range(3):
            assert (await _ask(connection, request))[0] == 200
        head, _, body = request.partition(b"\r\n\r\n")
        short = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) - 4))
        assert (await _ask(connection, short + b"\r\n\r\n" + body[:-4]))[0] == 400
        assert (await _ask(connection, request))[0] == 200

    _run(client, [version])


def test_a_swap_forgets_what_was_planned_for_the_old_version(sums: Path, tmp_path: Path) -> None:
    old, new = load_file(sums), load_file(sum_model(tmp_path / "sums.onnx"))
    new.version = 2
    new.head = new.head.replace(b'"1"', b'"2"')

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        request = _request("sums", {"a": ONE, "b": ONE})
        for _ in range(4):
            assert (await _ask(connection, request))[1]["model_version"] == "1"
        asking.registry.adopt(new)
        for _ in range(4):
            assert (await _ask(connection, request))[1]["model_version"] == "2"

    _run(client, [old])


def test_plans_are_bounded(sums: Path) -> None:
    version = load_file(sums)

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for rows in [*range(1, 41), *range(1, 41)]:
            array = np.ones((rows, 4), np.int32)
            for _ in range(3):
                assert (await _ask(connection, _request("sums", {"a": array, "b": array})))[0] == 200
        assert _plans(version) == 16

    _run(client, [version])


def test_what_is_seen_once_is_bounded_too() -> None:
    plans = Plans()
    for number in range(1000):
        plans._note(b"%d" % number)
    assert len(plans._seen) <= 256


def test_a_request_that_is_let_in_by_an_answer_does_not_take_its_memory(tmp_path: Path) -> None:
    """An answer may serve the next request of its connection before its own record is made."""
    version = load_file(constant_model(tmp_path / "toy.onnx", 0.5))
    version.capture = CapturePolicy(mode=CaptureMode.ASYNC, inputs=True)
    capture = Kept()

    def asked(number: int) -> bytes:
        return _request("toy", {"features": np.full((700, FEATURES), number, np.float32)})

    async def client(asking: Asking) -> None:
        for _ in range(4):  # read, known, bound, and quick
            await _ask(asking.connect(), asked(1))
        connection, wire = asking.connect()
        head, _, body = asked(7).partition(b"\r\n\r\n")
        packed = gzip.compress(body)
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
        lines += [b"Content-Encoding: gzip", b"Content-Length: %d" % len(packed)]
        connection.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + packed + asked(9))
        await until(lambda: len(capture.bodies) == 6)
        recorded = [base64.b64decode(each["inputs"]["features"]["raw"]) for each in capture.bodies[-2:]]
        assert {np.frombuffer(each, np.float32)[0] for each in recorded} == {7, 9}
        assert b"".join(wire.written).count(b"200 OK") == 2

    _run(client, [version], capture)


def test_a_version_that_is_replaced_takes_its_plans_along(sums: Path) -> None:
    """What is in memory at the start is out of the collector's sight, and plans know their version."""
    version = load_file(sums)
    array = np.ones((1, 4), np.int32)

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        for _ in range(4):
            await _ask(connection, _request("sums", {"a": array, "b": array}))
        plan = weakref.ref(next(iter(version.plans._plans.values())).asked.feeds["a"])
        gc.collect()
        gc.freeze()
        try:
            assert plan() is not None
            asking.registry.unload(version.name, None)
            await until(lambda: not asking.registry.draining)
            assert plan() is None
        finally:
            gc.unfreeze()

    _run(client, [version])


def test_the_short_way_packs_what_may_be_packed(tmp_path: Path) -> None:
    version = load_file(constant_model(tmp_path / "toy.onnx", 0.5))

    async def client(asking: Asking) -> None:
        connection = asking.connect()
        plain = _request("toy", {"features": np.ones((700, FEATURES), np.float32)})
        request = plain.replace(b"\r\nHost", b"\r\nAccept-Encoding: gzip\r\nHost", 1)
        for _ in range(5):
            connection[1].written.clear()
            connection[0].data_received(request)
            await until(lambda: connection[1].written)
            head, _, body = b"".join(connection[1].written).partition(b"\r\n\r\n")
            assert b"Content-Encoding: gzip" in head
            length = int(head.split(b"Inference-Header-Content-Length: ")[1].split(b"\r\n")[0])
            assert gzip.decompress(body)[length:] == np.full((700, 1), 0.5, np.float32).tobytes()
        assert next(iter(version.plans._plans.values())).standing is not None

    _run(client, [version])
