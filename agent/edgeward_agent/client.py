"""The client of bedside applications: numpy arrays in, numpy arrays out. Needs the standard library and numpy alone.

with Client("unix:/var/lib/edgeward/socket/serving.sock") as client:
    answer = client.infer("wdbc-risk", {"features": features})
    risk = answer["probability"]
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from edgeward_agent.errors import AgentError
from edgeward_agent.serving import tensors
from edgeward_agent.serving.tensors import Array, Buffer, TensorError
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec
from edgeward_contract.schema import ContractError, Fields, JsonValue, parse_json

_INFERENCE_LENGTH: Final = "Inference-Header-Content-Length"
T = TypeVar("T")


class ClientError(AgentError):
    """A request that got no answer."""

    hint = "Ask the server what it serves: GET /v2/models/NAME."


class Unreachable(ClientError):
    """Nobody answers at the address, or not in time. Worth a retry."""

    hint = "Check that `edgeward-agent run` or `serve` runs, and its address."


class InvalidRequest(ClientError):
    """The server does not understand the request: a wrong tensor name, shape or datatype. A retry gives the same."""


class ModelNotFound(ClientError):
    """The server has no such model, or not this version of it."""


class Unavailable(ClientError):
    """The server is busy or not ready. Worth a retry, after a moment."""

    hint = "Try again in a moment; if it stays so, look at `edgeward-agent status`."


class NotRecorded(Unavailable):
    """The model answered, but the result could not be committed as was asked, so it was withheld."""

    hint = "See `edgeward-agent status`: the outbox may be full. With capture off the answer does not wait for it."


class ServerFailed(ClientError):
    """The model or the server failed on this request."""

    hint = "See the log of the serving process."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said, and which version of it. `answer["name"]` is an output."""

    model: str
    version: str
    request_id: str
    outputs: Mapping[str, Array]

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a model takes and gives; -1 in a shape is a free dimension."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Client:
    """A connection to a server, opened when it is needed and again when it was lost. Not to be shared by threads.

    Args:
        address: `http://127.0.0.1:8500`, or `unix:/path/of/the.sock` (quicker, and guarded by the file's mode).
        timeout_s: for each wait on the network, not for a whole request.
    """

    def __init__(self, address: str = "http://127.0.0.1:8500", *, timeout_s: float = 10.0) -> None:
        self._address = address
        self._connection = _connection(address, timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        capture: CaptureMode = CaptureMode.OFF,
    ) -> Answer:
        """Run a model.

        Args:
            inputs: arrays by input name; text as an array of str.
            version: a version that is in memory; without it the one that answers now.
            outputs: names of those wanted; all without it.
            capture: asks for more recording than the release does; DURABLE returns after the commit.

        Raises:
            ClientError: one of its kinds, see there.
        """
        header, binary = _infer_request(inputs, outputs, request_id, capture)
        path = _model_path(model, version) + "/infer"
        answer_header, data = self._exchange("POST", path, b"".join((header, *binary)), len(header))
        return self._understood(lambda: _answer(answer_header, data))

    def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        """Raises ClientError."""
        header, _ = self._exchange("GET", _model_path(model, version))
        return self._understood(lambda: _model_info(parse_json(header)))

    def ready(self) -> bool:
        """Whether the server is there and every model that it should have can answer."""
        try:
            self._exchange("GET", "/v2/health/ready")
        except (Unavailable, Unreachable):
            return False
        return True

    def _exchange(self, method: str, path: str, body: bytes = b"", header_length: int = 0) -> tuple[bytes, bytes]:
        headers = {_INFERENCE_LENGTH: str(header_length)} if header_length else {}
        try:
            response = self._send(method, path, body, headers)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unreachable(f"{self._address}: expected an answer, got: {_reason(error)}") from None
        if response.status != HTTPStatus.OK:
            raise _refusal(response.status, content)
        length = response.headers.get(_INFERENCE_LENGTH, "")
        if not length.isdecimal():
            return content, b""
        return content[: int(length)], content[int(length) :]

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Ask, and once more on a new connection when the kept one turns out to be closed, as after a restart of the
        server. Asking twice is safe: an inference changes nothing but the count of its records.
        """
        kept = self._connection.sock is not None
        try:
            self._connection.request(method, path, body, headers)
            return self._connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            self._connection.close()
            if not kept:
                raise
        self._connection.request(method, path, body, headers)
        return self._connection.getresponse()

    def _understood(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (ContractError, TensorError) as error:
            raise ServerFailed(f"{self._address}: expected an answer of the protocol, got: {error}") from None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


def _connection(address: str, timeout_s: float) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:").removeprefix("//"), timeout_s)
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidRequest(f"expected http://HOST:PORT or unix:PATH, got {address!r}")
    return http.client.HTTPConnection(parts.hostname, parts.port or 8500, timeout=timeout_s)


def _infer_request(
    inputs: Mapping[str, Array], outputs: Sequence[str], request_id: str, capture: CaptureMode
) -> tuple[bytes, list[Buffer]]:
    tensors_json: list[JsonValue] = []
    binary: list[Buffer] = []
    for name, array in inputs.items():
        document, data = _tensor(name, np.asarray(array))
        tensors_json.append(document)
        binary.append(data)
    parameters: dict[str, JsonValue] = {"binary_data_output": True}
    if capture is not CaptureMode.OFF:
        parameters["capture"] = capture.value
    request: dict[str, JsonValue] = {"inputs": tensors_json, "parameters": parameters}
    if request_id:
        request["id"] = request_id
    if outputs:
        request["outputs"] = [{"name": name} for name in outputs]
    return json.dumps(request).encode(), binary


def _tensor(name: str, array: Array) -> tuple[JsonValue, Buffer]:
    if array.dtype.kind in "US":
        array = array.astype(object)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in tensors.DATATYPE:
        raise InvalidRequest(f"input '{name}': expected an array of a type that the protocol has, got {array.dtype}")
    data = tensors.to_bytes(array.astype(dtype, copy=False))
    parameters: dict[str, JsonValue] = {"binary_data_size": len(data)}
    document: dict[str, JsonValue] = {
        "name": name,
        "datatype": tensors.DATATYPE[dtype].value,
        "shape": list(array.shape),
        "parameters": parameters,
    }
    return document, data


def _answer(header: bytes, data: bytes) -> Answer:
    fields = parse_json(header)
    outputs: dict[str, Array] = {}
    at = 0
    for each in fields.objects("outputs"):
        size = each.object("parameters").integer("binary_data_size", minimum=0)
        shape = each.integers("shape", minimum=0)
        outputs[each.text("name")] = tensors.from_bytes(each.choice("datatype", Datatype), shape, data[at : at + size])
        at += size
    return Answer(
        model=fields.text("model_name"),
        version=fields.text("model_version"),
        request_id=fields.text("id", default=""),
        outputs=outputs,
    )


def _model_info(fields: Fields) -> ModelInfo:
    return ModelInfo(
        name=fields.text("name"),
        versions=fields.texts("versions"),
        inputs=tuple(TensorSpec.read(each) for each in fields.objects("inputs")),
        outputs=tuple(TensorSpec.read(each) for each in fields.objects("outputs")),
    )


def _model_path(model: str, version: int | None) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _refusal(status: int, content: bytes) -> ClientError:
    try:
        message = parse_json(content).text("error", max_length=10_000)
    except ContractError:
        message = f"expected an answer, got status {status}"
    if status == HTTPStatus.NOT_FOUND:
        return ModelNotFound(message)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return NotRecorded(message) if message.startswith("result not recorded") else Unavailable(message)
    return ServerFailed(message) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else InvalidRequest(message)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
