"""Reading requests and building answers of the Open Inference Protocol: a table of everything that can be wrong."""

from __future__ import annotations

import json
import math
import time

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeward_agent.serving.answer import build_infer
from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.documents import model_metadata
from edgeward_agent.serving.interface import Interface, response_head
from edgeward_agent.serving.json_data import json_elements
from edgeward_agent.serving.protocol import parse_infer
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.wire.tensors import Array, TensorError
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec


def _spec(name: str, datatype: Datatype = Datatype.FP32, shape: tuple[int, ...] = (-1, 2)) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


ONE = Interface.of([_spec("x")], [_spec("y"), _spec("z")])
TWO = Interface.of([_spec("a"), _spec("b", Datatype.INT64, (2,))], [_spec("y")])
HALF = Interface.of([_spec("x", Datatype.FP16)], [_spec("y", Datatype.FP16)])
TEXT = Interface.of([_spec("x", Datatype.BYTES, (-1,))], [_spec("y", Datatype.BYTES, (-1,))])
SCALAR = Interface.of([_spec("x", Datatype.FP32, ())], [_spec("y", Datatype.FP32, ())])
PAIR = Interface.of([_spec("x", Datatype.BYTES, (2,))], [_spec("y")])
OPEN = Interface.of([_spec("x", Datatype.FP32, (-1, -1))], [_spec("y")])
BRAIN = Interface.of([_spec("x", Datatype.BF16)], [_spec("y", Datatype.BF16)])
FLAG = Interface.of([_spec("x", Datatype.BOOL, (-1,))], [_spec("y")])


def _input(**changes: object) -> dict[str, object]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}


def _bare(**changes: object) -> dict[str, object]:
    """An input without data."""
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], **changes}


def _text_input() -> dict[str, object]:
    return _input(datatype="BYTES", shape=[1], data=["a"])


def _asking(**parameters: object) -> list[dict[str, object]]:
    return [{"name": "y", "parameters": parameters}]


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


def test_a_raw_body_is_the_one_element_of_a_text() -> None:
    assert _feed(TEXT, "é".encode(), 0).tolist() == ["é"]


def test_bf16_travels_as_its_bits() -> None:
    header = _body(_bare(datatype="BF16", parameters={"binary_data_size": 4}), parameters={"binary_data_output": True})
    request = parse_infer(BRAIN, header + b"\x80\x3f\x00\xc0", len(header))
    assert request.feeds["x"].tolist() == [[0x3F80, 0xC000]]
    _, parts = build_infer(BRAIN, response_head("m", 1), request, [request.feeds["x"]])
    assert parts[-1] == b"\x80\x3f\x00\xc0"


def test_a_deadline_and_a_priority() -> None:
    most = {"timeout": (1 << 63) - 1, "priority": (1 << 64) - 1}
    request = parse_infer(ONE, _body(_input(), parameters=most), None)
    assert (request.timeout_us, request.priority) == ((1 << 63) - 1, (1 << 64) - 1)
    plain = parse_infer(ONE, _body(_input()), None)
    assert (plain.timeout_us, plain.priority) == (None, 0)


def test_numbers_that_json_has_no_word_for_are_read_and_written_as_the_caller_writes_them() -> None:
    interface = Interface.of([_spec("x", Datatype.FP32, (-1,))], [_spec("y", Datatype.FP32, (-1,))])
    body = json.dumps(
        {"inputs": [_input(shape=[4], data=[1.5, float("nan"), float("inf"), -float("inf")])], "id": "NaN"}
    )
    request = parse_infer(interface, body.encode(), None)
    array = request.feeds["x"]
    assert (array[0], np.isnan(array[1]), array[2], array[3]) == (1.5, True, np.inf, -np.inf)
    assert request.id == "NaN"
    assert request.aside is not None
    request.aside.settle(interface, request.outputs, [array])
    _, parts = build_infer(interface, response_head("m", 1), request, [array])
    assert b'"data":[1.5, NaN, Infinity, -Infinity]}' in b"".join(parts)


def test_words_in_strings_stay_words() -> None:
    tricky = json.dumps({"inputs": [_input(data=[float("nan"), 1])], "id": 'a "NaN" \\\\', "x": "Infinity"}).encode()
    assert parse_infer(ONE, tricky, None).id == 'a "NaN" \\\\'


def test_text_that_reads_like_a_number_stays_text_beside_numbers() -> None:
    interface = Interface.of([_spec("x", Datatype.FP64), _spec("t", Datatype.BYTES, (-1,))], [_spec("y")])
    words = ["NaN", "Infinity", "-Infinity", "[NaN]"]
    numbers = _input(datatype="FP64", data=[[-math.inf, float("nan")]])
    texts = {"name": "t", "datatype": "BYTES", "shape": [4], "data": words}
    request = parse_infer(interface, _body(texts, numbers, id="Infinity"), None)
    assert (request.id, request.feeds["t"].tolist()) == ("Infinity", words)
    np.testing.assert_array_equal(request.feeds["x"], [[-math.inf, np.nan]])


def test_a_string_that_never_ends_stops_nobody() -> None:
    """Looked at from each of its quotes to the end this took minutes."""
    for end in (b"", b"\\", b"\n", b"NaN"):
        began_s = time.monotonic()
        with pytest.raises(Refusal, match="expected JSON"):
            parse_infer(ONE, b'{"a":"' + b'\\"' * 60_000 + end, None)
        assert time.monotonic() - began_s < 5


def test_lists_in_lists_are_as_deep_as_the_tensor_and_not_too_many() -> None:
    def parsed(data: object, shape: list[int]) -> list[object]:
        found: list[object] = parse_infer(ONE, _body(_input(shape=shape, data=data)), None).feeds["x"].tolist()
        return found

    rows = [[float(number), 0.5] for number in range(16_000)]
    assert parsed(rows, [16_000, 2]) == rows
    for data, words in (
        ([[0.5, 0.5]] * 17_000, "expected at most 16384 lists in each other, got 17001: send it flat"),
        ([[0.5, 0.5], 1], "expected `array`, got `int`"),
        ([[[0.5], [0.5]]], "expected `float`, got `array`"),
        ([["a", "b"]], "expected `float`, got `str`"),
    ):
        with pytest.raises(Refusal, match=words):
            parsed(data, [len(data), 2])
    with pytest.raises(TensorError, match="expected lists of at most 64 levels, got 9000"):
        json_elements("f", msgspec.Raw(b"[" * 9000 + b"]" * 9000), 9000, literals=False)
    with pytest.raises(Refusal, match="number out of range"):
        parse_infer(ONE, _body(_input()).replace(b"[1, 2]}", b"[[1e400, 2]]}"), None)


@pytest.mark.parametrize("parameters", [{"sequence_id": 1}, {"sequence_id": "a"}, {"sequence_end": True}])
def test_sequences_are_not_kept(parameters: dict[str, object]) -> None:
    with pytest.raises(Refusal, match="expected no sequence") as caught:
        parse_infer(ONE, _body(_input(), parameters=parameters), None)
    assert caught.value.status == 501
    assert parse_infer(ONE, _body(_input(), parameters={"sequence_id": 0, "sequence_start": False}), None)


def test_json_has_a_limit_of_its_own() -> None:
    terms = Terms(json_bytes=200)
    header = _body(_bare(parameters={"binary_data_size": 800}, shape=[100, 2]))
    assert parse_infer(ONE, header + b"\0" * 800, len(header), terms).feeds["x"].shape == (100, 2)
    with pytest.raises(Refusal, match="expected at most 200 bytes of JSON, got 300: send tensors as binary") as caught:
        parse_infer(ONE, b" " * 300, None, terms)
    assert caught.value.status == 413
    request = parse_infer(ONE, _body(_input(), outputs=[{"name": "y"}]), None)
    build_infer(ONE, b"{", request, [np.zeros((6, 2), np.float32)], terms)
    with pytest.raises(Refusal, match="outputs of at most 12 values in JSON, got one of 14: ask for it with binary"):
        build_infer(ONE, b"{", request, [np.zeros((7, 2), np.float32)], terms)


def test_a_request_may_ask_to_be_recorded() -> None:
    request = parse_infer(ONE, _body(_input(), parameters={"capture": "durable"}), None)
    assert request.capture is CaptureMode.DURABLE


def _wrong(*inputs: object, **more: object) -> tuple[Interface, bytes, int | None]:
    return ONE, _body(*inputs, **more), None


_SHARED = {"shared_memory_region": "r"}
_ELSEWHERE = "expected NaN and Infinity among the numbers of FP32 and FP64 alone, got one elsewhere"
_NAN = float("nan")
BAD: list[tuple[tuple[Interface, bytes, int | None], str]] = [
    ((ONE, b"", None), "expected JSON"),
    ((ONE, b"nonsense", None), "expected JSON"),
    ((ONE, b"\xff", None), "expected JSON"),
    ((ONE, b'{"inputs":[{"name":"\xff"}]}', None), "expected JSON in UTF-8, got byte 0xff"),
    (
        (TEXT, _body(_text_input()).replace(b'"a"', b'"\xff"'), None),
        "input 'x': data: expected JSON in UTF-8, got byte 0xff",
    ),
    ((ONE, b"[]", None), "expected `object`, got `array`"),
    ((ONE, b"{}", None), "missing required field `inputs`"),
    ((ONE, b'{"inputs":' + b"[" * 100_000, None), "expected"),
    ((ONE, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None), "nested too deep"),
    (
        (ONE, _body(_input(), id="x" * (256 << 10)).replace(b"[1, 2]}", b"[1, NaN]}"), None),
        "expected finite numbers in JSON, got NaN at byte",
    ),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b'[NaN, "2"]}'), None), "expected `float`, got `str` - at `$[1]`"),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b"[NaN, [2]]}"), None), "input 'x': data: expected"),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b"[NaN, nan]}"), None), "expected JSON, got:"),
    (_wrong(_input(data=[_NAN, "NaN"])), "expected `float`, got `str` - at `$[1]`"),
    (_wrong(_input(data=[_NAN, {"place": 0}])), "expected `float`, got `object`"),
    ((TEXT, _body({**_text_input(), "data": ["NaN", _NAN]}), None), f"input 'x': data: {_ELSEWHERE}"),
    ((TEXT, _body({**_text_input(), "data": ["NaN", _NAN]}, id="NaN"), None), f"input 'x': data: {_ELSEWHERE}"),
    (_wrong(_input(), id=_NAN), "expected `str`, got `object`, or NaN or Infinity bare - at `$.id`"),
    (_wrong(_input(shape=[-math.inf, 2])), "expected `int`, got `object`, or NaN or Infinity bare"),
    (_wrong(_input(data=[_NAN, 1]), parameters=math.inf), f"inference request: {_ELSEWHERE}"),
    (_wrong(_input(), parameters={"unknown": [math.inf]}), f"inference request: {_ELSEWHERE}"),
    (_wrong(_input(parameters={"unknown": _NAN})), f"inference request: {_ELSEWHERE}"),
    (_wrong(_input(), unknown=_NAN), f"inference request: {_ELSEWHERE}"),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b"[1, 2]} NaN"), None), "expected JSON, got:"),
    (
        (FLAG, _body(_input(datatype="BOOL", shape=[1])).replace(b"[1, 2]", b"[NaN]"), None),
        f"input 'x': data: {_ELSEWHERE}",
    ),
    ((ONE, _body(_input()).replace(b"[1, 2]}", b"[1, 1e999]}"), None), "number out of range"),
    (
        (TEXT, _body({**_text_input(), "data": ["\ud800"]}), None),
        r"expected surrogates of text in pairs, got \ud800 alone",
    ),
    (_wrong(_input(), id="a\\\ud9ff\n"), r"pairs, got \ud9ff alone at byte 91"),
    (_wrong(_input(), id="\ude00"), "invalid utf-16 surrogate pair"),
    ((ONE, rb'{"id":"\\ud800', None), "expected JSON, got: input data was truncated"),
    ((ONE, rb'{"id":"\ud83d\ude00', None), "expected JSON, got: input data was truncated"),
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
    (_wrong({"name": "x", "datatype": "FP32", "shape": [1, 2]}), "got none of them"),
    (_wrong(_input(parameters={"binary_data_size": 8})), "expected either data or binary_data_size, got both"),
    (_wrong(_input(parameters=_SHARED)), "expected shared_memory_region without data and binary_data_size"),
    (
        _wrong(_bare(parameters=_SHARED | {"binary_data_size": 8})),
        "expected shared_memory_region without data and binary_data_size",
    ),
    (_wrong(_bare(shape=[-1, 2], parameters=_SHARED)), "input 'x': expected dimensions from 0"),
    (_wrong(_input(), outputs=[{"name": "q"}]), "expected outputs of 'y', 'z', got 'q'"),
    (_wrong(_input(), outputs=[{"name": "y"}, {"name": "y"}]), "expected each output once, got 'y' twice"),
    (_wrong(_input(), outputs=_asking(classification=-1)), "output 'y': expected at least one class, got -1"),
    (
        (TEXT, _body(_text_input(), outputs=_asking(classification=1)), None),
        "expected numbers to classify, got type BYTES",
    ),
    (
        _wrong(_input(), outputs=_asking(classification=1, **_SHARED)),
        "output 'y': expected either shared_memory_region or classification, got both",
    ),
    (
        _wrong(_input(), outputs=_asking(binary_data=True, **_SHARED)),
        "output 'y': expected either shared_memory_region or binary_data, got both",
    ),
    (_wrong(_input(), parameters={"timeout": -1}), "expected `int` >= 0 - at `$.parameters.timeout`"),
    (_wrong(_input(), parameters={"timeout": 1 << 63}), "expected `int` <= 9223372036854775807"),
    (_wrong(_input(), parameters={"timeout": "1"}), "expected `int | null`, got `str`"),
    (_wrong(_input(), parameters={"timeout": 1.5}), "expected `int | null`, got `float`"),
    (_wrong(_input(), parameters={"priority": -1}), "expected `int` >= 0 - at `$.parameters.priority`"),
    (_wrong(_input(), parameters={"priority": 1 << 64}), "expected a priority of at most 18446744073709551615"),
    (_wrong(_input(), parameters={"capture": "sometimes"}), "invalid enum value 'sometimes'"),
    (_wrong(_input(), id=7), "expected `str`, got `int` - at `$.id`"),
    ((ONE, _body(_input()), 10_000), "expected Inference-Header-Content-Length up to the body's"),
    ((ONE, _body(_input()) + b"more", len(_body(_input()))), "expected 0 bytes of binary data for the inputs, got 4"),
    ((ONE, b"\0" * 7, 0), "input 'x': expected 0 bytes"),
    ((TWO, b"\0" * 8, 0), "expected a JSON header for the 2 inputs of the model, got a raw body"),
    ((PAIR, b"abc", 0), "input 'x': expected 2 elements for shape [2], got 1"),
    ((OPEN, b"\0" * 8, 0), "input 'x': expected a JSON header for FP32 [-1, -1], got a raw body"),
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
    assert model_metadata("m", [1, 2], TWO) == {
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


@example(datatype="BYTES", shape=[-1], data=None, size=0, extra=b"")
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
