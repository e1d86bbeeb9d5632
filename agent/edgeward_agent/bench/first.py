"""Reads the first answer to each case, before the clock runs: whatever says 200 to everything answers nothing.

While the clock runs only the status is looked at, since to read an answer takes longer than some models do.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from edgeward_agent.bench.connection import Connection
from edgeward_agent.bench.errors import CannotMeasure, NobodyThere, ServerLost
from edgeward_agent.bench.silence import words_of
from edgeward_agent.bench.wire import Place
from edgeward_agent.errors import AgentError
from edgeward_contract.schema import ContractError, Fields, parse_json
from edgeward_contract.visible import visible

_LONGEST_S: Final = 1.0
_JSON_BYTES: Final = b"inference-header-content-length"
_SHOWN: Final = 60
_MOST_LATE: Final = 3
_START: Final = "Start it again, and see its own log."
_LOG: Final = "See the server's own log; --input NAME=@FILE.npy shows whether another request fares better."
_INPUT: Final = "Give inputs that the model takes: --input NAME=@FILE.npy, or another --shape."
_ALLOWED: Final = "Send a token that may ask: --header 'Authorization: Bearer …'."
_BUSY: Final = "Measure when nobody else asks, or raise the server's limit."
_ELSEWHERE: Final = (
    "Check the address, and that the model is loaded; a proxy or a log-in may have answered in its place."
)
_NOT_NOW: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: _ALLOWED,
    HTTPStatus.FORBIDDEN: _ALLOWED,
    HTTPStatus.NOT_FOUND: "Check that the model is ready there; see GET /v2/models/NAME/ready.",
    HTTPStatus.REQUEST_TIMEOUT: _BUSY,
    HTTPStatus.TOO_MANY_REQUESTS: _BUSY,
}


class _Reader(Connection):
    """Also keeps where the JSON of an answer ends, which costs a call for each header."""

    json_bytes = ""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.json_bytes = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _JSON_BYTES:
            self.json_bytes = value.decode("latin-1").strip()


def check_answers(name: str, place: Place, model: str, requests: Sequence[bytes], timeout_s: float) -> None:
    """Ask each request once, as many as a second has room for, and read what is answered.

    Args:
        name: of the way of asking, for errors.
        model: as the answers have to call it; empty when any name will do.

    Raises:
        ServerLost: nobody is there, nothing is answered in time, or the server fails.
        CannotMeasure: the server refuses the request, or what it answers is no answer of the model.
    """
    reader = _Reader(place, timeout_s)
    began, answered = time.monotonic(), 0
    try:
        for at in range(max(len(requests), _MOST_LATE)):
            answered += _answered(name, reader, model, requests[at % len(requests)], timeout_s)
            enough = at + 1 >= len(requests) or time.monotonic() - began > _LONGEST_S
            if answered and enough:
                return
            if not answered and at + 1 >= _MOST_LATE:
                raise ServerLost(
                    f"{name}: expected an answer within {timeout_s:g} s, got none to {at + 1} requests",
                    "Give a longer --timeout; a budget beyond it cannot be judged.",
                )
    finally:
        reader.close()


def _answered(name: str, reader: _Reader, model: str, request: bytes, timeout_s: float) -> bool:
    """False when there is nothing in time: the first one may take long, and what is late is no refusal."""
    try:
        _ask(reader, request, timeout_s)
    except TimeoutError:
        reader.close()
        return False
    except NobodyThere as error:
        words = f"no connection could be made, {words_of(error)}"
        raise ServerLost(f"{name}: expected a server that answers, got: {words}", _START) from None
    except ConnectionAbortedError as error:
        raise CannotMeasure(f"{name}: {error}", _ELSEWHERE) from None
    except OSError as error:
        raise ServerLost(f"{name}: expected an answer, got: {words_of(error)}", _LOG) from None
    if refusal := reader.refusal():
        raise _refused(f"{name}: expected an answer, got {refusal}", reader.status)
    if wrong := wrong_with(reader.body, reader.json_bytes, model):
        raise CannotMeasure(f"{name}: expected an answer of the model '{visible(model)}', got {wrong}", _ELSEWHERE)
    return True


def _refused(words: str, status: int) -> AgentError:
    """Whose fault it is: the asker's, the server's, or that of whoever answers in its place."""
    if status in _NOT_NOW:
        return ServerLost(words, _NOT_NOW[status])
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerLost(words, _LOG)
    return CannotMeasure(words, _INPUT if status >= HTTPStatus.BAD_REQUEST else _ELSEWHERE)


def _ask(reader: Connection, request: bytes, timeout_s: float) -> None:
    """Wait for the whole answer. Raises OSError; TimeoutError when it is not there in time."""
    until = time.monotonic() + timeout_s
    reader.begin(request)
    while True:
        left_s = max(0.0, until - time.monotonic())
        readable, writable, _ = select.select([reader], [reader] if reader.sending else [], [], left_s)
        if not readable and not writable:
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        if readable and reader.receive():
            return
        if writable and reader.sending:
            reader.send()


def wrong_with(body: bytes, json_bytes: str, model: str) -> str:
    """Why the body of an answer with status 200 is no answer of the model; empty when it is one. Pure.

    Args:
        json_bytes: the header Inference-Header-Content-Length; empty where all of the body is JSON.
        model: as the answer has to call it; empty when any name will do.
    """
    header = body[: int(json_bytes)] if json_bytes.isdecimal() else body
    try:
        fields = parse_json(header, limit_bytes=len(body))
    except ContractError:
        words = " ".join(body[:300].decode(errors="replace").split())[:_SHOWN]
        return f"status 200 and no JSON: '{visible(words)}'" if words else "status 200 and nothing"
    try:
        return _wrong(fields, len(body) - len(header), model)
    except ContractError as error:
        return f"status 200 and {visible(str(error))}"


def _wrong(fields: Fields, data_bytes: int, model: str) -> str:
    if fields.has("error"):
        return f"status 200 and the error '{visible(str(fields.raw('error'))[:200])}'"
    if not fields.has("outputs") or not (outputs := fields.objects("outputs")):
        return "status 200 and no outputs"
    if model and (found := fields.text("model_name")) != model:
        return f"one of '{visible(found)}'"
    told_bytes = sum(map(_size_bytes, outputs))
    if told_bytes != data_bytes:
        return f"outputs of {told_bytes:,} bytes in an answer that has {data_bytes:,} of them"
    return ""


def _size_bytes(output: Fields) -> int:
    """What follows the JSON for this output; 0 where the JSON holds it. Raises ContractError when nothing does."""
    output.text("name")
    if not output.has("data"):
        return output.object("parameters").integer("binary_data_size", minimum=0)
    if not isinstance(output.raw("data"), list):
        raise ContractError(output.at("data"), "expected a list, got something else")
    return 0
