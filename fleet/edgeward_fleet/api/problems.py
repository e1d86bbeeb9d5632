"""Every error leaves as `application/problem+json` (RFC 9457): type, title, status, detail, hint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from edgeward_contract.schema import ContractError
from edgeward_fleet.errors import BadRequest, FleetError, Invalid, NotFound, TooLarge, TooMany, Unauthenticated

_log: Final = logging.getLogger(__name__)
_MEDIA_TYPE: Final = "application/problem+json"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Problem(BaseModel):
    """RFC 9457, with `hint`: what the person can do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str


def problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    """What a route may answer besides success, for its `responses=`."""
    content = {_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem, also those that no route has seen."""
    app.add_exception_handler(FleetError, _fleet_error)
    app.add_exception_handler(ContractError, _contract_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)
    _publish_schema(app)


def response(error: FleetError) -> JSONResponse:
    problem = Problem(title=error.title, status=error.status, detail=str(error), hint=error.hint)
    headers = {}
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(), error.status, headers, media_type=_MEDIA_TYPE)


def _fleet_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FleetError)
    if error.status >= 500:
        _log.error("%s: %s", type(error).__name__, error, exc_info=error)
    return response(error)


def _contract_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ContractError)
    return response(BadRequest(str(error), hint=error.hint))


def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    """Names each place and what was expected there; never the value, which may be a password."""
    assert isinstance(error, RequestValidationError)
    if any(each["type"] == "json_invalid" for each in error.errors()):
        return response(BadRequest("body: expected JSON, got something else"))
    return response(Invalid("; ".join(_sentence(each["loc"], each["msg"]) for each in error.errors()[:5])))


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place if part not in ("body", "query", "path")) or "body"
    words = message.replace("Input should be", "expected").replace("Field required", "expected a value, got nothing")
    return f"{where}: {words}"


def _http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself says: no such route, no such method, a body that is too large."""
    assert isinstance(error, HTTPException)
    answer = response(_from_http(request, error))
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods_of(request))
    return answer


def _methods_of(request: Request) -> list[str]:
    """What this path takes (RFC 9110 section 15.5.6); the framework names those of the first route that fits alone."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    return [method for method, scope in scopes.items() if any(each.matches(scope)[0] is Match.FULL for each in routes)]


def _from_http(request: Request, error: HTTPException) -> FleetError:
    if error.status_code == 404:
        return NotFound(f"{request.method} {request.url.path}: expected a path of this port, there is no such one")
    if error.status_code == 413:
        return TooLarge(str(error.detail))
    framed = FleetError(f"{request.method} {request.url.path}: {error.detail}", hint=BadRequest.hint)
    framed.status = error.status_code
    framed.title = HTTPStatus(error.status_code).phrase
    return framed


def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    """A bug. The server logs it with its trace; the caller learns nothing of the inside."""
    return response(FleetError("the fleet could not do this because of a fault of its own"))


def _publish_schema(app: FastAPI) -> None:
    """Put `Problem` where `problems()` points: no route returns it, so FastAPI would leave it out."""
    original = app.openapi

    def openapi() -> dict[str, object]:
        document: dict[str, object] = original()
        components = document.setdefault("components", {})
        assert isinstance(components, dict)
        schemas: Mapping[str, object] = components.setdefault("schemas", {})
        if isinstance(schemas, dict):
            schemas.setdefault("Problem", Problem.model_json_schema())
        return document

    app.openapi = openapi  # type: ignore[method-assign]
