"""BF16 for a runtime whose Python side has no such type: the bits go in and out as uint16, through its own values.

Slower than the usual way by some 40 µs, so only models that have BF16 at their borders go it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edgeward_agent.ort import onnxruntime as ort
from edgeward_agent.serving.interface import Interface
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import Datatype

_ONNX_BFLOAT16: Final = 16  # TensorProto.DataType
_BITS: Final = np.dtype("<u2")

Run = Callable[[Sequence[str], dict[str, Array], ort.RunOptions], list[Array]]


def takes_bits(interface: Interface) -> bool:
    """Whether a model has BF16 at its borders."""
    return any(each.datatype is Datatype.BF16 for each in (*interface.inputs.values(), *interface.outputs.values()))


def bits_run(session: ort.InferenceSession, interface: Interface) -> Run:
    """A `run` that takes and gives BF16 as its bits."""
    given = {name for name, spec in interface.inputs.items() if spec.datatype is Datatype.BF16}
    wanted = {name for name, spec in interface.outputs.items() if spec.datatype is Datatype.BF16}

    def run(outputs: Sequence[str], feeds: dict[str, Array], options: ort.RunOptions) -> list[Array]:
        values = {name: _value(array, bits=name in given) for name, array in feeds.items()}
        results = session.run_with_ort_values(list(outputs), values, options)
        return [_array(value, bits=name in wanted) for name, value in zip(outputs, results, strict=True)]

    return run


def _value(array: Array, *, bits: bool) -> ort.OrtValue:
    if bits:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.require(array, requirements="C"), _ONNX_BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _array(value: ort.OrtValue, *, bits: bool) -> Array:
    if not bits:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    size_bytes = int(np.prod(shape)) * _BITS.itemsize
    data = ctypes.string_at(value.data_ptr(), size_bytes) if size_bytes else b""
    return np.frombuffer(data, _BITS).reshape(shape)
