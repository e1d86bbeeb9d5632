"""Tensors as bytes, JSON values and arrays: what goes in comes out, and what is wrong is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array, TensorError
from edgeward_contract.manifest import Datatype

_NUMERIC = [datatype for datatype in tensors.NUMPY if datatype is not Datatype.BYTES]
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(st.sampled_from(_NUMERIC).flatmap(lambda d: hnp.arrays(tensors.NUMPY[d], _SHAPES)))
def test_bytes_survive_a_round_trip(array: Array) -> None:
    data = bytes(tensors.to_bytes(array))
    again = tensors.from_bytes(tensors.DATATYPE[array.dtype], array.shape, data)
    assert again.tobytes() == array.tobytes()
    assert again.shape == array.shape


@given(st.lists(st.text(), max_size=6))
def test_text_survives_a_round_trip(elements: list[str]) -> None:
    data = tensors.join_bytes(elements)
    again = tensors.from_bytes(Datatype.BYTES, [len(elements)], data)
    assert again.tolist() == elements
    assert tensors.to_bytes(again) == data


@pytest.mark.parametrize("datatype", [d for d in _NUMERIC if d is not Datatype.FP16])
def test_json_values_survive_a_round_trip(datatype: Datatype) -> None:
    values = [True, False] if datatype is Datatype.BOOL else [0, 1]
    array = tensors.from_elements(datatype, [2, 1], values)
    assert array.dtype == tensors.NUMPY[datatype]
    assert tensors.to_elements(array) == values


def test_large_tensors_are_not_copied() -> None:
    array = np.arange(1 << 16, dtype=np.float32)
    data = tensors.to_bytes(array)
    assert isinstance(data, memoryview)
    assert np.shares_memory(np.frombuffer(data, np.float32), array)


def test_data_that_is_not_aligned_is_moved() -> None:
    data = memoryview(b"x" + np.array([1.0, 2.0], np.float32).tobytes())[1:]
    array = tensors.from_bytes(Datatype.FP32, [2], data)
    assert array.flags.aligned
    assert array.tolist() == [1.0, 2.0]


def test_any_byte_but_zero_is_true() -> None:
    array = tensors.from_bytes(Datatype.BOOL, [3], b"\x00\x02\xff")
    assert array.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        (Datatype.FP32, [2], b"\0" * 7, "expected 8 bytes for FP32 [2], got 7"),
        (Datatype.FP32, [-1], b"", "expected dimensions from 0"),
        (Datatype.FP32, [1 << 70], b"", "expected dimensions from 0"),
        (Datatype.FP32, [0, 1 << 62, 1 << 62], b"", "without those of 0, got shape [0,"),
        (Datatype.FP32, [0, 1 << 62], b"", "got shape [0, 4611686018427387904]: too large"),
        (Datatype.BYTES, [0, 1 << 62], b"", "got shape [0, 4611686018427387904]: too large"),
        (Datatype.FP32, [1] * 80, b"\0" * 4, "expected fewer dimensions, got 80"),
        (Datatype.INT64, [1 << 62], b"\0" * 8, "expected 36893488147419103232 bytes"),
        (Datatype.BYTES, [1], b"\x01\0\0", "got a cut one at byte 0"),
        (Datatype.BYTES, [1], b"\x05\0\0\0abc", "got a cut one at byte 0"),
        (Datatype.BYTES, [1], b"\xff\xff\xff\xff", "got a cut one at byte 0"),
        (Datatype.BYTES, [2], b"\x01\0\0\0a", "expected 2 elements for shape [2], got 1"),
        (Datatype.BYTES, [1], b"\x01\0\0\0\xff", "expected BYTES elements in UTF-8, got byte 0xff"),
    ],
)
def test_bytes_that_make_no_tensor_are_refused(datatype: Datatype, shape: list[int], data: bytes, words: str) -> None:
    with pytest.raises(TensorError) as caught:
        tensors.from_bytes(datatype, shape, data)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "values", "words"),
    [
        (Datatype.UINT8, [256], "expected UINT8 from 0 to 255, got 256 to 256"),
        (Datatype.UINT8, [-1], "expected UINT8 from 0 to 255, got -1 to -1"),
        (Datatype.INT64, [1 << 63], "expected INT64"),
        (Datatype.UINT64, [-1], "expected UINT64"),
        (Datatype.INT32, [1 << 200], "expected INT32"),
        (Datatype.FP32, [1e39], "expected numbers within the range of FP32, got a larger one"),
        (Datatype.FP32, [1, 2], "expected 1 elements for shape [1], got 2"),
    ],
)
def test_values_that_do_not_fit_are_refused(datatype: Datatype, values: list[int], words: str) -> None:
    with pytest.raises(TensorError) as caught:
        tensors.from_elements(datatype, [1], values)
    assert words in str(caught.value)


def test_the_ends_of_the_range_fit() -> None:
    assert tensors.from_elements(Datatype.UINT64, [2], [0, (1 << 64) - 1]).tolist() == [0, (1 << 64) - 1]
    assert tensors.from_elements(Datatype.INT8, [2], [-128, 127]).tolist() == [-128, 127]
