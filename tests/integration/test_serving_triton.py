"""NVIDIA's own client, unmodified, against the real serving process: metadata, JSON and binary tensors, errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto
from tritonclient import http  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from edgeward_contract.manifest import Datatype
from support.serving import (
    FEATURES,
    Device,
    ask,
    constant_release,
    device,
    identity_model,
    manifest_for,
    sum_model,
    write_release,
)

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
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """One device with a model of each datatype, one with two inputs, and the constant one."""
    folder = tmp_path_factory.mktemp("triton")
    releases = [constant_release(folder, 1.0, version=3)]
    for datatype, kind in _KINDS.items():
        name = datatype.value.lower()
        model = identity_model(folder / name / "model.onnx", kind, ["n", "m"])
        releases.append(write_release(model.parent, manifest_for(model, name)))
    for name, shape in (("scalar", []), ("any", None)):
        model = identity_model(folder / name / "model.onnx", TensorProto.FLOAT, shape)
        releases.append(write_release(model.parent, manifest_for(model, name)))
    model = sum_model(folder / "sum" / "model.onnx")
    releases.append(write_release(model.parent, manifest_for(model, "sum")))
    with device(folder / "d") as made:
        made.commit(*releases)
        made.start()
        yield made


@pytest.fixture
def client(served: Device) -> Iterator[http.InferenceServerClient]:
    with http.InferenceServerClient(f"127.0.0.1:{served.port}", connection_timeout=20, network_timeout=20) as made:
        yield made


def _input(name: str, array: npt.NDArray[np.generic], datatype: str, *, binary: bool) -> http.InferInput:
    tensor = http.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_metadata_and_health(client: http.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", "3")
    assert not client.is_model_ready("toy", "4")
    assert not client.is_model_ready("nope")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("sum")
    assert [each["name"] for each in metadata["inputs"]] == ["a", "b"]
    assert [each["name"] for each in metadata["outputs"]] == ["sum", "difference"]
    assert metadata["inputs"][0] == {"name": "a", "datatype": "INT32", "shape": [-1, 4]}


def _example(datatype: Datatype) -> npt.NDArray[np.generic]:
    if datatype is Datatype.BYTES:
        return np.array([["a", "é", ""], ["b" * 1000, "\n", "0"]], object)
    if datatype is Datatype.BOOL:
        return np.array([[True, False, True]])
    kind = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}.get(datatype, datatype.lower())
    return np.array([[0, 1, 100], [3, 4, 5]], kind)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("datatype", _KINDS)
def test_every_datatype_comes_back_as_it_went(
    client: http.InferenceServerClient, datatype: Datatype, binary: bool
) -> None:
    array = _example(datatype)
    outputs = [http.InferRequestedOutput("out", binary_data=binary)]
    inputs = [_input("in", array, datatype.value, binary=binary)]
    if datatype is Datatype.FP16 and not binary:
        with pytest.raises(InferenceServerException, match="FP16, which JSON cannot carry"):
            client.infer("fp16", inputs, outputs=outputs)
        return
    found = client.infer(datatype.value.lower(), inputs, outputs=outputs).as_numpy("out")
    if datatype is Datatype.BYTES:
        found = np.array([each.decode() if isinstance(each, bytes) else each for each in found.ravel()]).reshape(2, 3)
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_two_inputs_two_outputs_and_an_id(client: http.InferenceServerClient, binary: bool) -> None:
    a, b = np.arange(8, dtype=np.int32).reshape(2, 4), np.ones((2, 4), np.int32)
    inputs = [_input("a", a, "INT32", binary=binary), _input("b", b, "INT32", binary=not binary)]
    result = client.infer("sum", inputs, request_id="42", model_version="1")
    assert result.get_response()["id"] == "42"
    assert result.get_response()["model_version"] == "1"
    assert (result.as_numpy("sum") == a + b).all()
    assert (result.as_numpy("difference") == a - b).all()
    wanted = [http.InferRequestedOutput("difference", binary_data=binary)]
    only = client.infer("sum", inputs, outputs=wanted, timeout=1_000_000, priority=1)
    assert only.as_numpy("sum") is None
    assert (only.as_numpy("difference") == a - b).all()


def test_scalars_empty_tensors_and_numbers_that_json_cannot_say(client: http.InferenceServerClient) -> None:
    scalar = np.array(2.5, np.float32)
    assert client.infer("scalar", [_input("in", scalar, "FP32", binary=True)]).as_numpy("out").shape == ()
    empty = np.zeros((0, 7), np.float32)
    assert client.infer("fp32", [_input("in", empty, "FP32", binary=True)]).as_numpy("out").shape == (0, 7)
    strange = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    found = client.infer("fp32", [_input("in", strange, "FP32", binary=True)]).as_numpy("out")
    assert found.tobytes() == strange.tobytes()
    deep = np.zeros((1,) * 6, np.float32)
    assert client.infer("any", [_input("in", deep, "FP32", binary=True)]).as_numpy("out").shape == (1,) * 6


def test_a_large_tensor(client: http.InferenceServerClient) -> None:
    image = np.random.default_rng(0).random((672, 224), np.float32)
    found = client.infer("fp32", [_input("in", image, "FP32", binary=True)]).as_numpy("out")
    assert found.tobytes() == image.tobytes()


def test_a_raw_body_is_the_only_input_and_the_answer_is_in_bytes(served: Device) -> None:
    body = np.zeros((4, FEATURES), np.float32).tobytes()
    reply = ask(served.port, "/v2/models/toy/infer", body, headers={"Inference-Header-Content-Length": "0"})
    assert reply.status == 200
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert np.frombuffer(reply.body[length:], np.float32).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("model", "tensor", "words"),
    [
        ("nope", ("in", (1, 3), "FP32"), "Request for unknown model: 'nope' is not found"),
        ("fp32", ("x", (1, 3), "FP32"), "expected inputs 'in', got 'x'"),
        ("fp32", ("in", (3,), "FP32"), "expected shape [-1, -1], got [3]"),
        ("fp32", ("in", (1, 3), "FP64"), "expected datatype FP32, got FP64"),
    ],
)
def test_errors_reach_the_user_of_the_client(
    client: http.InferenceServerClient, model: str, tensor: tuple[str, tuple[int, ...], str], words: str
) -> None:
    name, shape, datatype = tensor
    array = np.zeros(shape, np.float64 if datatype == "FP64" else np.float32)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [_input(name, array, datatype, binary=True)])
    assert words in str(caught.value)


def test_requests_side_by_side(served: Device) -> None:
    address = f"127.0.0.1:{served.port}"
    with http.InferenceServerClient(address, concurrency=4, network_timeout=20) as client:
        tensor = _input("in", np.ones((1, 3), np.float32), "FP32", binary=True)
        asked = [client.async_infer("fp32", [tensor]) for _ in range(100)]
        assert all(each.get_result().as_numpy("out").sum() == 3 for each in asked)
