"""What one gRPC stream may take: silence ends it, and unread answers hold up nobody else. A real server and channel."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode, aio
from onnx import TensorProto

from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.rpc import inference_pb2 as pb
from edgeward_agent.serving.rpc import server as rpc
from edgeward_agent.serving.rpc.server import RpcServer
from edgeward_agent.serving.rpc.streaming import MOST
from edgeward_agent.serving.runtime import beside
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.serving.shared_memory import NoRegions
from support.serving import identity_model, until

LIVE = "/inference.GRPCInferenceService/ServerLive"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
INFER = "/inference.GRPCInferenceService/ModelInfer"
Channel = Any  # its stubs do not say what a call without serializers carries
LARGE = np.zeros(1 << 18, np.float32)


def _request(array: np.typing.NDArray[np.float32], name: str = "in") -> bytes:
    request = pb.ModelInferRequest(model_name="echo")
    request.inputs.add(name=name, datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def _answer(data: bytes) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse.FromString(data)


@asynccontextmanager
async def _served(folder: Path, limits: Limits) -> AsyncIterator[tuple[str, Version]]:
    """The address of a server, and the model that it has."""
    version = load_file(identity_model(folder / "echo.onnx", TensorProto.FLOAT, ["n"]))
    registry = Registry()
    registry.adopt(version)
    scheduler = Scheduler(asyncio.get_running_loop(), callers=Callers())
    scheduler.start()
    management = Management(registry, NoRegions(), body_bytes=limits.body_bytes)
    runner = Runner(scheduler, NoCapture())
    server = RpcServer(registry, runner, management=management, terms=Terms(), limits=limits)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    await server.listen(address)
    assert not scheduler.callers.alone  # one connection carries many calls
    try:
        async with beside(server.keep_time(), "keep time"), asyncio.timeout(30):
            yield address, version
    finally:
        await server.drain(0.1)
        assert scheduler.callers.count == 0
        await scheduler.close()


def _channel(address: str, *, answer_bytes: int = -1) -> Channel:
    """A connection of its own: channels to one address share theirs otherwise."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", answer_bytes)]
    return aio.insecure_channel(address, options=options)


def _play(folder: Path, limits: Limits, work: Callable[[Channel, Version], Awaitable[None]]) -> None:
    async def main() -> None:
        async with _served(folder, limits) as (address, version), _channel(address) as channel:
            await work(channel, version)

    asyncio.run(main())


def _play_with_another(
    folder: Path, limits: Limits, work: Callable[[Channel, Channel, Version], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with (
            _served(folder, limits) as (address, version),
            _channel(address) as channel,
            _channel(address) as another,
        ):
            await work(channel, another, version)

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_connections_that_say_nothing_give_up_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(rpc, "_HELLO_S", 0.5)

    async def main() -> None:
        async with _served(tmp_path, Limits(connections=4)) as (address, _):
            host, port = address.split(":")
            held = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
            for _, writer in held:
                writer.write(said)
            async with _channel(address) as channel:  # asks again until it finds a place
                assert await channel.unary_unary(LIVE)(b"", wait_for_ready=True, timeout=20)
            for reader, writer in held:
                with suppress(ConnectionError):
                    await reader.read()
                writer.close()

    asyncio.run(main())


async def _silent(channel: Channel, count: int) -> list[Any]:
    """Calls whose message does not come."""
    calls = [channel.stream_stream(INFER)() for _ in range(count)]
    for each in calls:
        await each.wait_for_connection()
    return calls


def test_a_stream_that_asks_nothing_is_ended(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        call = channel.stream_stream(STREAM)()
        await call.write(_request(np.ones(1, np.float32)))
        answer = _answer(await call.read())
        assert not answer.error_message
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is StatusCode.UNAVAILABLE
        assert caught.value.details() == "expected another request, its time is up"

    _play(tmp_path, Limits(idle_s=0.3), work)


def test_a_stream_whose_answers_are_not_read_holds_a_window_and_nobody_else(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        call = channel.stream_stream(STREAM)()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                for _ in range(256):  # far more than a window and what flow control lets wait on the way
                    await call.write(_request(LARGE))
        assert 0 < version.traffic.requests <= 64
        again = channel.stream_stream(STREAM)()
        await again.write(_request(np.ones(1, np.float32)))
        assert not _answer(await again.read()).error_message
        call.cancel()
        await until(lambda: not version.in_flight)

    _play(tmp_path, Limits(), work)


def test_who_asks_far_ahead_and_reads_is_answered_within_the_room_there_is(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        call = channel.stream_stream(STREAM)()
        count = 64

        async def ask() -> None:
            for _ in range(count):
                await call.write(_request(np.zeros(3 << 18, np.float32)))

        asked = asyncio.create_task(ask())
        for _ in range(count):
            assert not _answer(await call.read()).error_message
            await asyncio.sleep(0.005)  # a little slower than the model, and never for long
        await asked

    _play(tmp_path, Limits(held_bytes=24 << 20), work)  # 3 MiB asked and 3 answered, for two at a time


def test_answers_that_nobody_reads_have_a_limit_until_who_asked_leaves(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        silent = channel.stream_stream(STREAM)()
        for _ in range(8):
            await silent.write(_request(LARGE))  # 1 MiB each way
        await until(lambda: version.traffic.requests > 0)
        await asyncio.sleep(0.5)  # longer than an answer may lie there: the rest is given up, one answer is held
        other = channel.unary_unary(INFER)
        both = _request(np.zeros(3 << 18, np.float32))  # 3 MiB that are asked, and 3 that are answered
        with pytest.raises(aio.AioRpcError, match="expected room for a message, too many large ones wait"):
            await other(both)
        assert await other(_request(np.ones(1, np.float32)))
        silent.cancel()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert len(await other(both)) > 3 << 20
                    break
                except aio.AioRpcError:
                    await asyncio.sleep(0.05)

    _play(tmp_path, Limits(held_bytes=13 << 19, write_s=0.3), work)


def test_small_answers_that_nobody_reads_end_their_stream_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeward_agent.serving.rpc.streaming.MOST", 1)

    async def work(channel: Channel, another: Channel, version: Version) -> None:
        silent = channel.stream_stream(STREAM)()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                while True:
                    await silent.write(_request(np.zeros(1 << 12, np.float32)))  # 16 KiB each way
        async with asyncio.timeout(10):
            while True:
                other = another.stream_stream(STREAM)()
                try:
                    await other.write(_request(np.ones(1, np.float32)))
                    assert not _answer(await other.read()).error_message
                    break
                except aio.AioRpcError:
                    await asyncio.sleep(0.05)
        silent.cancel()

    _play_with_another(tmp_path, Limits(write_s=0.3), work)


def test_streams_have_a_limit_and_probes_are_answered_beside_them(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        streams = [channel.stream_stream(STREAM)() for _ in range(MOST)]
        for each in streams:
            await each.write(_request(np.ones(1, np.float32)))
            await each.read()
        late = channel.stream_stream(STREAM)()
        with pytest.raises(aio.AioRpcError, match=f"expected at most {MOST} streams at a time"):
            await late.read()
        assert await channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"")
        assert await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))
        for each in streams:
            each.cancel()

    _play(tmp_path, Limits(), work)


def test_calls_have_a_limit_and_probes_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeward_agent.serving.rpc.server._CALLS", 4)

    async def work(channel: Channel, version: Version) -> None:
        silent = await _silent(channel, 2)
        await asyncio.sleep(0.1)
        with pytest.raises(aio.AioRpcError, match="expected at most 2 calls of a connection at a time"):
            await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))
        assert await channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(bytes(1000)) is not None
        with pytest.raises(aio.AioRpcError, match="expected a whole message, its time is up"):
            await silent[0].read()
        assert await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))

    _play(tmp_path, Limits(request_s=0.5), work)


def test_a_call_counts_until_its_answer_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeward_agent.serving.rpc.server._CALLS", 4)

    async def work(channel: Channel, version: Version) -> None:
        unread = await _silent(channel, 2)
        for each in unread:
            await each.write(_request(np.zeros(1 << 23, np.float32)))  # more than lies on the way: 32 MiB
        await until(lambda: version.traffic.requests == 2)
        await asyncio.sleep(0.1)
        with pytest.raises(aio.AioRpcError, match="expected at most 2 calls of a connection at a time"):
            await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))
        for each in unread:
            assert len(await each.read()) > 1 << 25
        await until(lambda: not version.in_flight)
        assert await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))

    _play(tmp_path, Limits(), work)


def test_a_client_that_takes_no_such_answer_leaves_no_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with (
            _served(tmp_path, Limits()) as (address, _),
            _channel(address, answer_bytes=1 << 20) as channel,
        ):
            for _ in range(3):
                with pytest.raises(aio.AioRpcError, match="larger than max"):
                    await channel.unary_unary(INFER)(_request(np.zeros(1 << 21, np.float32)))
                stream = channel.stream_stream(STREAM)()
                await stream.write(_request(np.zeros(1 << 21, np.float32)))
                with pytest.raises(aio.AioRpcError, match="larger than max"):
                    await stream.read()

    asyncio.run(main())
    assert not caplog.messages


@pytest.mark.parametrize("count", [8, 40, 600])  # more than arrive at a time, and more than one may have
def test_callers_who_send_nothing_lock_nobody_out(tmp_path: Path, count: int) -> None:
    async def work(channel: Channel, another: Channel, version: Version) -> None:
        silent = await _silent(channel, count)
        async with asyncio.timeout(8):  # far less than the time that each of them has
            for _ in range(20):
                assert await another.unary_unary(INFER)(_request(np.ones(1, np.float32)))
        for each in silent:
            each.cancel()

    _play_with_another(tmp_path, Limits(), work)


def test_who_sends_much_over_a_slow_line_is_not_ended_by_what_he_sends_next(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        first, later = await _silent(channel, 14), await _silent(channel, 26)
        await asyncio.sleep(2)  # four times as long as who is prompt takes
        for each in (*first, *later):
            await each.write(_request(np.ones(1, np.float32)))
            assert await each.read()

    _play(tmp_path, Limits(), work)


def test_a_slow_sender_outlasts_a_connection_with_many_silent_calls(tmp_path: Path) -> None:
    async def work(channel: Channel, another: Channel, version: Version) -> None:
        (slow,) = await _silent(channel, 1)
        await asyncio.sleep(0.1)
        silent = await _silent(another, 40)
        assert await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))
        await asyncio.sleep(2)
        await slow.write(_request(np.ones(1, np.float32)))
        assert await slow.read()
        for each in silent:
            each.cancel()

    _play_with_another(tmp_path, Limits(), work)


def test_a_slow_sender_is_heard_when_others_have_come_and_gone(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        slow = await _silent(channel, 13)  # one fewer than places of both kinds
        assert await channel.unary_unary(INFER)(_request(np.ones(1, np.float32)))
        for each in slow:
            await each.write(_request(np.ones(1, np.float32)))
            assert await each.read()

    _play(tmp_path, Limits(), work)


def test_what_the_caller_did_wrong_is_counted_as_such(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        call = channel.stream_stream(STREAM)()
        await call.write(_request(np.ones(1, np.float32), name="other"))
        answer = _answer(await call.read())
        assert "expected inputs 'in'" in answer.error_message
        outcomes = version.traffic.outcomes()
        assert (outcomes[Outcome.INVALID], outcomes[Outcome.ANSWERED], outcomes[Outcome.FAILED]) == (1, 0, 0)

    _play(tmp_path, Limits(), work)


def test_a_refused_call_keeps_nothing_of_its_message(tmp_path: Path) -> None:
    async def work(channel: Channel, version: Version) -> None:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")

        async def ask() -> None:
            with pytest.raises(aio.AioRpcError, match="expected a message ModelMetadataRequest"):
                await call(b"\xff" * (1 << 20))

        await ask()
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(16):
                await ask()
            await until(lambda: tracemalloc.get_traced_memory()[0] < 4 << 20)
        finally:
            tracemalloc.stop()
            gc.enable()

    _play(tmp_path, Limits(), work)
