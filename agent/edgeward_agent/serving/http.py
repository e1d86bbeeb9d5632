"""The HTTP server of the serving process: who may ask, when time is up, how it ends."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import httptools

from edgeward_agent.addresses import is_address, is_loopback
from edgeward_agent.serving.access import is_probe, refused
from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.connection import Connection
from edgeward_agent.serving.exchange import (
    AUTHORIZATION,
    HOST,
    ORIGIN,
    Guard,
    Handler,
    Headers,
    Limits,
    ServerState,
    has_body,
)
from edgeward_agent.serving.loop import serve_unix
from edgeward_agent.serving.refusal import Refusal, invalid
from edgeward_agent.serving.sockets import BACKLOG

_KNOWN_HOSTS: Final = 64
_POLL_S: Final = 0.01
_LINGER_S: Final = 0.2  # at the end, for clients that have their answers to leave by themselves


class HttpServer:
    """Serves one handler on any number of listening sockets."""

    def __init__(self, handler: Handler, limits: Limits | None = None, callers: Callers | None = None) -> None:
        """Args:
        callers: where connections are counted, if anybody wants to know.
        """
        self.state = ServerState(handler, limits or Limits(), callers)
        self._listeners: list[asyncio.Server] = []

    async def listen(self, listener: socket.socket) -> None:
        """Accept from a socket that is bound already. Who may ask depends on its family."""
        if listener.family == socket.AF_UNIX:
            server = await serve_unix(self._factory(no_guard), listener, BACKLOG)
        else:
            local_only = is_loopback(listener.getsockname()[0])
            guard = TcpGuard(HostGuard(local_only=local_only), self.state.limits.token)
            factory = self._factory(guard, strangers=bool(self.state.limits.token))
            server = await self._loop().create_server(factory, sock=listener, backlog=BACKLOG)
        self._listeners.append(server)

    async def keep_time(self) -> None:
        """End connections whose time is up. One sweep a second costs less than a timer for each request."""
        limits = self.state.limits
        period_s = min(1.0, limits.request_s / 4, limits.linger_s / 2)
        while True:
            await asyncio.sleep(period_s)
            now = self._loop().time()
            for connection in (*self.state.connections, *self.state.turned_away):
                connection.check_time(now)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, answer what has been asked, then close; what is not done in time is cut."""
        self.state.closing = True
        for listener in self._listeners:
            listener.close()
        self.state.emptied.clear()
        for connection in tuple(self.state.connections):
            connection.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(each.said_all for each in self.state.connections):  # noqa: ASYNC110  # once, at the end
                    await asyncio.sleep(_POLL_S)
                if self.state.connections:
                    await asyncio.wait_for(self.state.emptied.wait(), _LINGER_S)
        for connection in (*self.state.connections, *self.state.turned_away):
            connection.abort()

    def _factory(self, guard: Guard, *, strangers: bool = False) -> _Factory:
        return _Factory(self.state, guard, strangers=strangers)

    @staticmethod
    def _loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()


class _Factory:
    def __init__(self, state: ServerState, guard: Guard, *, strangers: bool) -> None:
        self._state = state
        self._guard = guard
        self._strangers = strangers

    def __call__(self) -> Connection:
        return Connection(self._state, self._guard, stranger=self._strangers)


def no_guard(target: bytes, headers: Headers) -> None:
    """For unix sockets: the file's mode says who may ask, and no web page can open one."""


class TcpGuard:
    """Keeps web pages away, and who does not show the token, where there is one."""

    def __init__(self, check_host: HostGuard, token: bytes) -> None:
        self._check_host = check_host
        self._token = token

    def __call__(self, target: bytes, headers: Headers) -> Refusal | None:
        self._check_host(headers)
        if is_probe(target) and not has_body(headers):
            return None
        return refused(headers.get(AUTHORIZATION), self._token)


class HostGuard:
    """Keeps web pages away from the port.

    A POST without Content-Type needs no leave from the browser, so any page could ask for inferences; a name of the
    attacker's that resolves to 127.0.0.1 would even let it read the answers. The first sends Origin, the second Host.
    A port that was opened to other machines takes any address for a Host, but still no name.
    """

    def __init__(self, *, local_only: bool) -> None:
        self._local_only = local_only
        self._accepted: set[bytes] = set()

    def __call__(self, headers: Headers) -> None:
        host = headers.get(HOST)
        if host not in self._accepted:
            self._check_host(host)
        origin = headers.get(ORIGIN)
        if origin is not None and origin != b"http://" + (host or b""):
            raise Refusal(HTTPStatus.FORBIDDEN, "expected no Origin but this server's own: web pages may not ask here")

    def _check_host(self, host: bytes | None) -> None:
        if host is None:
            raise invalid("expected a Host header, got none")
        if not self._is_ours(_name(host)):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                f"expected Host localhost or a loopback address, got {host[:100].decode('latin-1')!r}",
            )
        if len(self._accepted) < _KNOWN_HOSTS:
            self._accepted.add(host)

    def _is_ours(self, name: str) -> bool:
        return is_loopback(name) or (not self._local_only and is_address(name))


def _name(host: bytes) -> str:
    """The name without the port; empty when it is none."""
    if any(mark in host for mark in b"@/?#\\"):  # `user@` and a path would parse, but are no part of a Host
        return ""
    try:
        return str(httptools.parse_url(b"http://" + host + b"/").host.decode())
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, AttributeError):
        return ""
