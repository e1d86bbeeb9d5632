"""The record of one inference, as the fleet will read it. Pure, and never built before the answer is on its way
(unless the caller asked for an answer that is recorded already).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from edgeward_agent.serving import tensors
from edgeward_agent.serving.tensors import DATATYPE, Array
from edgeward_contract.artifact import Sha256

_LIST_ELEMENTS: Final = 256
# A record may have 256 KiB with its envelope; base64 adds a third.
_MAX_TENSORS_BYTES: Final = 144 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRecord:
    """What is known of an answered request. `inputs` and `outputs` are empty where the capture policy says so."""

    wall_us: int
    latency_us: int
    model: str
    version: int
    release_sha256: Sha256
    request_id: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def size_bytes(self) -> int:
        """About what it holds in memory while it waits."""
        return 512 + sum(each.nbytes for each in (*self.inputs.values(), *self.outputs.values()))

    def frame(self, frame_id: int, *, durable: bool) -> bytes:
        """The frame for the control process: JSON without its length prefix. Non-finite numbers become null."""
        tensors_json, room = b"", _MAX_TENSORS_BYTES
        for key, arrays in ((b"outputs", self.outputs), (b"inputs", self.inputs)):
            if arrays:
                document, room = _tensors(arrays, room)
                tensors_json += b',"%b":{%b}' % (key, document)
        return _FRAME % (
            frame_id,
            _TRUE if durable else _FALSE,
            self.wall_us,
            _release(self.model, self.version, self.release_sha256),
            msgspec.json.encode(self.request_id),
            self.latency_us,
            tensors_json,
        )


_TRUE: Final = b"true"
_FALSE: Final = b"false"
_FRAME: Final = (
    b'{"id":%d,"durable":%b,"kind":"inference","class":"result","wall_us":%d,'
    b'"body":{%b,"request_id":%b,"outcome":"ok","latency_us":%d%b}}'
)
"""Written together from parts that stay the same: a record is built on the loop, between the answers to others."""


@lru_cache(maxsize=64)
def _release(model: str, version: int, sha256: Sha256) -> bytes:
    return msgspec.json.encode({"model": model, "version": version, "release_sha256": sha256})[1:-1]


@lru_cache(maxsize=256)
def _described(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """The constant beginning of a tensor: its name, and the object with its datatype and shape."""
    return msgspec.json.encode({name: {"datatype": DATATYPE[dtype].value, "shape": shape}})[1:-2]


def _tensors(arrays: Mapping[str, Array], room: int) -> tuple[bytes, int]:
    documents = []
    for name, array in arrays.items():
        document, used = _tensor(array, room)
        documents.append(b"%b,%b}" % (_described(name, array.dtype, array.shape), document))
        room -= used
    return b",".join(documents), room


def _tensor(array: Array, room: int) -> tuple[bytes, int]:
    """A tensor as a list, or long ones as base64; one that finds no room is recorded by its size alone."""
    is_long = array.size > _LIST_ELEMENTS
    raw = bytes(tensors.to_bytes(array)) if is_long or array.dtype.hasobject else b""
    # A number takes up to 25 characters as text, where bytes take a third more than themselves.
    used = len(raw) or array.size * 20
    if used > room:
        return b'"omitted_bytes":%d' % (len(raw) or array.nbytes), 0
    if is_long:
        return b'"raw":"%b"' % base64.b64encode(raw), used
    return b'"data":%b' % msgspec.json.encode(tensors.to_elements(array)), used
