"""Tensors as numpy arrays, as JSON and as bytes. Pure; shared by the server and the bedside client.

Source: Open Inference Protocol v2, "Tensor Data", and its binary tensor data extension: little-endian, row-major,
no padding; BOOL is one byte; a BYTES element is a 4-byte length and the bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from edgeward_contract.manifest import Datatype

Array = npt.NDArray[np.generic]
Scalar = bool | int | float | str | None
Buffer = bytes | bytearray | memoryview

NUMPY: Final[dict[Datatype, np.dtype[np.generic]]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype("<u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("<i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype(object),
}
"""BF16 is missing: numpy has no such type."""

CARRIER: Final[dict[Datatype, np.dtype[np.generic]]] = {**NUMPY, Datatype.BF16: np.dtype("<u2")}
"""What a tensor is while it travels through here: BF16 as its bits."""

DATATYPE: Final[dict[np.dtype[np.generic], Datatype]] = {dtype: name for name, dtype in NUMPY.items()}

# On Python 3.11 a member of an enum costs a call to look up; these are looked up for every tensor.
_BYTES: Final = Datatype.BYTES
_BOOL: Final = Datatype.BOOL
COPIED_BELOW_BYTES: Final = 1 << 16
"""A copy of less is cheaper than the bookkeeping that avoids it. One number for all: what lies in memory that is used
again is safe because everything smaller is copied, on every way out.
"""
_MAX_DIGITS: Final = 24
_LENGTH: Final = struct.Struct("<I")
_MAX_DIM: Final = (1 << 63) - 1


class TensorError(ValueError):
    """The data does not make the tensor that it was said to be."""

    hint = "Compare datatype, shape and data with the model's metadata: GET /v2/models/NAME."


def element_count(shape: Sequence[int]) -> int:
    """Raises TensorError for a negative dimension or one beyond int64."""
    for dim in shape:
        if not 0 <= dim <= _MAX_DIM:
            raise TensorError(f"expected dimensions from 0 to {_MAX_DIM}, got shape {list(shape)}")
    return math.prod(shape)


def from_bytes(datatype: Datatype, shape: Sequence[int], data: Buffer) -> Array:
    """Read a tensor in the binary form; without a copy where alignment allows.

    Raises:
        TensorError: a wrong number of bytes, an impossible shape, BYTES that are not UTF-8.
    """
    if datatype is _BYTES:
        element_count(shape)  # numpy would take -1 for whatever fits
        return _shaped(_object_array(split_bytes(data)), shape)
    dtype = CARRIER[datatype]
    expected = element_count(shape) * dtype.itemsize
    if len(data) != expected:
        raise TensorError(f"expected {expected} bytes for {datatype} {list(shape)}, got {len(data)}")
    if datatype is _BOOL:
        # Any byte but 0 and 1 in a C++ bool is undefined behaviour inside the runtime.
        return _shaped(np.frombuffer(data, np.uint8) != 0, shape)
    array = np.frombuffer(data, dtype)
    return _shaped(array if array.flags.aligned else array.copy(), shape)


def to_bytes(array: Array) -> Buffer:
    """The binary form of `array`."""
    if array.dtype.hasobject:
        return join_bytes(array.ravel().tolist())
    if array.nbytes < COPIED_BELOW_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def floats_of_bf16(bits: Array) -> npt.NDArray[np.float32]:
    """BF16 that came as its bits, as FP32 of the same values: it is the upper half of that."""
    wide = np.asarray(bits).astype("<u4") << np.uint32(16)
    return np.asarray(wide.view("<f4").reshape(bits.shape), dtype=np.float32)


def split_bytes(data: Buffer) -> list[str]:
    """Elements of a BYTES tensor; as text, because ONNX strings are UTF-8.

    Raises:
        TensorError: a length that leads beyond the data, or text that is not UTF-8.
    """
    view, elements, at = memoryview(data), [], 0
    while at < len(view):
        begin = at + _LENGTH.size
        if begin > len(view) or (end := begin + _LENGTH.unpack_from(view, at)[0]) > len(view):
            raise TensorError(f"expected BYTES elements of 4-byte length and data, got a cut one at byte {at}")
        elements.append(_text(bytes(view[begin:end])))
        at = end
    return elements


def texts(elements: Iterable[bytes]) -> list[str]:
    """Elements of a BYTES tensor as text. Raises TensorError for one that is not UTF-8."""
    return [_text(each) for each in elements]


def join_bytes(elements: Sequence[str | bytes]) -> bytes:
    """Elements as the binary form of a BYTES tensor."""
    encoded = [each.encode() if isinstance(each, str) else each for each in elements]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(each)), each) for each in encoded))


def from_elements(datatype: Datatype, shape: Sequence[int], elements: Sequence[Scalar]) -> Array:
    """An array of values that JSON carried, flat and in row-major order.

    Raises:
        KeyError: BF16, which JSON cannot carry.
        TensorError: a wrong number of elements, a value outside the range of the datatype, an impossible shape.
    """
    if len(elements) != element_count(shape):
        raise TensorError(f"expected {element_count(shape)} elements for shape {list(shape)}, got {len(elements)}")
    if datatype is Datatype.BYTES:
        return _shaped(_object_array(elements), shape)
    dtype = NUMPY[datatype]
    if dtype.kind in "iu":
        return _shaped(_integers(dtype, elements), shape)
    with np.errstate(over="ignore"):
        array: Array = np.array(elements, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        _check_range(datatype, array, elements)
    return _shaped(array, shape)


def to_elements(array: Array) -> list[Scalar]:
    """The values of `array`, flat and in row-major order, as JSON can carry them."""
    elements: list[Scalar] = array.ravel().tolist()
    return elements


def _check_range(datatype: Datatype, array: Array, elements: Sequence[Scalar]) -> None:
    """An infinity that was sent stays one; a number that becomes one was too large."""
    if (np.isfinite(np.array(elements, np.float64)) & ~np.isfinite(array)).any():
        raise TensorError(f"expected numbers within the range of {datatype}, got a larger one")


def _integers(dtype: np.dtype[np.generic], elements: Sequence[Scalar]) -> Array:
    wide = np.uint64 if dtype.kind == "u" else np.int64
    limits = np.iinfo(dtype.name)
    try:
        array: Array = np.array(elements, wide)
    except OverflowError:
        array = np.array(elements, object)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        found = f"{_brief(array.min())} to {_brief(array.max())}"
        raise TensorError(f"expected {DATATYPE[dtype]} from {limits.min} to {limits.max}, got {found}")
    return array.astype(dtype, copy=False)


def _brief(number: object) -> str:
    """A caller may have written thousands of digits."""
    text = str(number)
    return text if len(text) <= _MAX_DIGITS else f"{text[:_MAX_DIGITS]}…"


def _object_array(elements: Sequence[Scalar]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _shaped(array: Array, shape: Sequence[int]) -> Array:
    try:
        return array.reshape(shape)
    except ValueError:
        raise TensorError(_shape_problem(array, shape)) from None


def _shape_problem(array: Array, shape: Sequence[int]) -> str:
    """Why numpy does not take it. A dimension of 0 makes no room for others that are too large."""
    expected = element_count(shape)
    if expected != array.size:
        return f"expected {expected} elements for shape {list(shape)}, got {array.size}"
    if math.prod(dim for dim in shape if dim) * array.itemsize > _MAX_DIM:
        return f"expected dimensions of less than 2^63 bytes, without those of 0, got shape {list(shape)}: too large"
    return f"expected fewer dimensions, got {len(shape)}"


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise TensorError(f"expected BYTES elements in UTF-8, got byte {data[error.start]:#04x}") from None
