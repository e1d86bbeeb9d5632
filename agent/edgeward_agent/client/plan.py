"""A plan of the frames socket as a client has it: where tensors lie in memory, what is sent, what comes back. Pure.

The wire is `docs/spec/frames.md`. What an application gets is copied out of the shared memory: the next answer is
written where this one was.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple

import numpy as np

from edgeward_agent.client.answers import Answer
from edgeward_agent.client.dialogue import error_for
from edgeward_agent.client.wish import WishFields
from edgeward_agent.wire.frames import (
    ALIGNMENT,
    ANSWER_HEAD,
    RUN_HEAD,
    FrameError,
    Kind,
    read_answer,
    read_opened,
)
from edgeward_agent.wire.tensors import DATATYPE, NUMPY, Array
from edgeward_contract.manifest import Datatype
from edgeward_contract.schema import ContractError, Fields, JsonValue

_OK: Final = int(HTTPStatus.OK)
_RUN: Final = int(Kind.RUN)
_ANSWER: Final = int(Kind.ANSWER)
_ASK_ELSEWHERE: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.NOT_IMPLEMENTED}
)
_MAX_SEQUENCE: Final = (1 << 32) - 1


class PlanOver(Exception):
    """The server does not take this plan, or takes it no longer. The same question over HTTP says why, or works.

    `status` is the server's.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Room(NamedTuple):
    """Where an output lies, and how large it may be."""

    name: str
    offset: int
    size_bytes: int


class Place(NamedTuple):
    """Where an input lies, and what it is."""

    name: str
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


class _Output(NamedTuple):
    """What the model gives; -1 is told with each answer."""

    room: Room
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is asked for, and where it lies."""

    document: JsonValue
    memory_bytes: int
    inputs: tuple[Place, ...]
    outputs: tuple[Room, ...]


def lay_out(wish: WishFields, inputs: Mapping[str, Array], rooms: Mapping[str, int]) -> Layout:
    """Inputs first, then the outputs, whose `rooms` are in bytes."""
    model, version, _, _, capture, _, _ = wish
    places: list[Place] = []
    wanted: list[Room] = []
    at = 0
    for name, array in inputs.items():
        places.append(Place(name, at, array.dtype, array.shape))
        at += _padded(array.nbytes)
    for name, size_bytes in rooms.items():
        wanted.append(Room(name, at, size_bytes))
        at += _padded(size_bytes)
    document: dict[str, JsonValue] = {
        "model": model,
        "capture": capture.value,
        "inputs": [_described(place) for place in places],
        "outputs": [room._asdict() for room in wanted],
    }
    if version is not None:
        document["version"] = str(version)
    return Layout(document=document, memory_bytes=max(at, 1), inputs=tuple(places), outputs=tuple(wanted))


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _described(place: Place) -> JsonValue:
    datatype = DATATYPE[place.dtype].value
    return {"name": place.name, "datatype": datatype, "shape": list(place.shape), "offset": place.offset}


class Plan:
    """A plan that the server has taken, with its memory. One question at a time.

    Raises:
        PlanOver: it has not taken it.
        FrameError: the answer is none.
    """

    __slots__ = ("_inputs", "_memory", "_model", "_outputs", "_sequence", "_told", "_usual", "_views")

    def __init__(self, layout: Layout, memory: mmap.mmap, opened: bytes) -> None:
        status, document = read_opened(opened)
        if status != _OK:
            raise PlanOver(status, _error(document))
        self._memory = memory
        self._model, self._outputs = _read_opened(document, layout)
        self._inputs = [_view(memory, each.offset, each.dtype, each.shape) for each in layout.inputs]
        self._told = tuple(index for index, each in enumerate(self._outputs) if not each.shape or -1 in each.shape)
        self._sequence = 0
        self._usual: bytes | None = None
        self._views: list[tuple[str, Array, bool]] = []

    def question(self, wish: WishFields, arrays: Iterable[Array]) -> bytes:
        """Write the inputs where the server reads them; the packet that asks."""
        for own, array in zip(self._inputs, arrays, strict=True):
            own[...] = array
        _, _, _, request_id, _, deadline_us, priority = wish
        self._sequence = self._sequence % _MAX_SEQUENCE + 1
        return RUN_HEAD.pack(_RUN, priority, self._sequence, deadline_us) + request_id.encode()

    def answer(self, wish: WishFields, packet: bytes) -> Answer:
        """What a packet says, with the outputs copied out of the memory.

        Raises:
            ClientError: the server says that it could not answer.
            PlanOver: the model is another now.
            FrameError: this is no answer, or one to another question.
        """
        said = packet[ANSWER_HEAD.size :]
        if said != self._usual:  # shapes are what they were, nearly always
            return self._other(wish, packet)
        kind, _, status, sequence, version = ANSWER_HEAD.unpack_from(packet)
        if (kind, status, sequence) != (_ANSWER, _OK, self._sequence):
            return self._other(wish, packet)
        outputs: dict[str, Array] = {name: view != 0 if flags else view.copy() for name, view, flags in self._views}
        return Answer(self._model, str(version), wish[3], outputs)

    def _other(self, wish: WishFields, packet: bytes) -> Answer:
        heard = read_answer(packet)
        if heard.sequence != self._sequence:
            raise FrameError(f"expected the answer to question {self._sequence}, got one to {heard.sequence}")
        if heard.status in _ASK_ELSEWHERE:
            raise PlanOver(heard.status, heard.error)
        if heard.status != _OK:
            raise error_for(heard.status, heard.error)
        self._views = self._viewed(heard.shapes)
        self._usual = packet[ANSWER_HEAD.size :]
        return self.answer(wish, packet)

    def _viewed(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[str, Array, bool]]:
        if len(shapes) != len(self._told):
            raise FrameError(f"expected {len(self._told)} shapes, got {len(shapes)}")
        told = dict(zip(self._told, shapes, strict=True))
        return [_output_view(self._memory, each, told.get(at, each.shape)) for at, each in enumerate(self._outputs)]


def _view(memory: mmap.mmap, offset: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    return np.ndarray(shape, dtype, memory, offset if math.prod(shape) else 0)


def _output_view(memory: mmap.mmap, output: _Output, shape: tuple[int, ...]) -> tuple[str, Array, bool]:
    """The name, the array, and whether it is a BOOL: any byte but 0 is true there."""
    name, offset, size_bytes = output.room
    if math.prod(shape) * output.dtype.itemsize > size_bytes:
        raise FrameError(f"output '{name}': expected at most {size_bytes} bytes, got shape {list(shape)}")
    flags = output.dtype == np.bool_
    try:
        view = _view(memory, offset, np.dtype(np.uint8) if flags else output.dtype, shape)
    except (ValueError, OverflowError) as error:  # more dimensions, or larger ones, than numpy has
        raise FrameError(f"output '{name}': expected a shape that can be, got {list(shape)}: {error}") from None
    return name, view, flags


def _read_opened(document: JsonValue, layout: Layout) -> tuple[str, tuple[_Output, ...]]:
    """The model's name, and its outputs."""
    try:
        fields = Fields.of(document, "")
        outputs = [_read_output(*pair) for pair in zip(fields.objects("outputs"), layout.outputs, strict=True)]
        return fields.text("model"), tuple(outputs)
    except (ContractError, ValueError, KeyError) as error:
        raise FrameError(f"expected what the model gives, got: {error}") from None


def _read_output(fields: Fields, room: Room) -> _Output:
    name = fields.text("name")
    if name != room.name:
        raise FrameError(f"expected output '{room.name}', got '{name}'")
    dtype = NUMPY[fields.choice("datatype", Datatype)]
    if dtype.hasobject:  # numpy would take what lies in the memory for addresses
        raise FrameError(f"output '{name}': expected elements of a fixed size, got others")
    return _Output(room, dtype, fields.integers("shape", minimum=-1))


def _error(document: JsonValue) -> str:
    try:
        return Fields.of(document, "").text("error", max_length=10_000)
    except ContractError:
        return "expected a reason, got none"
