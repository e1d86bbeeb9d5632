"""One suite for every way to ask a model: over TCP, a unix socket or shared memory, waiting or not, or in-process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgeward_agent.client import ClientError, InvalidRequest, ModelNotFound, ServerFailed
from edgeward_agent.engine import Engine
from edgeward_agent.wire.tensors import Array
from support.clients import WAYS, Asks, opened
from support.serving import (
    FEATURES,
    Release,
    ask,
    cast_model,
    constant_release,
    device,
    failing_model,
    identity_model,
    manifest_for,
    negation_model,
    sum_model,
    wait_until,
    write_release,
)

_KINDS: dict[str, tuple[int, list[int | str]]] = {
    "flags": (TensorProto.BOOL, ["n"]),
    "words": (TensorProto.STRING, ["n"]),
    "halves": (TensorProto.FLOAT16, ["n", 2]),
    "image": (TensorProto.FLOAT, [1, 3, 64, "w"]),
    "number": (TensorProto.DOUBLE, []),
    "bytes": (TensorProto.UINT8, ["n"]),
}


def _releases(folder: Path) -> list[Release]:
    made = [constant_release(folder, 3.0, version=4)]
    models = {name: identity_model(folder / name / "model.onnx", *kind) for name, kind in _KINDS.items()}
    models["sum"] = sum_model(folder / "sum" / "model.onnx")
    models["not"] = negation_model(folder / "not" / "model.onnx")
    models["brief"] = cast_model(folder / "brief" / "model.onnx", TensorProto.BFLOAT16)
    models["table"] = failing_model(folder / "table" / "model.onnx")
    made.append(_labelled(folder / "labelled" / "model.onnx"))
    return made + [write_release(path.parent, manifest_for(path, name)) for name, path in models.items()]


def _labelled(path: Path) -> Release:
    manifest = manifest_for(identity_model(path, TensorProto.FLOAT, ["n", 2]), "labelled")
    (given,), (back,) = manifest.inputs, manifest.outputs
    given = replace(manifest.inputs[0], labels=("systolic", "diastolic"), units=("mmHg", "mmHg"))
    back = replace(manifest.outputs[0], labels=("a", "b"))
    return write_release(path.parent, replace(manifest, inputs=(given,), outputs=(back,)))


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Asks]]:
    folder = tmp_path_factory.mktemp("clients")
    releases = _releases(folder)
    with device(folder / "d", with_frames=True) as made, ExitStack() as stack:
        made.commit(*releases)
        made.start()
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        yield opened(stack, made, releases)


@pytest.fixture(params=WAYS)
def client(ways: dict[str, Asks], request: pytest.FixtureRequest) -> Asks:
    return ways[request.param]


def test_an_answer_says_who_gave_it(client: Asks) -> None:
    answer = client.infer("toy", {"features": np.zeros((2, FEATURES), np.float32)}, request_id="bed 7 é")
    assert (answer.model, answer.version, answer.request_id) == ("toy", "4", "bed 7 é")
    assert answer["score"].dtype == np.float32
    assert answer["score"].tolist() == [[3.0], [3.0]]


@pytest.mark.parametrize(
    ("model", "array"),
    [
        ("flags", np.array([True, False, True])),
        ("words", np.array(["Blutdruck", "", "ü" * 300])),
        ("halves", np.array([[1.5, np.inf], [np.nan, -0.0]], np.float16)),
        ("image", np.linspace(0, 1, 3 * 64 * 400, dtype=np.float32).reshape(1, 3, 64, 400)),  # beyond one read
        ("image", np.zeros((1, 3, 64, 0), np.float32)),
        ("number", np.array(2.25)),
        ("bytes", np.arange(200, dtype=np.uint8)[::-2]),  # not contiguous
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}",
)
def test_arrays_come_back_as_they_went(client: Asks, model: str, array: Array) -> None:
    back = client.infer(model, {"in": array})["out"]
    assert back.shape == array.shape
    assert back.tolist() == array.tolist() or np.array_equal(back, array, equal_nan=True)


def test_any_byte_but_0_is_true(client: Asks) -> None:
    given = np.array([2, 0, 1, 255], np.uint8).view(np.bool_)
    assert client.infer("not", {"in": given})["out"].tolist() == [False, True, False, False]
    assert client.infer("not", {"in": given[::-2]})["out"].tolist() == [False, True]


def test_bf16_comes_as_floats_of_the_same_values(client: Asks) -> None:
    """More than once: what is known of an answer, or has a plan, is read in another way."""
    for first in (1.5, -2.0, 3.0e38, np.nan):
        answer = client.infer("brief", {"in": np.array([first, 0.15625], np.float32)})["out"]
        assert answer.dtype == np.float32
        assert np.allclose(answer, [first, 0.15625], rtol=1 / 128, equal_nan=True)
        assert not (answer.view(np.uint32) & 0xFFFF).any()


def test_the_same_question_with_other_numbers(client: Asks) -> None:
    for value in range(3):
        a = np.full((value + 1, 4), value, np.int32)
        answer = client.infer("sum", {"a": a, "b": a})
        assert answer["sum"].tolist() == (2 * a).tolist()
        assert client.infer("sum", {"b": a, "a": a}, outputs=["difference"]).outputs.keys() == {"difference"}


def test_an_answer_is_the_callers_own(client: Asks) -> None:
    a = np.ones((1, 4), np.int32)
    for _ in range(3):  # through whatever the client has learnt by then
        answer = client.infer("sum", {"a": a, "b": a})
        answer["sum"][...] = 7
        assert answer["difference"].tolist() == [[0] * 4]


def test_the_last_byte_may_come_first(client: Asks) -> None:
    given = np.arange(8, dtype=">i4").reshape(2, 4)
    assert client.infer("sum", {"a": given, "b": given})["sum"].tolist() == (2 * given).tolist()


def test_what_no_server_could_understand_is_said_before_it_is_asked(client: Asks) -> None:
    with pytest.raises(InvalidRequest, match="expected text alone in an array of objects"):
        client.infer("words", {"in": np.array(["a", None], object)})
    with pytest.raises(InvalidRequest, match="expected names of outputs, each once, got"):
        client.infer("toy", {"features": np.zeros((1, FEATURES), np.float32)}, outputs=["score", "score"])
    with pytest.raises(InvalidRequest, match="expected an array of a type that the protocol has, got complex"):
        client.infer("number", {"in": np.array(1j)})
    with pytest.raises(InvalidRequest, match="expected version as a whole number, got"):
        client.infer("number", {"in": np.array(1.0)}, version=1.5)  # type: ignore[arg-type]


class _Refusing:
    def __array__(self, *_: object, **__: object) -> Array:
        raise RuntimeError("a tensor that wants a gradient")


@pytest.mark.parametrize(("given", "words"), [([[1.0], [1.0, 2.0]], "inhomogeneous"), (_Refusing(), "gradient")])
def test_what_is_no_array_is_an_invalid_request(client: Asks, given: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"input 'in': expected an array, got: .*{words}"):
        client.infer("number", {"in": given})


def test_what_is_masked_is_not_sent_as_if_it_were_measured(client: Asks) -> None:
    given = np.ma.masked_array(np.array([[1.0, -999.0]], np.float16), [[False, True]])
    with pytest.raises(InvalidRequest, match="input 'in': expected an array without a mask, got .* 1 masked") as caught:
        client.infer("halves", {"in": given})
    assert "filled(VALUE)" in caught.value.hint
    for whole in (given.filled(0), np.ma.masked_array(given.data)):
        assert client.infer("halves", {"in": whole})["out"].tolist() == whole.tolist()


def test_text_may_come_as_numpys_own_strings(client: Asks) -> None:
    words = ["a", "", "ü" * 30]
    given: Any = np.array(words, np.dtypes.StringDType())
    assert client.infer("words", {"in": given})["out"].tolist() == words


def test_an_id_may_be_long(client: Asks) -> None:
    assert client.infer("number", {"in": np.array(1.0)}, request_id="é" * 5000).request_id == "é" * 5000


@pytest.mark.parametrize("version", ["1", "1/infer HTTP/1.0", 1.0])
def test_a_version_is_a_whole_number(client: Asks, version: Any) -> None:
    for ask_it in (client.model, lambda model, version: client.infer(model, {"in": np.array(1.0)}, version=version)):
        with pytest.raises(InvalidRequest, match="expected version as a whole number, got"):
            ask_it("number", version=version)
    assert client.model("number", version=np.int64(1)) == client.model("number", version=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "most"), [("deadline_us", (1 << 63) - 1), ("priority", (1 << 64) - 1)])
def test_numbers_are_taken_as_far_as_the_server_takes_them(client: Asks, name: str, most: int) -> None:
    def answer(number: int) -> Array:
        asked: dict[str, Any] = {name: number}
        return client.infer("number", {"in": np.array(2.5)}, **asked)["out"]

    assert answer(most) == 2.5
    for wrong in (-1, most + 1):
        with pytest.raises(InvalidRequest, match=f"expected a .* from 0 to {most}.*, got {wrong}"):
            answer(wrong)


def test_text_may_come_as_bytes(client: Asks) -> None:
    for given in (np.array([b"a", "é".encode()], object), np.array([b"a", "é".encode()])):
        assert client.infer("words", {"in": given})["out"].tolist() == ["a", "é"]
    for wrong in (b"\xff", "\ud800"):
        with pytest.raises(InvalidRequest, match="input 'in': expected text that UTF-8 has"):
            client.infer("words", {"in": np.array([wrong], object)})


def test_an_answer_tells_what_it_has(client: Asks) -> None:
    answer = client.infer("toy", {"features": np.zeros((1, FEATURES), np.float32)})
    assert "score" in answer and "risk" not in answer and list(answer) == ["score"]
    with pytest.raises(KeyError, match="expected one of the outputs score, got 'risk'"):
        answer["risk"]


def test_a_model_says_what_it_takes(client: Asks) -> None:
    found = client.model("toy", version=4)
    assert (found.name, found.versions) == ("toy", ("4",))
    assert [(each.name, each.datatype, each.shape) for each in found.inputs] == [("features", "FP32", (-1, FEATURES))]
    assert client.ready()


def test_a_model_says_what_its_columns_are(client: Asks) -> None:
    found = client.model("labelled")
    assert [(each.labels, each.units) for each in (*found.inputs, *found.outputs)] == [
        (("systolic", "diastolic"), ("mmHg", "mmHg")),
        (("a", "b"), ()),
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"model": "\ud800"}, {"inputs": {b"in": np.zeros(1)}}, {"outputs": [5]}, {"request_id": "\ud800"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_names_and_ids_are_text(client: Asks, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="expected names and ids as str that UTF-8 has, got"):
        client.infer(**{"model": "number", "inputs": {"in": np.array(1.0)}} | wrong)
    with pytest.raises(InvalidRequest, match="expected names and ids as str that UTF-8 has, got 5"):
        client.model(5)  # type: ignore[arg-type]


def test_what_cannot_be_answered_is_told_apart(client: Asks) -> None:
    good = np.zeros((1, FEATURES), np.float32)
    with pytest.raises(ModelNotFound, match="unknown model: 'nope'"):
        client.infer("nope", {"features": good})
    with pytest.raises(ModelNotFound, match="unknown model: 'toy' version 5 is not found"):
        client.model("toy", version=5)
    with pytest.raises(InvalidRequest, match=r"expected shape \[-1, 30\], got \[1, 29\]"):
        client.infer("toy", {"features": good[:, :29]})
    with pytest.raises(InvalidRequest, match="expected datatype FP32, got FP64"):
        client.infer("toy", {"features": good.astype(float)})
    with pytest.raises(InvalidRequest, match="expected inputs"):
        client.infer("toy", {"feature": good})
    with pytest.raises(InvalidRequest, match="expected inputs"):
        client.infer("sum", {"a": np.zeros((1, 4), np.int32)})
    with pytest.raises(InvalidRequest, match="expected one size of 'n', got 2 in 'a' and 3 in 'b'"):
        client.infer("sum", {"a": np.zeros((2, 4), np.int32), "b": np.zeros((3, 4), np.int32)})
    with pytest.raises(InvalidRequest, match="expected outputs of"):
        client.infer("toy", {"features": good}, outputs=["risk"])
    with pytest.raises(ServerFailed, match="the model failed"):
        client.infer("table", {"index": np.array([9])})
    assert client.infer("toy", {"features": good})["score"][0, 0] == 3


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        ("nope", {}, "that it was made with"),
        ("table", {"index": np.array([9])}, "the runtime's own"),
        ("table", {"at": np.array([9])}, "`engine.model(NAME)`"),
    ],
)
def test_what_the_engine_hints_at_is_no_server(
    ways: dict[str, Asks], model: str, inputs: dict[str, Array], words: str
) -> None:
    engine = ways["engine"]
    assert isinstance(engine, Engine)
    with pytest.raises(ClientError) as caught:
        engine.infer(model, inputs)
    assert words in caught.value.hint
    with pytest.raises(ModelNotFound) as not_found:
        engine.model("nope")
    for hint in (caught.value.hint, not_found.value.hint):
        assert not {"server", "GET", "client", "log"} & set(hint.replace(".", " ").split())
