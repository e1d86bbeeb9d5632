"""Requests as bytes and answers as tensors, in the three forms that the servers speak. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

Tensors = Mapping[str, npt.NDArray[np.generic]]

_DATATYPES: Final = {"float32": "FP32", "int64": "INT64"}
_NUMPY: Final[dict[str, np.dtype[np.generic]]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
_LENGTH_HEADER: Final = "inference-header-content-length"


class Form(StrEnum):
    """How tensors travel: Open Inference Protocol v2 with bytes, the same in JSON, or a user's own JSON."""

    V2_BINARY = "V2, binary"
    V2_JSON = "V2, JSON"
    OWN_JSON = "JSON"


class WrongAnswer(Exception):
    """A server answered with something else than the model's outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how a server is asked. `argument` renames the model's one input (BentoML: a parameter's name)."""

    path: str
    form: Form
    argument: str = ""


def v2(model: str, form: Form) -> Endpoint:
    """The path that the protocol gives a model."""
    return Endpoint(path=f"/v2/models/{model}/infer", form=form)


def request(endpoint: Endpoint, inputs: Tensors) -> bytes:
    """A whole HTTP request, ready to be sent again and again."""
    if endpoint.form is Form.V2_BINARY:
        header, data = _binary(inputs)
        extra = (f"Inference-Header-Content-Length: {len(header)}", "Content-Type: application/octet-stream")
        return _http(endpoint.path, header + data, *extra)
    document = _document(inputs) if endpoint.form is Form.V2_JSON else _nested(inputs, endpoint.argument)
    return _http(endpoint.path, _json(document), "Content-Type: application/json")


def outputs(endpoint: Endpoint, answer: bytes) -> Tensors:
    """The tensors of an HTTP answer.

    Raises:
        WrongAnswer: it is none, or it does not say what its tensors are.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        if endpoint.form is Form.OWN_JSON:
            return {name: np.asarray(value) for name, value in json.loads(body).items()}
        return _v2_outputs(_length(head, len(body)), body)
    except (ValueError, KeyError, TypeError) as error:
        raise WrongAnswer(f"expected the outputs of a model, got {answer[:300]!r} ({error})") from None


def difference(expected: Tensors, got: Tensors) -> float:
    """The largest distance of any element from what was expected.

    Raises:
        WrongAnswer: a tensor is missing or has another number of elements.
    """
    largest = 0.0
    for name, tensor in expected.items():
        if name not in got or got[name].size != tensor.size:
            raise WrongAnswer(f"expected {name} of {tensor.size} elements, got {sorted(got)}")
        distance = np.abs(got[name].astype(np.float64).ravel() - tensor.astype(np.float64).ravel())
        largest = max(largest, float(distance.max(initial=0.0)))
    return largest


def _http(path: str, body: bytes, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


def _binary(inputs: Tensors) -> tuple[bytes, bytes]:
    data = {name: np.ascontiguousarray(tensor).tobytes() for name, tensor in inputs.items()}
    described = [_described(name, tensor) for name, tensor in inputs.items()]
    heads = [each | {"parameters": {"binary_data_size": len(data[str(each["name"])])}} for each in described]
    return _json({"parameters": {"binary_data_output": True}, "inputs": heads}), b"".join(data.values())


def _document(inputs: Tensors) -> dict[str, object]:
    return {"inputs": [_described(name, tensor) | {"data": _flat(tensor)} for name, tensor in inputs.items()]}


def _described(name: str, tensor: npt.NDArray[np.generic]) -> dict[str, object]:
    return {"name": name, "shape": list(tensor.shape), "datatype": _DATATYPES[tensor.dtype.name]}


def _nested(inputs: Tensors, argument: str) -> dict[str, object]:
    return {argument or name: np.reshape(_flat(tensor), tensor.shape).tolist() for name, tensor in inputs.items()}


def _flat(tensor: npt.NDArray[np.generic]) -> list[float]:
    """The shortest decimals that give the same float32: what a client that knows its numbers would send."""
    return [float(str(value)) for value in tensor.ravel()]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _length(head: bytes, body_bytes: int) -> int:
    """Bytes of the JSON part of a V2 answer."""
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == _LENGTH_HEADER:
            return int(value)
    return body_bytes


def _v2_outputs(length: int, body: bytes) -> Tensors:
    found, rest = {}, memoryview(body)[length:]
    for each in json.loads(body[:length])["outputs"]:
        size = each.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[each["name"]] = np.asarray(each["data"])
        else:
            found[each["name"]] = np.frombuffer(bytes(rest[:size]), _NUMPY[each["datatype"]])
            rest = rest[size:]
    return found
