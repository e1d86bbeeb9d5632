"""What travels on a frames socket: packets as bytes. Pure, standard library alone, shared by server and client.

Source: docs/spec/frames.md. Integers are little-endian; a packet is one message of a SOCK_SEQPACKET socket.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edgeward_contract.schema import JsonValue

VERSION: Final = 1
ALIGNMENT: Final = 64
"""Every tensor begins at a multiple of this: what vector instructions and cache lines ask for."""
MAX_OPEN_BYTES: Final = 1 << 16
MAX_ID_BYTES: Final = 256
MAX_ANSWER_BYTES: Final = 1 << 12
NO_DEADLINE: Final = (1 << 64) - 1

OPEN_HEAD: Final = struct.Struct("<BB6x")
RUN_HEAD: Final = struct.Struct("<BB2xIQ")
ANSWER_HEAD: Final = struct.Struct("<BBHII4x")
ANSWER_BEGIN: Final = struct.Struct("<BBH")
"""The head of an answer in parts: this, the sequence as it came, and `ANSWER_END`."""
ANSWER_END: Final = struct.Struct("<I4x")
SEQUENCE: Final = slice(4, 8)
"""Where it stands in a request."""
_DIM: Final = struct.Struct("<Q")
_RANK: Final = struct.Struct("<I")
MAX_RANK: Final = 64
"""Of an output: as many as any numpy has, so that none is refused that the client's own might take."""


class Kind(IntEnum):
    """The first byte of a packet. Those of the server have the highest bit set."""

    OPEN = 1
    RUN = 2
    ANSWER = 0x82
    OPENED = 0x81


class FrameError(ValueError):
    """A packet is not what the wire allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One request. `timeout_us` 0 leaves the deadline to the model's budget; NO_DEADLINE is none."""

    sequence: int
    timeout_us: int = 0
    priority: int = 0
    request_id: str = ""

    def packet(self) -> bytes:
        head = RUN_HEAD.pack(Kind.RUN, self.priority, self.sequence, self.timeout_us)
        return head + self.request_id.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a request ended. `status` is as in HTTP; `shapes` are those of the outputs that have a free dimension, in
    the order of the plan; `error` is empty for status 200. `version` is that of the model that answered.
    """

    sequence: int
    status: int
    version: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    error: str = ""


def open_packet(document: JsonValue) -> bytes:
    """The first packet of a client: what it will ask for, and where in the memory the tensors lie."""
    return OPEN_HEAD.pack(Kind.OPEN, VERSION) + json.dumps(document, separators=(",", ":")).encode()


def opened_packet(status: int, document: JsonValue) -> bytes:
    """The answer to `open_packet`: `document` says what the model gives, or `{"error": …}`."""
    head = ANSWER_HEAD.pack(Kind.OPENED, 0, status, 0, 0)
    return head + json.dumps(document, separators=(",", ":")).encode()


def shapes_bytes(shapes: Sequence[Sequence[int]]) -> bytes:
    """Shapes as they stand behind the head of an answer: rank, then that many dimensions, each."""
    return b"".join(_RANK.pack(len(shape)) + b"".join(map(_DIM.pack, shape)) for shape in shapes)


def read_answer(packet: bytes) -> Answer:
    """Raises FrameError for what is no answer."""
    if len(packet) < ANSWER_HEAD.size or packet[0] != Kind.ANSWER:
        raise FrameError(f"expected an answer, got {packet[:32]!r}")
    _, _, status, sequence, version = ANSWER_HEAD.unpack_from(packet)
    rest = packet[ANSWER_HEAD.size :]
    if status != 200:
        return Answer(sequence=sequence, status=status, version=version, error=rest.decode(errors="replace"))
    return Answer(sequence=sequence, status=status, version=version, shapes=_read_shapes(rest))


def read_opened(packet: bytes) -> tuple[int, JsonValue]:
    """Status and document of the answer to `open_packet`. Raises FrameError."""
    if len(packet) < ANSWER_HEAD.size or packet[0] != Kind.OPENED:
        raise FrameError(f"expected the answer to an open, got {packet[:32]!r}")
    status = ANSWER_HEAD.unpack_from(packet)[2]
    try:
        document: JsonValue = json.loads(packet[ANSWER_HEAD.size :])
    except (ValueError, RecursionError):
        raise FrameError(f"expected JSON behind the head, got {packet[:64]!r}") from None
    return status, document


def _read_shapes(data: bytes) -> tuple[tuple[int, ...], ...]:
    shapes: list[tuple[int, ...]] = []
    at = 0
    while at < len(data):
        if len(data) - at < _RANK.size:
            raise FrameError(f"expected a rank, got {data[at:]!r}")
        rank = _RANK.unpack_from(data, at)[0]
        at += _RANK.size
        if rank > MAX_RANK or len(data) - at < rank * _DIM.size:
            raise FrameError(f"expected {rank} dimensions, got {len(data) - at} bytes")
        shapes.append(struct.unpack_from(f"<{rank}Q", data, at))
        at += rank * _DIM.size
    return tuple(shapes)
