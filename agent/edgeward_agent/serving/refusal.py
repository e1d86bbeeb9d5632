"""A request that gets an error for an answer. Here alone, because every part of the serving process may refuse."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from edgeward_agent.errors import ServingError
from edgeward_contract.schema import JsonValue


class Refusal(ServingError):
    """A request that gets an error for an answer. `status` is the HTTP status; the message goes to the client."""

    hint = "Compare the request with the model's metadata: GET /v2/models/NAME."
    fields = b""  # more lines for the head of the answer, each with its end

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status

    def document(self) -> dict[str, JsonValue]:
        """The body of the answer."""
        return {"error": str(self)}


class NotReady(Refusal):
    """The answer says `"ready": false` beside the error: KServe's own client reads that, and no status."""

    def __init__(self, status: HTTPStatus, message: str, **of: JsonValue) -> None:
        super().__init__(status, message)
        self._of = of

    def document(self) -> dict[str, JsonValue]:
        return {**self._of, "ready": False, **super().document()}


class Full(Refusal):
    """503: there is no room now. The answer says after how many whole seconds there should be some."""

    hint = "Ask again a little later, and with less at once."

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message)
        self.fields = retry_after(retry_after_s)


def retry_after(seconds: int) -> bytes:
    """The line of a head that says when to ask again (RFC 9110 10.2.3): whole seconds, at least one."""
    return b"Retry-After: %d\r\n" % max(1, seconds)


def invalid(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def not_found(message: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, message)


def too_large(message: str) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def unsupported(message: str) -> Refusal:
    """What the protocol knows and this server does not do, or not here."""
    return Refusal(HTTPStatus.NOT_IMPLEMENTED, message)


def internal_error() -> Refusal:
    """For a bug, which the log tells."""
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: see the log of the serving process")


def error_body(message: str) -> bytes:
    """An error in the form that the protocol asks for."""
    return msgspec.json.encode({"error": message})
