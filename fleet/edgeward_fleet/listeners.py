"""Sockets and HTTP servers: bound before anything else is started, stopped without cutting an answer off."""

from __future__ import annotations

import asyncio
import errno
import gc
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgeward_fleet.errors import PortInUse, SettingsError

_KEEP_ALIVE_S: Final = 75  # longer than a poll is parked: a device keeps its connection and saves the handshakes
_GRACE_S: Final = 10
_MAX_CONNECTIONS: Final = 10_000
_MAX_HEAD_BYTES: Final = 64 * 1024
_HEAD_S: Final = 20.0  # from the first byte of a request, or from the connection on
_COLLECT_AFTER: Final = 10_000
MAX_FILES: Final = 3 * _MAX_CONNECTIONS + 1000


def new_loop() -> asyncio.AbstractEventLoop:
    """Uvloop where there is one: asyncio fills 256 KiB for each TLS connection, and every parked poll is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def settle_memory() -> None:
    """What is imported stays, and a thousand parked polls are no garbage: look for it seldom, and not there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def allow_files() -> None:
    """Every parked poll is an open file. Shells and systemd let a process have 1,024, and more when it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system with a bound of its own below the one that it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class PromptProtocol(HttpToolsProtocol):
    """Waits neither for ever nor for everything: two of the ports are open to anybody who reaches them.

    The stock one keeps a head of any length, and a connection on which none comes for as long as the peer likes.
    """

    _head_due: asyncio.TimerHandle | None = None
    _unread_bytes = 0  # since the last head or piece of a body: a line without an end, a trailer, or noise

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > _MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._unread_bytes = 0
        self._forget_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._forget_head()
        self._head_due = self.loop.call_later(_HEAD_S, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    # A polite end of TLS waits for the peer's word, up to 30 s, and an idle client does not listen.
    def shutdown(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.transport.get_write_buffer_size() == 0:
            self.transport.abort()
        else:
            super().shutdown()


class PeerCertificateProtocol(PromptProtocol):
    """Puts the client's certificate where the application finds it: `scope["extensions"]["tls"]`.

    No stock server does. The application refuses a request without it, so a server that is not this one lets nobody in.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert(True) if tls is not None else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate is not None:
            self.scope["extensions"] = {"tls": {"client_certificate_der": self._certificate}}


class Server(uvicorn.Server):
    """A server among others in one loop: who started it handles the signals. `up` is set when it takes connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up: Final = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; connections wait in its queue until a server takes them.

    Raises:
        PortInUse: the address is taken, or not ours to take.
        SettingsError: `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except socket.gaierror:
        raise SettingsError(f"--host: expected an address of this machine, got {host!r}") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"--host: expected an address of this machine, got {host!r}") from None
        if error.errno == errno.EACCES:
            hint = "Choose a port above 1023, or give the service CAP_NET_BIND_SERVICE."
            raise PortInUse(f"{host}:{port}: expected a port that this user may open, it is not", hint=hint) from None
        raise PortInUse(f"{host}:{port}: expected a free port, got: {error.strerror}") from None
    # Accepted connections inherit it; asyncio sets it only for sockets that name TCP as their protocol. Without it an
    # answer in two writes waits 40 ms for the peer's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def server(app: ASGIApp, tls: ssl.SSLContext, *, peer_certificates: bool = False) -> Server:
    """A server for `app`, to be started with its bound socket."""
    config = uvicorn.Config(
        app,
        http=PeerCertificateProtocol if peer_certificates else PromptProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # a request line may hold a secret
        proxy_headers=False,  # who the peer is decides about its rate; a header must not
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=_MAX_CONNECTIONS,
    )
    config.load()
    config.ssl = tls
    return Server(config)
