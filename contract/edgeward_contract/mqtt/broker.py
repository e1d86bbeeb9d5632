"""Where a broker is, how to connect to it, and what its reason codes mean to us. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

FAILURE: Final = 0x80  # from here on every reason code is one (MQTT 5, section 2.4)
NOBODY_LISTENS: Final = 0x10  # a success to MQTT, and the loss of the message to us
MAX_PAYLOAD_BYTES: Final = 128 * 1024
"""What our own broker configuration takes, and what the narrowest broker service takes."""

_NOT_ALLOWED: Final = frozenset({0x86, 0x87, 0x8A, 0x8C, 0x98})
_TOO_LARGE: Final = 0x95
_WORDS: Final = {
    0x81: "malformed packet",
    0x82: "protocol error",
    0x84: "it does not speak MQTT 5",
    0x85: "client id not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "it is shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep-alive time-out",
    0x8E: "another connection has taken over the session",
    0x8F: "topic filter not valid",
    0x90: "topic name not valid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "disconnected by an administrator",
    0x9F: "connection rate exceeded",
}
_PORTS: Final = {"mqtts": 8883, "wss": 443}


class BrokerError(Exception):
    """The broker said no, or nothing."""


class BrokerLost(BrokerError):
    """Nobody answered, or not now: a retry is worth it."""


class CertificateRefused(BrokerLost):
    """The broker ended the TLS connection because of our certificate."""


class BrokerNotTrusted(BrokerLost):
    """The broker's certificate is not one of the fleet's CA, or not for this name."""


class BrokerRefused(BrokerError):
    """Understood, and not allowed."""


class PacketTooLarge(BrokerError):
    """More than the broker takes in one packet: nothing but a smaller message helps."""


def failure(what: str, code: int) -> BrokerError:
    """The error that the reason code `code` stands for."""
    text = f"{what}: expected success, got: {_WORDS.get(code, 'a failure')} ({code:#04x})"
    if code in _NOT_ALLOWED:
        return BrokerRefused(text)
    return PacketTooLarge(text) if code == _TOO_LARGE else BrokerLost(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """`mqtts://host:8883`, or `wss://host:443/mqtt` for sites with only port 443."""

    host: str
    port: int
    transport: Literal["tcp", "websockets"] = "tcp"
    path: str = "/mqtt"

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Raises ValueError that says what was expected."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = SplitResult("", "", "", "", ""), None, None
        odd = parts.query or parts.username or (parts.scheme == "mqtts" and parts.path not in ("", "/"))
        if parts.scheme not in _PORTS or not host or odd:
            raise ValueError(f"expected mqtts://HOST:PORT or wss://HOST:PORT/PATH, got {url!r}")
        return cls(
            host=host,
            port=port or _PORTS[parts.scheme],
            transport="websockets" if parts.scheme == "wss" else "tcp",
            path=parts.path or "/mqtt",
        )

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtts://{host}:{self.port}" if self.transport == "tcp" else f"wss://{host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says for us when we go without a word. Retained, QoS 1."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to connect. With `session_expiry_s` 0 the broker keeps nothing for us between two connections."""

    client_id: str
    session_expiry_s: int
    timeout_s: float
    keepalive_s: int = 30
    will: Will | None = None
