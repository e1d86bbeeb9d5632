"""What a client says and what it makes of the answer: pure, and the same whatever carries it.

A bedside application asks the same question again and again with other numbers. What is the same, the JSON in front
of the tensors, is made once for each form of question and remembered; so is what the JSON of an answer means
(`forms.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import quote

import numpy as np

from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.arrays import as_array, goes_as_it_is, sendable, size_bytes, tensor
from edgeward_agent.client.errors import (
    ClientError,
    InvalidAddress,
    InvalidRequest,
    ModelNotFound,
    NotAllowed,
    NotRecorded,
    ServerFailed,
    Unavailable,
)
from edgeward_agent.client.forms import Form, Meaning, Part
from edgeward_agent.client.http import Response, retry_after_s
from edgeward_agent.client.wish import Wish, WishFields, check_texts, whole
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array, Buffer, TensorError
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec
from edgeward_contract.schema import ContractError, Fields, JsonValue, parse_json

_REMEMBERED: Final = 64
_OK: Final = int(HTTPStatus.OK)
READY: Final = "/v2/health/ready"
_TOKEN: Final = re.compile(r"[!-~]+")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


Request = bytes | Sequence[Buffer]
"""All of it, or pieces that are to be sent one after the other."""


class Dialogue:
    """The two directions of a conversation with one server. Keeps what was learnt; not to be shared by threads."""

    def __init__(self, address: str, *, token: str | None = None) -> None:
        """Raises InvalidAddress: no header can hold the token."""
        if token not in (None, "") and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise InvalidAddress("expected a token of letters, digits and marks, without the white space around it")
        self._address = address
        self._common = b"Host: localhost\r\n" + (b"Authorization: Bearer %b\r\n" % token.encode() if token else b"")
        self._forms: dict[object, Form] = {}
        self._meanings: dict[bytes, Meaning] = {}

    def ask(self, wish: WishFields, inputs: Mapping[str, Array]) -> tuple[Form, Request]:
        """An inference request: what form it has, and its bytes.

        Raises:
            InvalidRequest: an array of a type that the protocol does not have.
        """
        key: list[object] = [wish]
        arrays: list[Array] = []
        for name, given in inputs.items():
            array = given if given.__class__ is np.ndarray else as_array(name, given)
            key += (name, array.dtype, array.shape)
            arrays.append(array)
        form = self._forms.get(tuple(key))
        if form is not None:
            return form, form.request(arrays)
        return self._ask_new(Wish(*wish), list(inputs), arrays, tuple(key))

    def get(self, path: str) -> bytes:
        """A request without a body."""
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._common)

    def understand(self, form: Form, response: Response) -> Answer:
        """Raises ClientError: one of its kinds."""
        if response.status != _OK:
            raise refusal(response)
        header = bytes(response.body[: response.json_bytes])
        body = response.body if isinstance(response.body, bytearray) else bytearray(response.body)  # may be written to
        try:
            meaning = self._meaning(header)
            answer = _answer(meaning, memoryview(body)[len(header) :])
        except (ContractError, TensorError) as error:
            raise self._not_understood(error) from None
        if not meaning.request_id:
            form.learn(response, meaning)
        return answer

    def understand_model(self, response: Response) -> ModelInfo:
        """Raises ClientError: one of its kinds."""
        return self._understood(response, _model_info)

    def understand_ready(self, response: Response) -> bool:
        """Raises ClientError for any answer but yes and not now."""
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        if response.status != _OK:
            raise refusal(response)
        return True

    def _understood(self, response: Response, read: Callable[[Fields], T]) -> T:
        if response.status != _OK:
            raise refusal(response)
        try:
            return read(parse_json(bytes(response.body)))
        except ContractError as error:
            raise self._not_understood(error) from None

    def _not_understood(self, error: Exception) -> ServerFailed:
        return ServerFailed(f"{self._address}: expected an answer of the protocol, got: {error}")

    def _ask_new(self, wish: Wish, names: Sequence[str], given: Sequence[Array], key: object) -> tuple[Form, Request]:
        check_texts(*names, *wish.outputs, wish.request_id)
        arrays = list(map(sendable, names, given))
        sizes = [size_bytes(each) for each in arrays]
        header = _compose(wish, list(map(tensor, names, arrays, sizes)))
        plain = all(map(goes_as_it_is, given))
        form = Form(self._head(wish, len(header), sum(sizes)) + header, sum(sizes) if plain else None)
        # Text has another length each time, and with an id each question is another.
        if plain and not wish.request_id:
            _remember(self._forms, key, form)
        return form, form.request(arrays)

    def _head(self, wish: Wish, header_bytes: int, binary_bytes: int) -> bytes:
        path = model_path(wish.model, wish.version).encode()
        return b"POST %b/infer HTTP/1.1\r\n%bInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (
            path,
            self._common,
            header_bytes,
            header_bytes + binary_bytes,
        )

    def _meaning(self, header: bytes) -> Meaning:
        meaning = self._meanings.get(header)
        if meaning is None:
            meaning = _read_meaning(header)
            if not meaning.request_id:  # with an id each answer is another
                _remember(self._meanings, header, meaning)
        return meaning


def model_path(model: str, version: int | None) -> str:
    """Raises InvalidRequest: the model's name is none, or the version."""
    check_texts(model)
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{whole('version', version)}"


def refusal(response: Response) -> ClientError:
    """The error that stands for a status."""
    try:
        message = parse_json(bytes(response.body)).text("error", max_length=10_000)
    except ContractError:
        message = f"expected an answer, got status {response.status}"
    error = error_for(response.status, message)
    if isinstance(error, Unavailable):
        error.retry_after_s = retry_after_s(response.head)
    return error


def error_for(status: int, message: str) -> ClientError:
    """The error that stands for a status and what the server said."""
    return _kind(status, message)(message)


def _kind(status: int, message: str) -> type[ClientError]:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return NotRecorded if message.startswith("result not recorded") else Unavailable
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return NotAllowed
    if status == HTTPStatus.NOT_FOUND:
        return ModelNotFound
    client_side = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return InvalidRequest if client_side or status == HTTPStatus.NOT_IMPLEMENTED else ServerFailed


def _compose(wish: Wish, inputs: list[JsonValue]) -> bytes:
    parameters: dict[str, JsonValue] = {"binary_data_output": True}
    if wish.capture is not CaptureMode.OFF:
        parameters["capture"] = wish.capture.value
    if wish.deadline_us:
        parameters["timeout"] = wish.deadline_us
    if wish.priority:
        parameters["priority"] = wish.priority
    request: dict[str, JsonValue] = {"inputs": inputs, "parameters": parameters}
    if wish.request_id:
        request["id"] = wish.request_id
    if wish.outputs:
        request["outputs"] = [{"name": name} for name in wish.outputs]
    return json.dumps(request).encode()


def _read_meaning(header: bytes) -> Meaning:
    fields = parse_json(header)
    return Meaning(
        model=fields.text("model_name"),
        version=fields.text("model_version"),
        request_id=fields.text("id", default="", max_length=len(header)),
        parts=tuple(_read_part(each) for each in fields.objects("outputs")),
    )


def _read_part(fields: Fields) -> Part:
    return Part(
        name=fields.text("name"),
        datatype=fields.choice("datatype", Datatype),
        shape=fields.integers("shape", minimum=0),
        size=fields.object("parameters").integer("binary_data_size", minimum=0),
    )


def _answer(meaning: Meaning, data: memoryview) -> Answer:
    outputs: dict[str, Array] = {}
    at = 0
    for name, datatype, shape, size in meaning.parts:
        array = tensors.from_bytes(datatype, shape, data[at : at + size])
        outputs[name] = tensors.floats_of_bf16(array) if datatype is Datatype.BF16 else array
        at += size
    return Answer(meaning.model, meaning.version, meaning.request_id, outputs)


def _model_info(fields: Fields) -> ModelInfo:
    return ModelInfo(
        name=fields.text("name"),
        versions=fields.texts("versions"),
        inputs=tuple(TensorSpec.read(each) for each in fields.objects("inputs")),
        outputs=tuple(TensorSpec.read(each) for each in fields.objects("outputs")),
    )


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep the newest few; what an application asks are few forms."""
    if len(known) >= _REMEMBERED:
        del known[next(iter(known))]
    known[key] = value
