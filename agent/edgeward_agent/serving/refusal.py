"""A request that gets an error for an answer. Here alone, because every part of the serving process may refuse."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from edgeward_agent.errors import ServingError


class Refusal(ServingError):
    """A request that gets an error for an answer. `status` is the HTTP status; the message goes to the client."""

    hint = "Compare the request with the model's metadata: GET /v2/models/NAME."
    fields = b""  # more lines for the head of the answer, each with its end

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def invalid(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def not_found(message: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, message)


def too_large(message: str) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def unsupported(message: str) -> Refusal:
    """What the protocol knows and this server does not do, or not here."""
    return Refusal(HTTPStatus.NOT_IMPLEMENTED, message)


def error_body(message: str) -> bytes:
    """An error in the form that the protocol asks for."""
    return msgspec.json.encode({"error": message})
