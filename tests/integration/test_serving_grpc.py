"""NVIDIA's gRPC client, unmodified, against the real serving process: calls, datatypes, errors, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto
from tritonclient import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import aio  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from edgeward_contract.manifest import Datatype, TensorSpec
from support.rpc import TIMEOUT_S, code, rpc_device, rpc_tensor, triton_rpc
from support.serving import (
    Device,
    ask,
    constant_release,
    failing_model,
    identity_model,
    manifest_for,
    sum_model,
    write_release,
)
from support.triton import AnyArray

_KINDS = {
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.INT16: TensorProto.INT16,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
}
SCORES = np.array([[0.25, 0.5, 0.125], [0.5, 0.0, 0.5]], np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Device, str]]:
    """One device with a model of each datatype, and some that are odd."""
    folder = tmp_path_factory.mktemp("grpc")
    releases = [constant_release(folder, 1.0, version=3)]
    for datatype, kind in _KINDS.items():
        name = datatype.value.lower()
        model = identity_model(folder / name / "model.onnx", kind, ["n", "m"])
        releases.append(write_release(model.parent, manifest_for(model, name)))
    for name, shape in (("scalar", []), ("any", None)):
        model = identity_model(folder / name / "model.onnx", TensorProto.FLOAT, shape)
        releases.append(write_release(model.parent, manifest_for(model, name)))
    for name, make in (("sum", sum_model), ("failing", failing_model)):
        model = make(folder / name / "model.onnx")
        releases.append(write_release(model.parent, manifest_for(model, name)))
    model = identity_model(folder / "scores" / "model.onnx", TensorProto.FLOAT, ["n", 3])
    labelled = TensorSpec(name="out", datatype=Datatype.FP32, shape=(-1, 3), labels=("benign", "malignant", "unclear"))
    releases.append(write_release(model.parent, manifest_for(model, "scores", outputs=[labelled])))
    with rpc_device(folder / "d", releases, "--deadlines", "off") as made:
        yield made


@pytest.fixture
def client(served: tuple[Device, str]) -> Iterator[grpc.InferenceServerClient]:
    with triton_rpc(served[1]) as made:
        yield made


# -- the server and its models


def test_metadata_and_health(client: grpc.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", "3")
    assert not client.is_model_ready("toy", "4")
    assert not client.is_model_ready("nope")
    assert "classification" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("sum", as_json=True)
    assert [each["name"] for each in metadata["inputs"]] == ["a", "b"]
    assert metadata["inputs"][0] == {"name": "a", "datatype": "INT32", "shape": ["-1", "4"]}
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope'") as caught:
        client.get_model_metadata("nope")
    assert code(caught.value) == "NOT_FOUND"


def test_configuration_and_index(client: grpc.InferenceServerClient) -> None:
    config = client.get_model_config("scores").config
    assert (config.name, config.platform, config.backend) == ("scores", "onnxruntime_onnx", "onnxruntime")
    assert (config.max_batch_size > 1000, list(config.input[0].dims)) == (True, [3])
    assert client.get_model_config("bytes", as_json=True)["config"]["input"][0]["data_type"] == "TYPE_STRING"
    listed = {each.name: each for each in client.get_model_repository_index().models}
    assert (listed["toy"].version, listed["toy"].state) == ("3", "READY")
    assert len(listed) == len(_KINDS) + 6


def test_statistics_count_what_was_asked(client: grpc.InferenceServerClient) -> None:
    before = client.get_inference_statistics("toy").model_stats[0].inference_count
    features = np.zeros((4, 30), np.float32)
    client.infer("toy", [rpc_tensor("features", features, "FP32")])
    (found,) = client.get_inference_statistics("toy", "3").model_stats
    assert found.inference_count == before + 4
    assert found.inference_stats.success.count == found.execution_count
    assert found.inference_stats.compute_infer.ns > 0
    assert len(client.get_inference_statistics().model_stats) == len(_KINDS) + 6


def test_models_are_loaded_by_the_agent_alone(client: grpc.InferenceServerClient) -> None:
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="by the agent alone, on its private socket") as caught:
            call("toy")
        assert code(caught.value) == "UNIMPLEMENTED"


def test_what_triton_has_and_a_device_has_not(client: grpc.InferenceServerClient) -> None:
    for call in (client.get_trace_settings, client.get_log_settings):
        with pytest.raises(InferenceServerException, match="the server does not support") as caught:
            call()
        assert code(caught.value) == "UNIMPLEMENTED"
    client.unregister_cuda_shared_memory()
    assert not client.get_cuda_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="GPUs not supported"):
        client.register_cuda_shared_memory("g", b"aGFuZGxl", 0, 100)
    with pytest.raises(InferenceServerException, match="shared memory is switched off here") as caught:
        client.register_system_shared_memory("r", "/x", 1)
    assert code(caught.value) == "UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="expected no sequence"):
        client.infer("fp32", [rpc_tensor("in", SCORES, "FP32")], sequence_id=7, sequence_start=True)
    found = client.infer("fp32", [rpc_tensor("in", SCORES, "FP32")], parameters={"anything": "at all"})
    assert found.as_numpy("out").tolist() == SCORES.tolist()


# -- tensors


def _example(datatype: Datatype) -> AnyArray:
    if datatype is Datatype.BYTES:
        return np.array([["a", "é", ""], ["b" * 1000, "\n", "0"]], object)
    if datatype is Datatype.BOOL:
        return np.array([[True, False, True]])
    if datatype is Datatype.BF16:
        return np.array([[1.0, -2.5, np.inf], [0.0, np.nan, 3e38]], ml_dtypes.bfloat16)
    kind = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}.get(datatype, datatype.lower())
    return np.array([[0, 1, 100], [3, 4, 5]], kind)


@pytest.mark.parametrize("datatype", _KINDS)
def test_every_datatype_comes_back_as_it_went(client: grpc.InferenceServerClient, datatype: Datatype) -> None:
    array = _example(datatype)
    found = client.infer(datatype.value.lower(), [rpc_tensor("in", array, datatype.value)]).as_numpy("out")
    assert found.shape == array.shape
    if datatype is Datatype.BYTES:
        assert [each.decode() for each in found.ravel()] == array.ravel().tolist()
    else:
        assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())


def test_two_inputs_two_outputs_and_an_id(client: grpc.InferenceServerClient) -> None:
    a, b = np.arange(8, dtype=np.int32).reshape(2, 4), np.ones((2, 4), np.int32)
    inputs = [rpc_tensor("b", b, "INT32"), rpc_tensor("a", a, "INT32")]
    result = client.infer("sum", inputs, request_id="42", model_version="1")
    assert (result.get_response().id, result.get_response().model_version) == ("42", "1")
    assert (result.as_numpy("sum") == a + b).all()
    assert (result.as_numpy("difference") == a - b).all()
    wanted = [grpc.InferRequestedOutput("difference")]
    only = client.infer("sum", inputs, outputs=wanted, timeout=1_000_000, priority=1)
    assert only.as_numpy("sum") is None
    assert (only.as_numpy("difference") == a - b).all()


def test_scalars_empty_tensors_nan_and_infinities(client: grpc.InferenceServerClient) -> None:
    scalar = np.array(2.5, np.float32)
    assert client.infer("scalar", [rpc_tensor("in", scalar, "FP32")]).as_numpy("out").shape == ()
    for shape in ((0, 7), (7, 0)):
        empty = np.zeros(shape, np.float32)
        assert client.infer("fp32", [rpc_tensor("in", empty, "FP32")]).as_numpy("out").shape == shape
    strange = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    assert client.infer("fp32", [rpc_tensor("in", strange, "FP32")]).as_numpy("out").tobytes() == strange.tobytes()
    deep = np.zeros((1,) * 6, np.float32)
    assert client.infer("any", [rpc_tensor("in", deep, "FP32")]).as_numpy("out").shape == (1,) * 6


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_a_large_tensor_also_compressed(client: grpc.InferenceServerClient, encoding: str | None) -> None:
    image = np.tile(np.arange(1000, dtype=np.float32), (1500, 1))
    inputs = [rpc_tensor("in", image, "FP32")]
    assert (client.infer("fp32", inputs, compression_algorithm=encoding).as_numpy("out") == image).all()


def test_the_best_classes_of_each_row(client: grpc.InferenceServerClient) -> None:
    wanted = [grpc.InferRequestedOutput("out", class_count=2)]
    result = client.infer("scores", [rpc_tensor("in", SCORES, "FP32")], outputs=wanted)
    assert result.get_output("out").datatype == "BYTES"
    found = [[each.decode() for each in row] for row in result.as_numpy("out")]
    assert found == [["0.500000:1:malignant", "0.250000:0:benign"], ["0.500000:0:benign", "0.500000:2:unclear"]]


# -- errors


@pytest.mark.parametrize(
    ("model", "version", "tensor", "status", "words"),
    [
        ("nope", "", ("in", (1, 3), "FP32"), "NOT_FOUND", "Request for unknown model: 'nope' is not found"),
        ("fp32", "9", ("in", (1, 3), "FP32"), "NOT_FOUND", "version"),
        ("fp32", "x", ("in", (1, 3), "FP32"), "NOT_FOUND", "version"),
        ("fp32", "", ("x", (1, 3), "FP32"), "INVALID_ARGUMENT", "expected inputs 'in', got 'x'"),
        ("fp32", "", ("in", (3,), "FP32"), "INVALID_ARGUMENT", "expected shape [-1, -1], got [3]"),
        ("fp32", "", ("in", (1, 3), "FP64"), "INVALID_ARGUMENT", "expected datatype FP32, got FP64"),
        ("sum", "", ("a", (1, 4), "INT32"), "INVALID_ARGUMENT", "expected inputs 'a', 'b', got none for 'b'"),
        ("failing", "", ("index", (9,), "INT64"), "INTERNAL", "the model failed"),
    ],
)
def test_errors_reach_the_user_of_the_client(
    client: grpc.InferenceServerClient,
    model: str,
    version: str,
    tensor: tuple[str, tuple[int, ...], str],
    status: str,
    words: str,
) -> None:
    name, shape, datatype = tensor
    kind = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "INT64": np.int64}[datatype]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [rpc_tensor(name, np.full(shape, 9, kind), datatype)], model_version=version)
    assert (code(caught.value), words in str(caught.value)) == (status, True), caught.value


def test_a_message_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    model = identity_model(tmp_path / "fp32" / "model.onnx", TensorProto.FLOAT, ["n", "m"])
    release = write_release(model.parent, manifest_for(model, "fp32"))
    with (
        rpc_device(tmp_path / "d", [release], "--max-body-mib", "1", "--deadlines", "off") as (made, address),
        triton_rpc(address) as client,
    ):
        for encoding in (None, "gzip"):
            large = np.zeros((1, (1 << 18) + 1), np.float32)
            with pytest.raises(InferenceServerException) as caught:
                client.infer("fp32", [rpc_tensor("in", large, "FP32")], compression_algorithm=encoding)
            assert code(caught.value) == "RESOURCE_EXHAUSTED"
        assert client.infer("fp32", [rpc_tensor("in", SCORES, "FP32")]).as_numpy("out").tolist() == SCORES.tolist()
        assert made.terminate() == 0


# -- asyncio


def test_the_asyncio_client(served: tuple[Device, str]) -> None:
    async def main() -> None:
        async with aio.InferenceServerClient(served[1]) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("sum", "1")
            assert (await client.get_model_config("sum")).config.name == "sum"
            for encoding in (None, "gzip", "deflate"):
                found = await client.infer(
                    "fp32",
                    [rpc_tensor("in", SCORES, "FP32")],
                    compression_algorithm=encoding,
                    timeout=5_000_000,
                    priority=1,
                    request_id="a",
                    client_timeout=TIMEOUT_S,
                )
                assert (found.as_numpy("out") == SCORES).all()
                assert found.get_response().id == "a"
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nope", [rpc_tensor("in", SCORES, "FP32")])
            await asyncio.gather(*(client.infer("fp32", [rpc_tensor("in", SCORES, "FP32")]) for _ in range(100)))

    asyncio.run(main())


def test_http_answers_beside_it(served: tuple[Device, str]) -> None:
    assert ask(served[0].port, "/v2/models/sum").json["name"] == "sum"
