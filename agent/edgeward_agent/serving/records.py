"""The record of one inference, as the fleet will read it. Pure, and never built before the answer is on its way
(unless the caller asked for an answer that is recorded already).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from edgeward_agent.series import DATATYPES, LISTED_ELEMENTS, SIDES, Column, Series
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import DATATYPE, Array
from edgeward_contract.artifact import Sha256
from edgeward_contract.schema import JsonValue

_LISTED_BYTES: Final = 20  # of a number as text: up to 25, where bytes take a third more than themselves
# A record may have 256 KiB with its envelope; base64 adds a third.
_MAX_TENSORS_BYTES: Final = 144 << 10
_MAX_ROW_BYTES: Final = 64 << 10


class InferenceRecord(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is known of an answered request. `inputs` and `outputs` are empty where the capture policy says so.

    They may be lent: the record is good for as long as nobody writes to them, and to be kept as its frame.
    """

    wall_us: int
    latency_us: int
    model: str
    version: int
    release_sha256: Sha256
    request_id: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def frame(self, frame_id: int, *, durable: bool) -> bytes:
        """The frame for the control process: JSON without its length prefix. Non-finite numbers become null."""
        release = _release(self.model, self.version, self.release_sha256)
        request_id = msgspec.json.encode(self.request_id) if self.request_id else _NO_ID
        parts = [_HEAD % (frame_id, _TRUE if durable else _FALSE, self.wall_us, release, request_id, self.latency_us)]
        room = _MAX_TENSORS_BYTES
        if self.outputs:
            room = _add_tensors(parts, b',"outputs":{', self.outputs, room)
        if self.inputs:
            _add_tensors(parts, b',"inputs":{', self.inputs, room)
        parts.append(b"}}")
        return b"".join(parts)


def series_of(
    model: str, version: int, release_sha256: Sha256, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Series | None:
    """What records of such answers have in common, if they are of numbers and not too many; else None.

    A row is `ROW_HEAD` and then the bytes of the tensors: inputs first, each side in its order.
    """
    columns, room = [], _MAX_ROW_BYTES
    for side, arrays in zip(SIDES, (inputs, outputs), strict=True):
        for name, array in arrays.items():
            datatype = DATATYPE.get(array.dtype)
            if datatype not in DATATYPES:
                return None
            columns.append(Column(side, name, datatype, array.shape))
            room -= array.size * _LISTED_BYTES if columns[-1].listed else array.nbytes
    if room < 0:
        return None
    return _series(model, version, release_sha256, tuple(columns))


@lru_cache(maxsize=64)
def _series(model: str, version: int, release_sha256: Sha256, columns: tuple[Column, ...]) -> Series:
    """One for all who ask alike: their rows keep their order, and what they have in common is sent once."""
    named: dict[str, JsonValue] = {"model": model, "version": version, "release_sha256": release_sha256}
    return Series({**named, "request_id": "", "outcome": "ok"}, columns)


_TRUE: Final = b"true"
_FALSE: Final = b"false"
_NO_ID: Final = b'""'
_HEAD: Final = (
    b'{"id":%d,"durable":%b,"kind":"inference","class":"result","wall_us":%d,'
    b'"body":{%b,"request_id":%b,"outcome":"ok","latency_us":%d'
)
"""Written together from parts that stay the same: a record is built on the loop, between the answers to others."""


@lru_cache(maxsize=64)
def _release(model: str, version: int, sha256: Sha256) -> bytes:
    return msgspec.json.encode({"model": model, "version": version, "release_sha256": sha256})[1:-1]


@lru_cache(maxsize=256)
def _described(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """The constant beginning of a tensor: its name, and the object with its datatype and shape."""
    return msgspec.json.encode({name: {"datatype": DATATYPE[dtype].value, "shape": shape}})[1:-2] + b","


def _add_tensors(parts: list[bytes], key: bytes, arrays: Mapping[str, Array], room: int) -> int:
    """Add an object with these tensors. Returns the room that is left."""
    before = key
    for name, array in arrays.items():
        parts += (before, _described(name, array.dtype, array.shape))
        used = array.size * _LISTED_BYTES
        if array.size <= LISTED_ELEMENTS and used <= room and not array.dtype.hasobject:
            parts += (b'"data":', msgspec.json.encode(tensors.to_elements(array)))
        else:
            text, used = _long(array, room)
            parts.append(text)
        before = b"},"
        room -= used
    parts.append(b"}}")
    return room


def _long(array: Array, room: int) -> tuple[bytes, int]:
    """A long tensor as base64, text as a list; one that finds no room is recorded by its size alone."""
    is_long = array.size > LISTED_ELEMENTS
    raw = bytes(tensors.to_bytes(array)) if is_long or array.dtype.hasobject else b""
    used = len(raw) or array.size * _LISTED_BYTES
    if used > room:
        return b'"omitted_bytes":%d' % (len(raw) or array.nbytes), 0
    if is_long:
        return b'"raw":"%b"' % base64.b64encode(raw), used
    return b'"data":%b' % msgspec.json.encode(tensors.to_elements(array)), used
