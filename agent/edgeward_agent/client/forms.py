"""What of a question and of its answer is the same each time while only the numbers change. Pure.

A bedside application asks the same thing again and again. The beginning of its request, head and JSON, is made once;
and an answer that begins with the same bytes as the one before, and is as long, means the same: its head says how long
it is and its JSON says what the rest is, so nothing of it needs to be read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from edgeward_agent.client.answers import Answer
from edgeward_agent.client.http import Response
from edgeward_agent.wire.tensors import NUMPY, Array, Buffer, to_bytes
from edgeward_contract.manifest import Datatype

_JOIN_BELOW_BYTES: Final = 1 << 16
_FIRST_READ_BYTES: Final = 1 << 16  # from 128 KiB on the C library asks the system for each buffer anew
_PLAIN: Final = frozenset(datatype for datatype, dtype in NUMPY.items() if dtype.kind in "iuf")
"""What lies in an answer as numpy has it. A BOOL is looked at, text decoded, BF16 widened."""
_tobytes: Final = np.ndarray.tobytes
_ndarray: Final = np.ndarray


class Part(NamedTuple):
    """One tensor in the body of an answer."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    size: int


class Meaning(NamedTuple):
    """What the JSON of an answer says."""

    model: str
    version: str
    request_id: str
    parts: tuple[Part, ...]


class Form:
    """One form of question.

    Args:
        begin: what comes in front of its tensors.
        binary_bytes: how long they are; None when they are not their arrays' memory, as text is not.
    """

    __slots__ = ("_begin", "_joined", "recognise", "room")

    def __init__(self, begin: bytes, binary_bytes: int | None) -> None:
        self._begin = begin
        self._joined = binary_bytes is not None and len(begin) + binary_bytes < _JOIN_BELOW_BYTES
        self.room = _FIRST_READ_BYTES
        """How much to ask a socket for at first: a byte more than what is expected, so that more than that shows."""
        self.recognise: Callable[[bytes], Answer | None] = _nothing
        """Gives the answer, when it is the last one with other numbers in it."""

    def request(self, arrays: Sequence[Array]) -> bytes | Sequence[Buffer]:
        """The whole request; in pieces where joining them would be a large copy."""
        if self._joined:
            return b"".join((self._begin, *map(_tobytes, arrays)))
        return self._begin, *map(to_bytes, arrays)

    def learn(self, response: Response, meaning: Meaning) -> None:
        """Remember an answer that was read and found right."""
        size = len(response.head) + len(response.body)
        if response.json_bytes is None or not response.keep_alive or size >= _FIRST_READ_BYTES:
            return
        if all(part.datatype in _PLAIN for part in meaning.parts):
            known = _Known(response.head + response.body[: response.json_bytes], size, meaning)
            self.recognise = known.read
            self.room = size + 1


def _nothing(_: bytes) -> Answer | None:
    return None


NO_FORM: Final = Form(b"", 0)
"""Of questions whose answers are no tensors: nothing is recognised."""


class _Known:
    """An answer by its beginning."""

    __slots__ = ("_begin", "_model", "_places", "_size", "_version")

    def __init__(self, begin: bytes, size: int, meaning: Meaning) -> None:
        self._begin = begin
        self._size = size
        self._model = meaning.model
        self._version = meaning.version
        self._places: list[tuple[str, np.dtype[np.generic], tuple[int, ...], slice]] = []
        at = len(begin)
        for name, datatype, shape, length in meaning.parts:
            self._places.append((name, NUMPY[datatype], shape, slice(at, at + length)))
            at += length

    def read(self, data: bytes) -> Answer | None:
        if len(data) != self._size or not data.startswith(self._begin):
            return None
        outputs: dict[str, Array] = {}
        for name, dtype, shape, place in self._places:
            outputs[name] = _ndarray(shape, dtype, bytearray(data[place]))  # aligned, and may be written to
        return Answer(self._model, self._version, "", outputs)
