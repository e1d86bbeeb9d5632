"""Parameters of a request, of its inputs and of its outputs: the same whatever carried them, JSON or protobuf. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from edgeward_agent.serving.aside import Aside, Load, Span, check_classes
from edgeward_agent.serving.asked import Terms, check_parameters, no_sequences
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.refusal import invalid, too_large
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import TensorError
from edgeward_contract.manifest import CaptureMode, TensorSpec


class InputParameters(msgspec.Struct, frozen=True, gc=False):
    """Of one input: where its bytes are."""

    binary_data_size: int | None = None
    shared_memory_region: str | None = None
    shared_memory_byte_size: int = 0
    shared_memory_offset: int = 0


class OutputParameters(msgspec.Struct, frozen=True, gc=False):
    """Of one output: where it goes, and as what."""

    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: str | None = None
    shared_memory_byte_size: int = 0
    shared_memory_offset: int = 0

    @property
    def special(self) -> bool:
        """Whether it goes neither as bytes nor as JSON as it is."""
        return bool(self.classification) or self.shared_memory_region is not None


class Parameters(msgspec.Struct, frozen=True, gc=False):
    """Of a request as a whole."""

    binary_data_output: bool = False
    capture: CaptureMode = CaptureMode.OFF
    timeout: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False

    def check(self) -> None:
        """Raises Refusal: 400 for a priority beyond uint64, 501 for a sequence."""
        check_parameters(priority=self.priority, sequence_id=self.sequence_id)
        if self.sequence_start or self.sequence_end:
            raise no_sequences()


def make_load(spec: TensorSpec, shape: Sequence[int], region: str, given: InputParameters, terms: Terms) -> Load:
    """An input that lies in `region`.

    Raises:
        Refusal: 400 for a shape that cannot be, or a place outside of the region; 404 for one that is not registered.
    """
    try:
        tensors.element_count(shape)
    except TensorError as error:
        raise invalid(f"input '{spec.name}': {error}") from None
    return Load(spec, shape, Span(terms.find_region(region), given.shared_memory_offset, given.shared_memory_byte_size))


def make_aside(
    interface: Interface,
    loads: Sequence[Load],
    special: Mapping[str, OutputParameters],
    terms: Terms,
    *,
    literals: bool = False,
) -> Aside:
    """What does not travel in the body. `special` is by the name of an output.

    Raises:
        Refusal: 400 for an output that cannot go where it should, 404 for a region, 413 for too much to load.
    """
    aside = Aside(loads=loads, literals=literals)
    if aside.size_bytes > terms.shared_bytes:
        raise too_large(f"expected at most {terms.shared_bytes} bytes in shared memory, got {aside.size_bytes}")
    for name, given in special.items():
        if given.shared_memory_region is None:
            check_classes(interface.outputs[name], given.classification)
            aside.classes[name] = given.classification
        else:
            aside.stores[name] = _store(name, given, given.shared_memory_region, terms)
    return aside


def _store(name: str, given: OutputParameters, region: str, terms: Terms) -> Span:
    if given.classification or given.binary_data:
        other = "classification" if given.classification else "binary_data"
        raise invalid(f"output '{name}': expected either shared_memory_region or {other}, got both")
    return Span(terms.find_region(region), given.shared_memory_offset, given.shared_memory_byte_size)
