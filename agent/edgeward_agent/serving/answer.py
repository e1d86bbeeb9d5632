"""Answers of the Open Inference Protocol v2: results to the pieces of a body. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from edgeward_agent.serving.aside import Aside
from edgeward_agent.serving.asked import InferRequest, Terms
from edgeward_agent.serving.interface import Interface, output_head
from edgeward_agent.serving.refusal import invalid
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array, Buffer
from edgeward_contract.manifest import Datatype

_TERMS: Final = Terms()


def build_infer(
    interface: Interface, head: bytes, request: InferRequest, results: Sequence[Array], terms: Terms = _TERMS
) -> tuple[int | None, list[Buffer]]:
    """The body of an answer in pieces, and the length of its JSON if bytes follow (else None).

    `head` is what `response_head` made for this version; `results` are in the order of `request.outputs`.

    Raises:
        Refusal: 400, an output is too large for JSON.
    """
    if request.aside is not None:
        return _build_aside(interface, head, request, request.aside, terms)
    pieces = _beginning(head, request)
    binary: list[Buffer] = []
    separator = b'"outputs":['
    for (name, as_bytes), array in zip(request.outputs.items(), results, strict=True):
        pieces += separator, interface.outputs_json[name], str(list(array.shape)).encode()
        pieces.append(_parameters_json(binary, array) if as_bytes else _data_json(array, terms))
        separator = b","
    return _joined(pieces, binary, separator)


def _build_aside(
    interface: Interface, head: bytes, request: InferRequest, aside: Aside, terms: Terms
) -> tuple[int | None, list[Buffer]]:
    pieces = _beginning(head, request)
    binary: list[Buffer] = []
    separator = b'"outputs":['
    for (name, as_bytes), array in zip(request.outputs.items(), aside.shown, strict=True):
        pieces += separator, _output_json(interface, name, aside), str(list(array.shape)).encode()
        if name in aside.stores:
            pieces.append(b"}")
        elif as_bytes:
            pieces.append(_parameters_json(binary, array))
        else:
            pieces.append(_literals_json(array, terms) if aside.literals else _data_json(array, terms))
        separator = b","
    return _joined(pieces, binary, separator)


def _beginning(head: bytes, request: InferRequest) -> list[Buffer]:
    if not request.id:
        return [head]
    return [head, b'"id":', msgspec.json.encode(request.id), b","]


def _joined(pieces: list[Buffer], binary: list[Buffer], separator: bytes) -> tuple[int | None, list[Buffer]]:
    pieces.append(b"]}" if separator == b"," else b'"outputs":[]}')
    text = b"".join(pieces)
    return (len(text), [text, *binary]) if binary else (None, [text])


def _output_json(interface: Interface, name: str, aside: Aside) -> bytes:
    return output_head(name, Datatype.BYTES) if name in aside.classes else interface.outputs_json[name]


def _parameters_json(binary: list[Buffer], array: Array) -> bytes:
    data = tensors.to_bytes(array)
    binary.append(data)
    return b',"parameters":{"binary_data_size":%d}}' % len(data)


def _data_json(array: Array, terms: Terms) -> bytes:
    """NaN and infinities become null: JSON has no word for them, and numpy reads null as NaN."""
    _check_json(array, terms)
    return b',"data":' + msgspec.json.encode(tensors.to_elements(array)) + b"}"


def _literals_json(array: Array, terms: Terms) -> bytes:
    """NaN and infinities as the caller wrote them itself."""
    _check_json(array, terms)
    return b',"data":' + json.dumps(tensors.to_elements(array)).encode() + b"}"


def _check_json(array: Array, terms: Terms) -> None:
    if array.size > terms.json_elements:
        raise invalid(
            f"expected outputs of at most {terms.json_elements} values in JSON, got one of {array.size}:"
            " ask for it with binary_data"
        )
