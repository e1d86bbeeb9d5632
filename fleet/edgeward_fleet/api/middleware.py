"""What holds for every request before a route sees it: a limit on its body, and headers for its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeward_fleet.api import problems
from edgeward_fleet.errors import TooLarge

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class BodyLimit:
    """Refuses a body that says that it is too long, and stops reading one that turns out to be."""

    def __init__(self, app: ASGIApp, *, limit_for: Callable[[str, str], int]) -> None:
        self._app = app
        self._limit_for = limit_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limit_for(scope["method"], scope["path"])
        said = Headers(scope=scope).get("content-length", "")
        if said.isdigit() and int(said) > limit:
            answer = problems.response(TooLarge(_words(limit)))
            answer.headers["Connection"] = "close"  # the body is still on its way; nobody will read it
            return await answer(scope, receive, send)
        return await self._app(scope, _counting(receive, limit), send)


class StandardHeaders:
    """Sets headers that a route has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [*message.get("headers", ())]
                names = {name.lower() for name, _ in own}
                message["headers"] = [*own, *(pair for pair in _HEADERS if pair[0] not in names)]
            await send(message)

        await self._app(scope, receive, with_headers)


def _counting(receive: Receive, limit: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise HTTPException(413, _words(limit))  # the only kind that FastAPI lets pass while it reads a body
        return message

    return counted


def _words(limit: int) -> str:
    return f"body: expected at most {limit} bytes, got more"
