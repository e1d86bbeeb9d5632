"""What a request asks beyond tensors in its own body: shared memory, and classes instead of scores.

Few ask for any of it, so it stands aside: a request that does not carries None and pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from edgeward_agent.serving.classification import RANKED, best_classes
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.refusal import invalid
from edgeward_agent.serving.shared_memory import Region, check_span
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array, TensorError
from edgeward_contract.manifest import TensorSpec

PENDING: Final[Array] = np.empty(0)
"""Stands in `feeds` for an input that is still in shared memory."""


class Span(msgspec.Struct, frozen=True):
    """A place in a region of shared memory.

    Raises (on construction): Refusal 400 when it does not lie within the region.
    """

    region: Region
    offset: int
    size_bytes: int

    def __post_init__(self) -> None:
        check_span(self.region, self.offset, self.size_bytes)


class Load(msgspec.Struct, frozen=True):
    """An input that lies in shared memory."""

    spec: TensorSpec
    shape: Sequence[int]
    span: Span

    def read(self) -> Array:
        """Raises Refusal 400: the bytes are not there any more, or do not make the tensor."""
        span = self.span
        try:
            return tensors.from_bytes(self.spec.datatype, self.shape, span.region.read(span.offset, span.size_bytes))
        except TensorError as error:
            raise invalid(f"input '{self.spec.name}': {error}") from None


class Aside(msgspec.Struct, kw_only=True):
    """`fetch` before the model runs, `settle` after it, on the same thread: large regions must not hold up the loop.

    `classes` and `stores` are by the name of an output; `literals` is set when the caller wrote NaN or Infinity into
    its JSON, which is no JSON, and so can read them there. `shown` is what `settle` leaves for the answer.
    """

    loads: Sequence[Load] = ()
    stores: dict[str, Span] = msgspec.field(default_factory=dict)
    classes: dict[str, int] = msgspec.field(default_factory=dict)
    literals: bool = False
    shown: list[Array] = msgspec.field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What comes in beside the body."""
        return sum(load.span.size_bytes for load in self.loads)

    def fetch(self, feeds: dict[str, Array]) -> None:
        """Raises Refusal, see `Load.read`."""
        for load in self.loads:
            feeds[load.spec.name] = load.read()

    def settle(self, interface: Interface, outputs: Iterable[str], results: Sequence[Array]) -> None:
        """Put results where they were asked for.

        Raises:
            Refusal: 400, there is not enough room in shared memory, or there are too many classes.
        """
        for name, array in zip(outputs, results, strict=True):
            if name in self.stores:
                _store(name, self.stores[name], array)
            if name in self.classes:
                labels = interface.outputs[name].labels
                array = best_classes(array, labels, self.classes[name], batched=interface.batched)
            self.shown.append(array)


def check_classes(spec: TensorSpec, count: int) -> None:
    """Raises Refusal 400: an output without an order, or less than one class."""
    if spec.datatype not in RANKED:
        raise invalid(f"output '{spec.name}': expected numbers to classify, got type {spec.datatype}")
    if count < 1:
        raise invalid(f"output '{spec.name}': expected at least one class, got {count}")


def _store(name: str, span: Span, array: Array) -> None:
    data = tensors.to_bytes(array)
    if len(data) > span.size_bytes:
        raise invalid(
            f"shared memory size specified with the request for output '{name}' ({span.size_bytes} bytes)"
            f" should be at least {len(data)} bytes to hold the results"
        )
    span.region.write(span.offset, data)
