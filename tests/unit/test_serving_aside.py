"""What requests ask beyond tensors in their bodies: inputs and outputs in shared memory, classes instead of scores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeward_agent.serving.answer import build_infer
from edgeward_agent.serving.asked import InferRequest, Terms
from edgeward_agent.serving.classification import best_classes
from edgeward_agent.serving.interface import Interface, response_head
from edgeward_agent.serving.protocol import parse_infer
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.shared_memory import Regions
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import Datatype, TensorSpec

_IN = TensorSpec(name="in", datatype=Datatype.FP32, shape=(-1, 2))
_OUT = TensorSpec(name="out", datatype=Datatype.FP32, shape=(-1, 3), labels=("benign", "malignant", "unclear"))
MODEL = Interface.of([_IN], [_OUT])
_INPUT = {"name": "in", "datatype": "FP32", "shape": [1, 2]}
_SCORES = np.array([[0.25, 0.5, 0.125], [0.5, 0.0, 0.5]], np.float32)


@pytest.fixture
def regions(tmp_path: Path) -> Regions:
    (tmp_path / "file").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    made = Regions(folder=tmp_path)
    made.register("r", key="file", offset=0, size_bytes=32)
    return made


def _shared(size: int, offset: int = 0, region: str = "r") -> dict[str, object]:
    return {
        "shared_memory_region": region,
        "shared_memory_byte_size": size,
        "shared_memory_offset": offset,
    }


def _ask(terms: Terms, given: dict[str, object], wanted: dict[str, object] | None = None) -> InferRequest:
    document: dict[str, object] = {"inputs": [_INPUT | given]}
    if wanted is not None:
        document["outputs"] = [{"name": "out", "parameters": wanted}]
    return parse_infer(MODEL, json.dumps(document).encode(), None, terms)


def _answer(request: InferRequest, results: list[Array]) -> tuple[dict[str, object], bytes]:
    """The one output of an answer, and the bytes behind the JSON."""
    assert request.aside is not None
    request.aside.settle(MODEL, request.outputs, results)
    length, parts = build_infer(MODEL, response_head("m", 1), request, results)
    body = b"".join(parts)
    (output,) = json.loads(body[:length])["outputs"]
    return output, body[length:] if length is not None else b""


# -- shared memory


def test_an_input_is_read_from_shared_memory_when_its_turn_comes(regions: Regions) -> None:
    request = _ask(Terms(find_region=regions.find), {"parameters": _shared(8, 16)})
    assert request.aside is not None
    assert request.aside.size_bytes == 8
    regions.unregister("r")
    request.aside.fetch(request.feeds)
    assert request.feeds["in"].tolist() == [[4.0, 5.0]]


def test_an_output_in_shared_memory_leaves_neither_data_nor_parameters(regions: Regions, tmp_path: Path) -> None:
    request = _ask(Terms(find_region=regions.find), {"data": [1, 2]}, _shared(24, 4))
    output, binary = _answer(request, [_SCORES])
    assert output == {"name": "out", "datatype": "FP32", "shape": [2, 3]}
    assert binary == b""
    assert np.frombuffer((tmp_path / "file").read_bytes(), np.float32).tolist() == [0, *_SCORES.ravel().tolist(), 7]


def test_an_output_needs_room(regions: Regions, tmp_path: Path) -> None:
    before = (tmp_path / "file").read_bytes()
    request = _ask(Terms(find_region=regions.find), {"data": [1, 2]}, _shared(23))
    with pytest.raises(Refusal, match=r"output 'out' \(23 bytes\) should be at least 24 bytes to hold the results"):
        _answer(request, [_SCORES])
    assert (tmp_path / "file").read_bytes() == before


@pytest.mark.parametrize("size", [4, 12])
def test_an_input_must_be_as_large_as_its_tensor(regions: Regions, size: int) -> None:
    request = _ask(Terms(find_region=regions.find), {"parameters": _shared(size)})
    assert request.aside is not None
    with pytest.raises(Refusal, match=rf"input 'in': expected 8 bytes for FP32 \[1, 2\], got {size}"):
        request.aside.fetch(request.feeds)


@pytest.mark.parametrize(
    ("size", "offset"), [(33, 0), (8, 25), (-1, 0), (8, -8), (1 << 63, 1 << 63), ((1 << 64) - 8, 16)]
)
def test_a_span_lies_within_its_region(regions: Regions, size: int, offset: int) -> None:
    terms = Terms(find_region=regions.find)
    words = "within the shared memory region's 32 bytes"
    with pytest.raises(Refusal, match=words):
        _ask(terms, {"parameters": _shared(size, offset)})
    with pytest.raises(Refusal, match=words):
        _ask(terms, {"data": [1, 2]}, _shared(size, offset))


def test_regions_must_be_known_and_inputs_not_too_large(regions: Regions) -> None:
    with pytest.raises(Refusal, match="Unable to find shared memory region: 'q'") as caught:
        _ask(Terms(find_region=regions.find), {"parameters": _shared(8, 0, "q")})
    assert caught.value.status == 404
    with pytest.raises(Refusal, match="expected at most 7 bytes in shared memory, got 8") as caught:
        _ask(Terms(find_region=regions.find, shared_bytes=7), {"parameters": _shared(8)})
    assert caught.value.status == 413
    with pytest.raises(Refusal, match="shared memory is switched off here") as caught:
        _ask(Terms(), {"parameters": _shared(8)})
    assert caught.value.status == 501


def test_a_file_that_was_cut_short_costs_one_answer(regions: Regions, tmp_path: Path) -> None:
    terms = Terms(find_region=regions.find)
    loading, storing = _ask(terms, {"parameters": _shared(8)}), _ask(terms, {"data": [1, 2]}, _shared(24))
    os.truncate(tmp_path / "file", 0)
    assert loading.aside is not None
    with pytest.raises(Refusal, match="it has been cut short"):
        loading.aside.fetch(loading.feeds)
    with pytest.raises(Refusal, match="it has been cut short"):
        _answer(storing, [_SCORES])


# -- classes


def test_classes_are_texts_of_score_index_and_label() -> None:
    output, _ = _answer(_ask(Terms(), {"data": [1, 2]}, {"classification": 2}), [_SCORES])
    assert output == {
        "name": "out",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["0.500000:1:malignant", "0.250000:0:benign", "0.500000:0:benign", "0.500000:2:unclear"],
    }


def test_classes_may_go_as_bytes() -> None:
    output, binary = _answer(_ask(Terms(), {"data": [1, 2]}, {"classification": 1, "binary_data": True}), [_SCORES])
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 1])
    assert binary == b"\x14\0\0\x000.500000:1:malignant\x11\0\0\x000.500000:0:benign"
    assert output["parameters"] == {"binary_data_size": len(binary)}


def test_no_class_asked_for_is_scores_as_ever() -> None:
    assert _ask(Terms(), {"data": [1, 2]}, {"classification": 0}).aside is None


def _best(scores: npt.NDArray[np.generic], count: int, labels: tuple[str, ...] = (), *, batched: bool = True) -> object:
    return best_classes(scores, labels, count, batched=batched).tolist()


def test_how_classes_are_ranked() -> None:
    assert _best(np.array([[1, 255, 2]], np.uint8), 9) == [["255:1", "2:2", "1:0"]]
    assert _best(np.array([[-(1 << 63), (1 << 63) - 1]], np.int64), 1) == [["9223372036854775807:1"]]
    for kind in (np.float16, np.float32, np.float64):
        assert _best(np.array([[np.nan, -np.inf, np.inf, 1], [3, 4, 3, 4]], kind), 4) == [
            ["inf:2", "1.000000:3", "-inf:1", "nan:0"],
            ["4.000000:1", "4.000000:3", "3.000000:0", "3.000000:2"],
        ]
    assert _best(np.array([[np.nan, -np.inf, 1, np.nan, -np.inf]], np.float32), 5) == [
        ["1.000000:2", "-inf:1", "-inf:4", "nan:0", "nan:3"]
    ]
    assert _best(np.array([[1.5]], np.float16), 1, ("a",)) == [["1.500000:0:a"]]
    assert _best(np.array([0.5, 0.25], np.float32), 1, ("a",), batched=False) == ["0.500000:0:a"]
    assert _best(np.array([[0.5, 0.75]], np.float32), 2, ("a",)) == [["0.750000:1", "0.500000:0:a"]]
    assert _best(np.array(0.5, np.float32), 3, batched=False) == ["0.500000:0"]
    assert _best(np.zeros((2, 2, 2), np.float32), 1) == [["0.000000:0"], ["0.000000:0"]]
    assert best_classes(np.zeros((0, 3), np.float32), (), 2, batched=True).shape == (0, 0)
    assert best_classes(np.zeros((2, 0), np.float32), (), 2, batched=True).shape == (2, 0)


@given(scores=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6)), count=st.integers(1, 40))
def test_the_best_are_the_best(scores: npt.NDArray[np.float32], count: int) -> None:
    texts = best_classes(scores, (), count, batched=True)
    for row, said in zip(scores.reshape(len(scores), -1), texts, strict=True):
        ranked = sorted(range(row.size), key=lambda index: (np.isnan(row[index]), -row[index]))
        assert [int(text.split(":")[1]) for text in said] == ranked[:count]


def test_classes_have_limits() -> None:
    with pytest.raises(Refusal, match="at most 1000000 scores into 10000 classes, got 1000001 and 1"):
        _best(np.zeros(1_000_001, np.uint8), 1, batched=False)
    with pytest.raises(Refusal, match="got 20000 and 10001"):
        _best(np.zeros(20_000, np.uint8), 10_001, batched=False)
