"""What a client of the frames socket will ask for, and where in its memory the tensors lie. Pure.

A plan is checked once, when a connection is opened; after that a request is a few bytes and nothing is parsed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from edgeward_agent.serving.asked import short
from edgeward_agent.serving.interface import Interface, fits
from edgeward_agent.serving.refusal import invalid, unsupported
from edgeward_agent.wire.frames import ALIGNMENT, OPEN_HEAD, VERSION, Kind
from edgeward_agent.wire.tensors import NUMPY
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec
from edgeward_contract.schema import JsonValue

_MAX_TENSORS: Final = 64
_MAX_RANK: Final = 32
"""Of an input: as many as every numpy has that the server may run on (numpy 2 has more, as many as the wire's
`MAX_RANK` lets an answer have).
"""
_MAX_BYTES: Final = 1 << 40  # far beyond any memory, and sums of it do not overflow


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: list[int]
    offset: int


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    offset: int
    size_bytes: int


class _Open(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    inputs: list[_Input]
    outputs: list[_Output]
    version: str | None = None
    capture: CaptureMode = CaptureMode.OFF


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tensor lies in the memory. An output may be smaller than its place."""

    name: str
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


class InputPlace(Place, frozen=True, kw_only=True):
    """An input never changes its shape: another shape is another plan."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked again and again on one connection. `version` None is the one that answers now."""

    model: str
    version: str | None
    inputs: tuple[InputPlace, ...]
    outputs: tuple[Place, ...]
    capture: CaptureMode

    @property
    def input_bytes(self) -> int:
        return sum(each.size_bytes for each in self.inputs)


def read_open(packet: bytes) -> Plan:
    """Raises Refusal for what is no first packet, or asks for what no model can give."""
    if len(packet) < OPEN_HEAD.size or packet[0] != Kind.OPEN:
        raise invalid(f"expected a first packet that opens a plan, got {packet[:16]!r}")
    if packet[1] != VERSION:
        raise unsupported(f"expected version {VERSION} of the wire, got {packet[1]}")
    try:
        asked = msgspec.json.decode(packet[OPEN_HEAD.size :], type=_Open)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"plan: {str(error)[:200]}") from None
    if max(len(asked.inputs), len(asked.outputs)) > _MAX_TENSORS:
        raise invalid(f"expected at most {_MAX_TENSORS} inputs and as many outputs, got more")
    if not asked.outputs:
        raise invalid("expected the outputs that are wanted, each with its place, got none")
    inputs = tuple(_input_place(each) for each in asked.inputs)
    outputs = tuple(_output_place(each) for each in asked.outputs)
    _check_apart((*inputs, *outputs))
    return Plan(model=asked.model, version=asked.version, inputs=inputs, outputs=outputs, capture=asked.capture)


def check_fits_memory(plan: Plan, memory_bytes: int) -> None:
    """Raises Refusal when a tensor would lie outside."""
    for each in (*plan.inputs, *plan.outputs):
        if each.end > memory_bytes:
            raise invalid(
                f"'{short(each.name)}': expected a place within the memory's {memory_bytes} bytes, got one that ends"
                f" at {each.end}"
            )


def check_fits_model(plan: Plan, interface: Interface) -> None:
    """Raises Refusal when the model takes or gives something else than the plan says."""
    _check_names("input", plan.inputs, interface.inputs, all_wanted=True)
    _check_names("output", plan.outputs, interface.outputs, all_wanted=False)
    for place in plan.inputs:
        _check_input(place, interface.inputs[place.name])
    for output in plan.outputs:
        _check_fixed_size(output.name, interface.outputs[output.name].datatype)


def check_gives(known: Sequence[TensorSpec], now: Sequence[TensorSpec]) -> None:
    """Raises Refusal when outputs have another type or shape than a client was told: it would read them wrongly."""
    for before, after in zip(known, now, strict=True):
        if (before.datatype, before.shape) != (after.datatype, after.shape):
            raise invalid(
                f"output '{before.name}': expected {before.datatype} {list(before.shape)} as when the plan was opened,"
                f" the model gives {after.datatype} {list(after.shape)} now: open a plan again"
            )


def opened_document(plan: Plan, model: str, version: int, interface: Interface) -> JsonValue:
    """What a client is told about the model: the shapes of the outputs, so that it can read them."""
    outputs: list[JsonValue] = []
    for each in plan.outputs:
        spec = interface.outputs[each.name]
        outputs.append({"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)})
    return {"model": model, "version": str(version), "outputs": outputs}


def told_shapes(plan: Plan, interface: Interface) -> tuple[int, ...]:
    """Which outputs, by their place in the plan, say their shape in each answer. An empty shape is one that the
    runtime does not tell from a scalar.
    """
    shapes = (interface.outputs[each.name].shape for each in plan.outputs)
    return tuple(index for index, shape in enumerate(shapes) if not shape or -1 in shape)


def _input_place(given: _Input) -> InputPlace:
    datatype = _known_datatype(given)
    _check_fixed_size(given.name, datatype)
    dtype = NUMPY[datatype]
    _check_shape(given.name, given.shape, dtype.itemsize)
    size_bytes = math.prod(given.shape) * dtype.itemsize
    _check_place(given.name, given.offset, size_bytes)
    return InputPlace(
        name=given.name, offset=given.offset, size_bytes=size_bytes, dtype=dtype, shape=tuple(given.shape)
    )


def _output_place(given: _Output) -> Place:
    _check_place(given.name, given.offset, given.size_bytes)
    return Place(name=given.name, offset=given.offset, size_bytes=given.size_bytes)


def _known_datatype(given: _Input) -> Datatype:
    try:
        return Datatype(given.datatype)
    except ValueError:
        raise invalid(
            f"'{short(given.name)}': expected a datatype of the protocol, got '{given.datatype[:40]}'"
        ) from None


def _check_fixed_size(name: str, datatype: Datatype) -> None:
    if datatype not in NUMPY or NUMPY[datatype].hasobject:
        raise unsupported(f"'{short(name)}': expected elements of a fixed size, got {datatype}: ask over HTTP")


def _check_shape(name: str, shape: Sequence[int], item_bytes: int) -> None:
    """A dimension of 0 excuses no others: numpy makes no array whose other dimensions are beyond any memory."""
    if len(shape) > _MAX_RANK or any(not 0 <= dim <= _MAX_BYTES for dim in shape):
        raise invalid(f"'{short(name)}': expected up to {_MAX_RANK} dimensions from 0, got {str(shape)[:80]}")
    if math.prod(filter(None, shape)) * item_bytes > _MAX_BYTES:
        raise invalid(f"'{short(name)}': expected a shape of at most {_MAX_BYTES} bytes, got {str(shape)[:80]}")


def _check_place(name: str, offset: int, size_bytes: int) -> None:
    if not (0 <= offset <= _MAX_BYTES and 0 <= size_bytes <= _MAX_BYTES) or offset % ALIGNMENT:
        raise invalid(
            f"'{short(name)}': expected an offset that is a multiple of {ALIGNMENT}, got {offset} and"
            f" {size_bytes} bytes"
        )


def _check_apart(places: Iterable[Place]) -> None:
    ordered = sorted((each for each in places if each.size_bytes), key=lambda each: each.offset)
    for before, after in itertools.pairwise(ordered):
        if after.offset < before.end:
            raise invalid(f"expected a place for each tensor, '{short(before.name)}' and '{short(after.name)}' overlap")


def _check_names(side: str, places: Sequence[Place], known: Iterable[str], *, all_wanted: bool) -> None:
    wanted, given = set(known), [each.name for each in places]
    if len(set(given)) != len(given) or not wanted.issuperset(given) or (all_wanted and len(given) < len(wanted)):
        raise invalid(f"expected {side}s {sorted(wanted)}, each once, got {str(given)[:200]}")


def _check_input(place: InputPlace, spec: TensorSpec) -> None:
    _check_fixed_size(place.name, spec.datatype)
    if place.dtype != NUMPY[spec.datatype]:
        raise invalid(f"input '{place.name}': expected datatype {spec.datatype}, got {place.dtype}")
    if not fits(spec.shape, place.shape):
        raise invalid(f"input '{place.name}': expected shape {list(spec.shape)}, got {list(place.shape)}")
