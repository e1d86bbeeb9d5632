"""Many requests on one gRPC call, deadlines, callers who leave, and what comes in that is no gRPC at all."""

from __future__ import annotations

import asyncio
import queue
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc as library
import numpy as np
import pytest
from onnx import TensorProto
from tritonclient import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from support.rpc import TIMEOUT_S, code, rpc_device, rpc_tensor, triton_rpc
from support.serving import (
    Device,
    ask,
    failing_model,
    identity_model,
    manifest_for,
    slow_model,
    wait_until,
    write_release,
)

ONE = np.ones((1, 3), np.float32)
SLOW = np.ones((256, 512), np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Device, str]]:
    folder = tmp_path_factory.mktemp("grpc")
    releases = []
    model = identity_model(folder / "fp32" / "model.onnx", TensorProto.FLOAT, ["n", "m"])
    releases.append(write_release(model.parent, manifest_for(model, "fp32")))
    for name, make in (("failing", failing_model), ("slow", slow_model)):
        model = make(folder / name / "model.onnx")
        releases.append(write_release(model.parent, manifest_for(model, name)))
    with rpc_device(folder / "d", releases, "--deadlines", "off") as made:
        yield made


@pytest.fixture
def client(served: tuple[Device, str]) -> Iterator[grpc.InferenceServerClient]:
    with triton_rpc(served[1]) as made:
        yield made


# -- streams


def test_a_stream_answers_in_order_and_outlives_an_error(client: grpc.InferenceServerClient) -> None:
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: heard.put((result, error)))
    for index in range(50):
        if index == 20:
            client.async_stream_infer("nope", [rpc_tensor("in", ONE, "FP32")], request_id="unknown")
        elif index == 30:
            outside = np.array([9], np.int64)
            client.async_stream_infer("failing", [rpc_tensor("index", outside, "INT64")], request_id="fails")
        else:
            client.async_stream_infer("fp32", [rpc_tensor("in", ONE * index, "FP32")], request_id=str(index))
    answers = [heard.get(timeout=TIMEOUT_S) for _ in range(50)]
    assert "unknown model" in str(answers[20][1])
    assert "the model failed" in str(answers[30][1])
    for index, (result, error) in enumerate(answers):
        if index not in (20, 30):
            assert error is None
            assert result.get_response().id == str(index)
            assert result.get_response().parameters["triton_final_response"].bool_param
            assert (result.as_numpy("out") == ONE * index).all()
    client.stop_stream()


def test_an_error_in_a_stream_says_which_request_it_was(served: tuple[Device, str]) -> None:
    with library.insecure_channel(served[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = [service_pb2.ModelInferRequest(model_name=name, id=f"of {name}") for name in ("nope", "fp32")]
        found = list(stub.ModelStreamInfer(iter(asked), timeout=TIMEOUT_S))
    assert [each.infer_response.id for each in found] == ["of nope", "of fp32"]
    assert "expected inputs 'in'" in found[1].error_message


def test_slow_requests_of_one_stream_run_side_by_side(client: grpc.InferenceServerClient) -> None:
    """The line sees them all at once, and the statistics say how long they waited there."""
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: heard.put((result, error)))
    for _ in range(4):
        client.async_stream_infer("slow", [rpc_tensor("in", SLOW, "FP32")])
    answers = [heard.get(timeout=TIMEOUT_S) for _ in range(4)]
    assert all(error is None for _, error in answers)
    client.stop_stream()
    (stats,) = client.get_inference_statistics("slow").model_stats
    assert stats.inference_stats.queue.ns > 0


def test_the_asyncio_client_streams(served: tuple[Device, str]) -> None:
    async def requests() -> AsyncIterator[dict[str, object]]:
        for index in range(10):
            yield {"model_name": "fp32", "inputs": [rpc_tensor("in", ONE * index, "FP32")], "request_id": str(index)}

    async def main() -> None:
        async with aio.InferenceServerClient(served[1]) as client:
            found = [each async for each in client.stream_infer(requests(), stream_timeout=TIMEOUT_S)]
        assert [result.get_response().id for result, error in found if error is None] == [str(n) for n in range(10)]

    asyncio.run(main())


def test_a_stream_whose_client_has_gone_takes_nothing_along(served: tuple[Device, str]) -> None:
    with triton_rpc(served[1]) as client:
        client.start_stream(callback=lambda result, error: None)
        for _ in range(40):
            client.async_stream_infer("slow", [rpc_tensor("in", SLOW, "FP32")])
        client.stop_stream(cancel_requests=True)
    with triton_rpc(served[1]) as client:
        found = client.infer("fp32", [rpc_tensor("in", ONE, "FP32")], client_timeout=TIMEOUT_S)
        assert (found.as_numpy("out") == ONE).all()


# -- deadlines and callers who leave


def test_a_timeout_that_cannot_be_met_is_refused_at_once(client: grpc.InferenceServerClient) -> None:
    for _ in range(3):  # learns
        client.infer("slow", [rpc_tensor("in", SLOW, "FP32")])
    with pytest.raises(InferenceServerException, match="before the deadline") as caught:
        client.infer("slow", [rpc_tensor("in", SLOW, "FP32")], timeout=100)
    assert code(caught.value) == "UNAVAILABLE"


def test_the_deadline_of_the_call_counts_too(served: tuple[Device, str], client: grpc.InferenceServerClient) -> None:
    client.infer("slow", [rpc_tensor("in", SLOW, "FP32")])
    before = _failures(client)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", [rpc_tensor("in", SLOW, "FP32")], client_timeout=0.002)
    assert code(caught.value) in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
    generous = client.infer("slow", [rpc_tensor("in", SLOW, "FP32")], client_timeout=TIMEOUT_S, timeout=0)
    assert generous.as_numpy("out").shape == SLOW.shape
    assert _failures(client) >= before


def test_a_call_that_is_cancelled_frees_its_place(client: grpc.InferenceServerClient) -> None:
    """Otherwise two hundred times some 50 ms of work would lie before the next."""
    before = _executions(client)
    calls = [
        client.async_infer("slow", [rpc_tensor("in", SLOW, "FP32")], callback=lambda result, error: None)
        for _ in range(100)
    ]
    for call in calls:
        call.cancel()
    found = client.infer("slow", [rpc_tensor("in", SLOW, "FP32")], client_timeout=TIMEOUT_S)
    assert found.as_numpy("out").shape == SLOW.shape
    assert _executions(client) - before < 50


def _failures(client: grpc.InferenceServerClient) -> int:
    (stats,) = client.get_inference_statistics("slow").model_stats
    return int(stats.inference_stats.fail.count)


def _executions(client: grpc.InferenceServerClient) -> int:
    (stats,) = client.get_inference_statistics("slow").model_stats
    return int(stats.execution_count)


def test_more_than_may_wait_is_refused(served: tuple[Device, str]) -> None:
    async def main() -> list[object]:
        async with aio.InferenceServerClient(served[1]) as client:
            inputs = [rpc_tensor("in", SLOW[:64], "FP32")]
            calls = (client.infer("slow", inputs) for _ in range(400))
            found: list[object] = await asyncio.gather(*calls, return_exceptions=True)
            return found

    found = asyncio.run(main())
    refused = [each for each in found if isinstance(each, InferenceServerException)]
    assert refused
    assert len(refused) < len(found)
    assert {code(each) for each in refused} <= {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}


# -- what is no gRPC


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
        bytes(range(256)) * 100,
        b"",
    ],
    ids=["http", "zeros", "frames", "bytes", "nothing"],
)
def test_garbage_on_the_port_harms_nobody(
    served: tuple[Device, str], client: grpc.InferenceServerClient, data: bytes
) -> None:
    host, port = served[1].rsplit(":", 1)
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
            except OSError:
                pass  # it was cut off, as it should
    assert client.is_server_ready()
    assert (client.infer("fp32", [rpc_tensor("in", ONE, "FP32")]).as_numpy("out") == ONE).all()


def test_connections_beyond_the_limit_are_closed_and_the_rest_goes_on(
    served: tuple[Device, str], client: grpc.InferenceServerClient
) -> None:
    assert client.is_server_ready()  # connected before the others came
    host, port = served[1].rsplit(":", 1)
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(560)]
        for each in idle:
            each.setblocking(False)
        wait_until(lambda: sum(map(_closed, idle)) >= 40)
        assert client.is_server_ready()
    with triton_rpc(served[1]) as another:
        wait_until(lambda: _ready(another))


def _closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it."""
    try:
        return connection.recv(1 << 16, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _ready(client: grpc.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=TIMEOUT_S))
    except InferenceServerException:
        return False


@pytest.mark.parametrize("body", [b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"])
def test_messages_that_are_none_are_refused(served: tuple[Device, str], body: bytes) -> None:
    with library.insecure_channel(served[1]) as channel:
        assert _code(channel, "ModelInfer", body) is library.StatusCode.INVALID_ARGUMENT
        assert _code(channel, "ModelMetadata", body) is library.StatusCode.INVALID_ARGUMENT
        assert _code(channel, "Nope", b"") is library.StatusCode.UNIMPLEMENTED


def _code(channel: library.Channel, name: str, body: bytes) -> library.StatusCode:
    call: library.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
    with pytest.raises(library.RpcError) as caught:
        call(body, timeout=TIMEOUT_S)
    return caught.value.code()


def test_a_small_message_that_becomes_a_large_one_is_not_inflated(tmp_path: Path) -> None:
    """80 MiB of zeros are 80 KiB when packed; the limit is for what comes out."""
    model = identity_model(tmp_path / "fp32" / "model.onnx", TensorProto.FLOAT, ["n", "m"])
    release = write_release(model.parent, manifest_for(model, "fp32"))
    with rpc_device(tmp_path / "d", [release], "--max-body-mib", "1") as (made, address), triton_rpc(address) as client:
        client.infer("fp32", [rpc_tensor("in", ONE, "FP32")])
        before = made.memory_bytes()
        bomb = rpc_tensor("in", np.zeros((1, 20 << 20), np.float32), "FP32")
        for _ in range(3):
            with pytest.raises(InferenceServerException) as caught:
                client.infer("fp32", [bomb], compression_algorithm="gzip")
            assert code(caught.value) == "RESOURCE_EXHAUSTED"
        assert _peak_bytes(made) - before < 40 << 20


def _peak_bytes(made: Device) -> int:
    assert made.process is not None
    for line in Path(f"/proc/{made.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("expected VmHWM in /proc/PID/status, found none")


# -- the end


def test_the_end_answers_what_was_asked_and_ends_idle_streams(tmp_path: Path) -> None:
    model = slow_model(tmp_path / "slow" / "model.onnx")
    release = write_release(model.parent, manifest_for(model, "slow"))
    heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with rpc_device(tmp_path / "d", [release], "--deadlines", "off") as (made, address), triton_rpc(address) as client:
        client.start_stream(callback=lambda result, error: heard.put((result, error)))
        client.async_stream_infer("slow", [rpc_tensor("in", SLOW, "FP32")])
        assert heard.get(timeout=TIMEOUT_S)[1] is None
        client.async_stream_infer("slow", [rpc_tensor("in", SLOW, "FP32")])
        wait_until(lambda: ask(made.port, "/v2/health/live").status == 200)
        assert made.terminate(4.0) == 0
        result, error = heard.get(timeout=TIMEOUT_S)
        if error is None:
            assert result.as_numpy("out").shape == SLOW.shape
            result, error = heard.get(timeout=TIMEOUT_S)
        assert code(error) == "UNAVAILABLE"
        client.stop_stream(cancel_requests=True)
