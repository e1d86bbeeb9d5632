"""Requests to one port of the fleet, and the one place where what can go wrong with them gets its name.

urllib3 blocks, so each call has a thread of its own: there are a handful at a time, and most of them wait. The threads
are daemons, because a name server that does not answer must not hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, SSLError

from edgeward_agent.errors import LinkError, LinkLost, LinkRefused
from edgeward_contract.version import __version__

T = TypeVar("T")

JSON: Final = "application/json"
_AGAIN: Final = frozenset({408, 425, 429})
_PIECE_BYTES: Final = 64 * 1024
_MAX_PROBLEM_BYTES: Final = 64 * 1024
_SLOWEST: Final = 15  # an answer may take this many time-outs in all, however steadily it drips
_LONGEST_RETRY_AFTER_S: Final = 86_400.0


class CertificateNotTaken(LinkLost):
    """The fleet ended the TLS handshake because of the device's certificate."""

    hint = "The device certificate is expired or unknown there: `edgeward-agent doctor` says which; then enrol again."


class FleetNotTrusted(LinkLost):
    """Whoever answers is not the fleet that this device enrolled with, or its certificate ran out."""

    hint = "Check the fleet's address and the device's clock; if the fleet has a new CA, enrol again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A 2xx answer, read to its end. `date_s` is the fleet's time of it, in Unix time; None when it does not say."""

    status: int
    body: bytes
    date_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `wait_s` is how long the fleet may think before it answers, beyond the ordinary time-out."""

    method: str
    path: str
    limit_bytes: int  # of the answer
    body: bytes | None = None
    wait_s: float = 0.0


class Wire:
    """HTTPS requests to one base URL. Safe to use from several tasks; `close` ends every call under way."""

    def __init__(self, base_url: str, context: ssl.SSLContext, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._host, self._port = split_url(base_url)
        self._open: set[HTTPSConnection] = set()
        self._waiting: set[asyncio.Future[Answer]] = set()
        self._pool = self._new_pool(context)

    @property
    def where(self) -> str:
        return f"{self._host}:{self._port}"

    async def request(self, call: Call) -> Answer:
        """Send one request and read the answer to its end.

        Raises:
            LinkLost: nobody answered, or the fleet said later.
            LinkRefused: the fleet said no, or sent more than the call allows.
        """
        future = in_thread(lambda: self.request_blocking(call), name=f"wire {call.method} {call.path}")
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def request_blocking(self, call: Call) -> Answer:
        """The same for a thread that may wait."""
        try:
            return self._exchange(call)
        except (HTTPError, OSError) as error:
            raise self._lost(error) from None

    def use(self, context: ssl.SSLContext) -> None:
        """Take a new certificate into use; calls under way end as they began."""
        old, self._pool = self._pool, self._new_pool(context)
        old.close()

    def close(self) -> None:
        """End every call under way with LinkLost."""
        self._pool.close()
        for future in tuple(self._waiting):
            if not future.done():
                future.set_exception(LinkLost(f"fleet at {self.where}: the link was closed"))
        for connection in tuple(self._open):
            _shut(connection)

    def _exchange(self, call: Call) -> Answer:
        response = self._pool.urlopen(
            call.method,
            call.path,
            body=call.body,
            headers=_headers(call.body),
            timeout=urllib3.Timeout(connect=self._timeout_s, read=self._timeout_s + call.wait_s),
            preload_content=False,
            redirect=False,
        )
        try:
            if 200 <= response.status < 300:
                body = self._read(response, call.limit_bytes, self._timeout_s + call.wait_s)
                return Answer(status=response.status, body=body, date_s=_date_s(response.headers))
            raise self._refusal(response)
        except BaseException:
            response.close()  # what is left of the answer is not worth reading
            raise
        finally:
            response.release_conn()

    def _read(self, response: urllib3.BaseHTTPResponse, limit_bytes: int, timeout_s: float) -> bytes:
        pieces, size = [], 0
        deadline = time.monotonic() + timeout_s * _SLOWEST
        while piece := response.read1(_PIECE_BYTES, decode_content=False):
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                raise LinkRefused(f"fleet at {self.where}: expected at most {limit_bytes} bytes, got more")
            if time.monotonic() > deadline:
                raise LinkLost(f"fleet at {self.where}: expected the answer within {timeout_s * _SLOWEST:.0f} s")
        return b"".join(pieces)

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> LinkError:
        status = response.status
        detail, hint = _problem(self._read_page(response))
        text = f"fleet at {self.where}: {detail or response.reason or 'no reason given'} ({status})"
        error: LinkError
        if status in _AGAIN or status >= 500:
            error = LinkLost(text, retry_after_s=_retry_after_s(response.headers))
        else:
            error = LinkRefused(text, status=status)
        if hint:
            error.hint = hint
        return error

    def _read_page(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """What comes with an error; nothing of one that is too large: the status says enough."""
        try:
            return self._read(response, _MAX_PROBLEM_BYTES, self._timeout_s)
        except LinkRefused:
            return b""

    def _lost(self, error: HTTPError | OSError) -> LinkLost:
        cause: BaseException = error
        while isinstance(cause, SSLError) and cause.args and isinstance(cause.args[0], BaseException):
            cause = cause.args[0]
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FleetNotTrusted(f"fleet at {self.where}: {cause.verify_message or cause}")
        if isinstance(cause, ssl.SSLError) and "alert" in str(cause).lower():
            return CertificateNotTaken(f"fleet at {self.where}: refused the TLS connection ({_tls_words(cause)})")
        return LinkLost(f"fleet at {self.where}: expected an answer, got {_words(cause)}")

    def _new_pool(self, context: ssl.SSLContext) -> urllib3.HTTPSConnectionPool:
        pool = urllib3.HTTPSConnectionPool(self._host, self._port, ssl_context=context, maxsize=4, retries=False)
        opened = self._open

        class Tracked(HTTPSConnection):
            """Known while it is open, so that `close` can end a call that waits on it."""

            def connect(self) -> None:
                opened.add(self)
                super().connect()

            def close(self) -> None:
                opened.discard(self)
                super().close()

        pool.ConnectionCls = Tracked
        return pool


def in_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Run `work` in a daemon thread. Cancelling the future leaves the thread to end by itself, unheard."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only when T is

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def split_url(url: str) -> tuple[str, int]:
    """Host and port of `https://host:port`. Raises LinkRefused for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise LinkRefused(f"fleet address: expected https://host:port, got {url!r} ({error})") from None
    if parts.scheme != "https" or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise LinkRefused(f"fleet address: expected https://host:port, got {url!r}")
    return host, port


def _headers(body: bytes | None) -> dict[str, str]:
    headers = {"user-agent": f"edgeward-agent/{__version__}", "accept-encoding": "identity"}
    return headers if body is None else {**headers, "content-type": JSON}


def _problem(body: bytes) -> tuple[str, str]:
    """The detail and the hint of a problem+json document (RFC 9457), as far as it is one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    return _line(document.get("detail") or document.get("title")), _line(document.get("hint"))


def _line(value: object) -> str:
    return " ".join(value.split())[:500] if isinstance(value, str) else ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3); None when absent or nonsense."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):  # a year that no clock has
        return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)


def _date_s(headers: Mapping[str, str]) -> float | None:
    """RFC 9110, section 6.6.1; None when absent or nonsense."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        return None


def _shut(connection: HTTPSConnection) -> None:
    """Wake a thread that reads from it. The plain socket's shutdown: the TLS object belongs to that thread."""
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _tls_words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _words(error: BaseException) -> str:
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "no address for its name"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return re.sub(r"^\[errno \d+\] ", "", str(error).rpartition(": ")[2].lower())
    if isinstance(error, urllib3.exceptions.IncompleteRead):
        return "half of one"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "none: the connection was closed"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "none in time"
    return " ".join(str(error).split())[:200] or type(error).__name__
