"""The record of one inference, as the fleet will read it. Pure, and never built before the answer is on its way
(unless the caller asked for an answer that is recorded already).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from edgeward_agent.serving import tensors
from edgeward_agent.serving.tensors import DATATYPE, Array
from edgeward_contract.artifact import Sha256
from edgeward_contract.schema import JsonValue

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
        return msgspec.json.encode(
            {
                "id": frame_id,
                "durable": durable,
                "kind": "inference",
                "class": "result",
                "wall_us": self.wall_us,
                "body": self._body(),
            }
        )

    def _body(self) -> dict[str, JsonValue]:
        body: dict[str, JsonValue] = {
            "model": self.model,
            "version": self.version,
            "release_sha256": self.release_sha256,
            "request_id": self.request_id,
            "outcome": "ok",
            "latency_us": self.latency_us,
        }
        room = _MAX_TENSORS_BYTES
        for key, arrays in (("outputs", self.outputs), ("inputs", self.inputs)):
            if arrays:
                document, room = _tensors(arrays, room)
                body[key] = document
        return body


def _tensors(arrays: Mapping[str, Array], room: int) -> tuple[dict[str, JsonValue], int]:
    documents: dict[str, JsonValue] = {}
    for name, array in arrays.items():
        documents[name], used = _tensor(array, room)
        room -= used
    return documents, room


def _tensor(array: Array, room: int) -> tuple[JsonValue, int]:
    """A tensor as a list, or long ones as base64; one that finds no room is recorded by its size alone."""
    document: dict[str, JsonValue] = {"datatype": DATATYPE[array.dtype].value, "shape": list(array.shape)}
    raw = bytes(tensors.to_bytes(array)) if array.size > _LIST_ELEMENTS or array.dtype.hasobject else b""
    # A number takes up to 25 characters as text, where bytes take a third more than themselves.
    used = len(raw) or array.size * 20
    if used > room:
        return {**document, "omitted_bytes": len(raw) or array.nbytes}, 0
    if array.size > _LIST_ELEMENTS:
        return {**document, "raw": base64.b64encode(raw).decode()}, used
    return {**document, "data": list(tensors.to_elements(array))}, used
