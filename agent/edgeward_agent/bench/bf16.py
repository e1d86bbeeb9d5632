"""BF16, which numpy does not have: numbers as their bits, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.wire.tensors import CARRIER, Array
from edgeward_contract.manifest import Datatype, TensorSpec

BITS: Final = CARRIER[Datatype.BF16]


def names(specs: Iterable[TensorSpec]) -> frozenset[str]:
    """Tensors that travel as bits."""
    return frozenset(spec.name for spec in specs if spec.datatype is Datatype.BF16)


def from_floats(values: Array | Floats) -> Array:
    """The upper half of each FP32: at most one part in 128 nearer to zero. NaN stays NaN."""
    single = np.asarray(values, dtype="<f4")
    bits = (np.ascontiguousarray(single).view("<u4") >> 16).astype(BITS).reshape(single.shape)
    return np.where(np.isnan(single), np.uint16(0x7FC0), bits).astype(BITS)


def from_array(array: Array) -> Array | None:
    """What a person may have saved: bits, floats, or the type of ml_dtypes, which numpy writes as two bytes without a
    name. None for anything else.
    """
    if array.dtype == BITS:
        return array
    if array.dtype.kind == "V" and array.dtype.itemsize == BITS.itemsize and array.dtype.names is None:
        return np.ascontiguousarray(array).view(BITS).reshape(array.shape)
    return from_floats(array) if array.dtype.kind == "f" else None
