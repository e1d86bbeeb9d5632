"""What a model takes and gives, and how the protocol tells it to clients. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from edgeward_contract.manifest import Datatype, TensorSpec

NO_JSON: Final = frozenset({Datatype.FP16, Datatype.BF16})
"""JSON has no agreed form for these: they travel as bytes."""


class Interface(msgspec.Struct, frozen=True):
    """What a model takes and gives, in its own order.

    `outputs_json` holds the constant head of each output; `batched` is set when the first dimension of every tensor
    counts the rows of a batch.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    outputs_json: Mapping[str, bytes]
    all_in_json: bool
    batched: bool

    @classmethod
    def of(cls, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Interface:
        named = {each.name: each for each in outputs}
        heads = {name: output_head(name, each.datatype) for name, each in named.items()}
        all_in_json = not any(each.datatype in NO_JSON for each in named.values())
        given = {each.name: each for each in inputs}
        batched = bool(given) and all(each.shape[:1] == (-1,) for each in (*given.values(), *named.values()))
        return cls(given, named, heads, all_in_json, batched)

    def rows(self, feeds: Mapping[str, npt.NDArray[np.generic]]) -> int:
        """How many inferences these inputs are, by name: the rows of a batch, or one."""
        return int(next(iter(feeds.values())).shape[0]) if self.batched else 1


def response_head(model: str, version: int) -> bytes:
    """The constant beginning of every answer of one version."""
    names = {"model_name": model, "model_version": str(version)}
    return msgspec.json.encode(names)[:-1] + b","


def fits(expected: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether `expected` allows `shape`; -1 is a free dimension.

    An empty one allows all: the runtime does not tell a scalar from a shape that the model leaves open, and checks
    for itself.
    """
    if not expected:
        return True
    if len(expected) != len(shape):
        return False
    return all(want in (-1, got) for want, got in zip(expected, shape, strict=True))


def output_head(name: str, datatype: Datatype) -> bytes:
    """An output of an answer, up to its shape."""
    return msgspec.json.encode({"name": name, "datatype": datatype.value})[:-1] + b',"shape":'
