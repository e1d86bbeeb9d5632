"""Reading requests and building answers of the Open Inference Protocol: a table of everything that can be wrong."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.interface import Interface, model_metadata, response_head
from edgeward_agent.serving.protocol import build_infer, parse_infer
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.tensors import Array
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec


def _spec(name: str, datatype: Datatype = Datatype.FP32, shape: tuple[int, ...] = (-1, 2)) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


ONE = Interface.of([_spec("x")], [_spec("y"), _spec("z")])
TWO = Interface.of([_spec("a"), _spec("b", Datatype.INT64, (2,))], [_spec("y")])
HALF = Interface.of([_spec("x", Datatype.FP16)], [_spec("y", Datatype.FP16)])
TEXT = Interface.of([_spec("x", Datatype.BYTES, (-1,))], [_spec("y", Datatype.BYTES, (-1,))])
SCALAR = Interface.of([_spec("x", Datatype.FP32, ())], [_spec("y", Datatype.FP32, ())])
FLAG = Interface.of([_spec("x", Datatype.BOOL, (-1,))], [_spec("y")])


def _input(**changes: object) -> dict[str, object]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}


def _body(*inputs: object, **more: object) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def _feed(interface: Interface, body: bytes, header_length: int | None = None) -> Array:
    return parse_infer(interface, body, header_length).feeds["x"]


def test_a_json_request() -> None:
    request = parse_infer(ONE, _body(_input(), id="7", parameters={"timeout": 1, "unheard_of": [1]}), None)
    assert request.id == "7"
    assert request.feeds["x"].tolist() == [[1.0, 2.0]]
    assert request.feeds["x"].dtype == np.float32
    assert request.outputs == {"y": False, "z": False}
    assert request.capture is CaptureMode.OFF


def test_nested_lists_are_the_same_as_flat_ones() -> None:
    assert _feed(ONE, _body(_input(shape=[2, 2], data=[[1, 2], [3, 4]]))).tolist() == [[1, 2], [3, 4]]


def test_a_binary_request() -> None:
    header = _body(_input(data=None, parameters={"binary_data_size": 8}), parameters={"binary_data_output": True})
    header = header.replace(b', "data": null', b"")
    request = parse_infer(ONE, header + np.array([1, 2], np.float32).tobytes(), len(header))
    assert request.feeds["x"].tolist() == [[1.0, 2.0]]
    assert request.outputs == {"y": True, "z": True}


def test_binary_inputs_follow_each_other_beside_json_ones() -> None:
    inputs = [
        {"name": "b", "datatype": "INT64", "shape": [2], "data": [5, 6]},
        {"name": "a", "datatype": "FP32", "shape": [0, 2], "parameters": {"binary_data_size": 0}},
    ]
    header = _body(*inputs)
    feeds = parse_infer(TWO, header, len(header)).feeds
    assert feeds["b"].tolist() == [5, 6]
    assert feeds["a"].shape == (0, 2)


def test_an_output_chooses_its_own_form() -> None:
    wanted = [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}]
    request = parse_infer(ONE, _body(_input(), outputs=wanted, parameters={"binary_data_output": True}), None)
    assert request.outputs == {"z": False, "y": True}


def test_a_scalar_and_a_flag() -> None:
    assert _feed(SCALAR, _body(_input(shape=[], data=[2.5]))).shape == ()
    assert _feed(FLAG, _body(_input(datatype="BOOL", shape=[2], data=[True, False]))).tolist() == [True, False]


def test_a_raw_body_is_the_only_input() -> None:
    request = parse_infer(ONE, np.arange(6, dtype=np.float32).tobytes(), 0)
    assert request.feeds["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert request.outputs == {"y": True, "z": True}


def test_a_request_may_ask_to_be_recorded() -> None:
    request = parse_infer(ONE, _body(_input(), parameters={"capture": "durable"}), None)
    assert request.capture is CaptureMode.DURABLE


def _wrong(*inputs: object, **more: object) -> tuple[Interface, bytes, int | None]:
    return ONE, _body(*inputs, **more), None


_SHARED = {"shared_memory_region": "r"}
BAD: list[tuple[tuple[Interface, bytes, int | None], str]] = [
    ((ONE, b"", None), "expected JSON"),
    ((ONE, b"nonsense", None), "expected JSON"),
    ((ONE, b"\xff", None), "expected JSON"),
    ((ONE, b'{"inputs":[{"name":"\xff"}]}', None), "expected JSON in UTF-8, got byte 0xff"),
    ((ONE, b"[]", None), "expected `object`, got `array`"),
    ((ONE, b"{}", None), "missing required field `inputs`"),
    ((ONE, b'{"inputs":' + b"[" * 100_000, None), "expected"),
    ((ONE, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None), "nested too deep"),
    (
        (ONE, _body(_input()).replace(b"[1, 2]}", b"[1, NaN]}"), None),
        "expected finite numbers in JSON, got NaN at byte",
    ),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b"[1, -Infinity]}"), None), "got Infinity at byte"),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b"[1, 1e999]}"), None), "number out of range"),
    (_wrong(), "expected inputs 'x', got none for 'x'"),
    (_wrong(_input(name="q")), "expected inputs 'x', got 'q'"),
    (_wrong(_input(), _input()), "expected each input once, got 'x' twice"),
    (_wrong(_input(datatype="FP64")), "input 'x': expected datatype FP32, got FP64"),
    (_wrong(_input(datatype="nonsense")), "input 'x': expected datatype FP32, got nonsense"),
    (_wrong(_input(shape=[2])), "input 'x': expected shape [-1, 2], got [2]"),
    (_wrong(_input(shape=[1, 3])), "input 'x': expected shape [-1, 2], got [1, 3]"),
    (_wrong(_input(shape=[-1, 2])), "input 'x': expected dimensions from 0"),
    (_wrong(_input(shape=[1 << 80, 2])), "input 'x': expected dimensions from 0"),
    (_wrong(_input(shape=[1 << 62, 2])), "expected 9223372036854775808 elements"),
    (_wrong(_input(shape=["1", 2])), "expected `int`, got `str` - at `$.inputs[0].shape[0]`"),
    (_wrong(_input(shape=[1.5, 2])), "expected `int`, got `float`"),
    (_wrong(_input(data=[1])), "input 'x': expected 2 elements for shape [1, 2], got 1"),
    (_wrong(_input(data=[1, "2"])), "input 'x': data: expected `float`, got `str` - at `$[1]`"),
    (_wrong(_input(data=[1, None])), "input 'x': data: expected `float`, got `null`"),
    (_wrong(_input(data=[True, 2])), "input 'x': data: expected `float`, got `bool`"),
    (_wrong(_input(data=[[[1, 2]]])), "input 'x': data: expected `float`, got `array`"),
    (_wrong(_input(data=7)), "input 'x': data: expected `array`, got `int`"),
    (_wrong(_input(data={"a": 1})), "input 'x': data: expected `array`, got `object`"),
    (_wrong({"name": "x", "datatype": "FP32", "shape": [1, 2]}), "expected data or binary_data_size, got neither"),
    (_wrong(_input(parameters={"binary_data_size": 8})), "expected either data or binary_data_size, got both"),
    (_wrong(_input(parameters=_SHARED)), "input 'x': shared memory is not enabled"),
    (_wrong(_input(), outputs=[{"name": "q"}]), "expected outputs of 'y', 'z', got 'q'"),
    (_wrong(_input(), outputs=[{"name": "y"}, {"name": "y"}]), "expected each output once, got 'y' twice"),
    (_wrong(_input(), outputs=[{"name": "y", "parameters": {"classification": 1}}]), "classification is not supported"),
    (_wrong(_input(), outputs=[{"name": "y", "parameters": _SHARED}]), "output 'y': shared memory is not enabled"),
    (_wrong(_input(), parameters={"capture": "sometimes"}), "invalid enum value 'sometimes'"),
    (_wrong(_input(), id=7), "expected `str`, got `int` - at `$.id`"),
    ((ONE, _body(_input()), 10_000), "expected Inference-Header-Content-Length up to the body's"),
    ((ONE, _body(_input()) + b"more", len(_body(_input()))), "expected 0 bytes of binary data for the inputs, got 4"),
    ((ONE, b"\0" * 7, 0), "input 'x': expected 0 bytes"),
    ((TWO, b"\0" * 8, 0), "expected a JSON header for the 2 inputs of the model, got a raw body"),
    ((TEXT, b"abc", 0), "input 'x': expected a JSON header for BYTES"),
    ((HALF, _body(_input(datatype="FP16")), None), "output 'y': expected binary_data for FP16"),
    (
        (HALF, _body(_input(datatype="FP16"), parameters={"binary_data_output": True}), None),
        "input 'x': expected binary data for FP16, which JSON cannot carry",
    ),
    ((FLAG, _body(_input(datatype="BOOL", shape=[1], data=[1])), None), "expected `bool`, got `int`"),
]


@pytest.mark.parametrize(("request_", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_request_is_refused_in_words(request_: tuple[Interface, bytes, int | None], words: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_infer(*request_)
    assert caught.value.status == 400
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("size", [-1, 9, 1 << 62])
def test_binary_data_must_be_there(size: int) -> None:
    tensor = _input(parameters={"binary_data_size": size})
    del tensor["data"]
    header = _body(tensor)
    with pytest.raises(Refusal, match="input 'x': expected binary_data_size up to 8, got"):
        parse_infer(ONE, header + b"\0" * 8, len(header))


def test_an_answer_in_json() -> None:
    request = parse_infer(ONE, _body(_input(), id='a"b'), None)
    results: list[Array] = [np.array([[1.5, np.nan]], np.float32), np.zeros((0, 2), np.float32)]
    header_length, parts = build_infer(ONE, response_head("m", 3), request, results)
    assert header_length is None
    assert json.loads(b"".join(parts)) == {
        "model_name": "m",
        "model_version": "3",
        "id": 'a"b',
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]},
            {"name": "z", "datatype": "FP32", "shape": [0, 2], "data": []},
        ],
    }


def test_an_answer_in_bytes() -> None:
    wanted = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
    request = parse_infer(ONE, _body(_input(), outputs=wanted), None)
    results: list[Array] = [np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)]
    header_length, parts = build_infer(ONE, response_head("m", 3), request, results)
    body = b"".join(parts)
    outputs = json.loads(body[:header_length])["outputs"]
    assert outputs[0] == {"name": "z", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    assert outputs[1]["data"] == [3, 4]
    assert np.frombuffer(body[header_length:], np.float32).tolist() == [1, 2]


def test_metadata_names_every_tensor() -> None:
    assert json.loads(model_metadata("m", [1, 2], TWO)) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "b", "datatype": "INT64", "shape": [2]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }


_KEYS = st.sampled_from(
    ["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "binary_data_size", "x"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(document=_JSON, extra=st.binary(max_size=24), header_length=st.none() | st.integers(0, 200))
def test_whatever_comes_is_a_request_or_a_refusal(document: object, extra: bytes, header_length: int | None) -> None:
    for interface in (ONE, TEXT):
        body = msgspec.json.encode(document) + extra
        try:
            parse_infer(interface, body, header_length)
        except Refusal as refusal:
            assert str(refusal)


@given(
    datatype=st.sampled_from(["FP32", "BYTES", "INT64", "BOOL"]),
    shape=st.lists(st.integers(-2, 4) | st.integers(), max_size=4),
    data=_JSON,
    size=st.none() | st.integers(-1, 30),
    extra=st.binary(max_size=24),
)
def test_whatever_a_tensor_says_it_is_read_or_refused(
    datatype: str, shape: list[int], data: object, size: int | None, extra: bytes
) -> None:
    spec = _spec("x", Datatype(datatype), ())
    tensor: dict[str, object] = {"name": "x", "datatype": datatype, "shape": shape}
    tensor |= {"data": data} if size is None else {"parameters": {"binary_data_size": size}}
    header = msgspec.json.encode({"inputs": [tensor]})
    try:
        request = parse_infer(Interface.of([spec], [_spec("y")]), header + extra, len(header))
    except Refusal as refusal:
        assert str(refusal)
    else:
        assert request.feeds["x"].shape == tuple(shape)
