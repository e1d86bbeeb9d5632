"""One connection to a broker, driven by the event loop of its user.

paho's own network thread is not used. In 1.6.1 it dies with an uncaught SSLError when TLS 1.3 tells, after the
handshake, that the client's certificate is not wanted, and it never reconnects. Connections are not repaired here
either: whoever needs one opens the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeward_contract.mqtt import client as paho
from edgeward_contract.mqtt.broker import (
    FAILURE,
    NOBODY_LISTENS,
    BrokerAddress,
    BrokerError,
    BrokerLost,
    BrokerNotTrusted,
    CertificateRefused,
    Options,
    failure,
)

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_TICK_S: Final = 2.0  # how often paho looks at its keep-alive
_GOODBYE_S: Final = 1.0
_ENVELOPE_BYTES: Final = 64  # of a PUBLISH around topic and payload, with room for its properties

OnMessage = Callable[[str, bytes, bool], None]
"""Topic, payload, and whether the broker had kept it: true only of what was there before we subscribed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the broker has not acknowledged yet, and since when it knows."""

    at_s: float
    answer: asyncio.Future[list[int]]


class Connection:
    """From CONNECT to its end. `open` makes one; `ended` is settled with the reason when it is over.

    Belongs to the event loop that opened it and may not be used from another thread.
    """

    def __init__(self, address: BrokerAddress, tls: ssl.SSLContext, options: Options, on_message: OnMessage) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self.ended: Final[asyncio.Future[BrokerError]] = self._loop.create_future()
        self._where: Final = f"broker at {address.where}"
        self._client: Final[Client] = paho.new_client(address, tls, options, self)
        self._on_message: Final = on_message
        self._accepted: Final[asyncio.Future[None]] = self._loop.create_future()
        self._timeout_s: Final = options.timeout_s
        self._answers: Final[dict[int, _Asked]] = {}  # oldest first
        self._max_packet_bytes: int | None = None
        self._written: Final = asyncio.Event()
        self._attached = False
        self._last_words = ""
        self._tick: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls, address: BrokerAddress, tls: ssl.SSLContext, options: Options, on_message: OnMessage
    ) -> Connection:
        """Connect and wait for the broker's word. A session that the broker has kept goes on.

        Raises:
            BrokerLost: nobody answered in time, or TLS came to nothing.
            BrokerRefused: the broker does not want this client.
        """
        connection = cls(address, tls, options, on_message)
        try:
            async with asyncio.timeout(options.timeout_s):
                await connection._dial(lambda: paho.dial(connection._client, address, tls, options))
                await asyncio.shield(connection._accepted)
        except TimeoutError:
            raise connection._end(connection._lost("none in time")) from None
        except BaseException:
            connection._end(connection._lost("none yet, and waited no longer"))
            raise
        return connection

    def room(self, topic: str, limit_bytes: int) -> int:
        """How many bytes a message on `topic` may have: at most `limit_bytes`, and what the broker said."""
        if self._max_packet_bytes is None:
            return limit_bytes
        return min(limit_bytes, self._max_packet_bytes - len(topic.encode()) - _ENVELOPE_BYTES)

    async def subscribe(self, *topics: str) -> None:
        """QoS 1. Raises BrokerLost, or BrokerRefused when the broker denies one of them.

        A broker that does not answer for as long as it may take to connect ends the connection, here and in `publish`.
        """
        self._check()
        codes = await self._answer(paho.subscribe(self._client, topics))
        for topic, code in zip(topics, codes, strict=True):
            if code >= FAILURE:
                raise failure(f"{self._where}: subscription to {topic}", code)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> bool:
        """QoS 1; returns when the broker has it: whether somebody listens, which says nothing about who has read it.

        Raises:
            BrokerLost: the connection ended.
            BrokerRefused: not allowed.
            PacketTooLarge: nothing but a smaller message helps.
        """
        self._check()
        (code,) = await self._answer(paho.publish(self._client, topic, payload, retain=retain, expiry_s=expiry_s))
        if code >= FAILURE:
            raise failure(f"{self._where}: message on {topic}", code)
        return code != NOBODY_LISTENS

    async def close(self, *, with_will: bool = False) -> None:
        """Say good-bye; with `with_will` the broker speaks our will all the same."""
        if not self.ended.done():
            self._last_words = "a closed connection"
            paho.say_goodbye(self._client, with_will=with_will)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._written.wait()
        self._end(BrokerLost(f"{self._where}: the connection was closed"))

    # What paho tells: see `client.Listener`.

    def heard_connack(self, code: int, max_packet_bytes: int | None) -> None:
        self._max_packet_bytes = max_packet_bytes
        if code >= FAILURE:
            self._end(failure(f"{self._where}: connection", code))
        elif not self._accepted.done():
            self._accepted.set_result(None)

    def heard_answer(self, message_id: int, codes: list[int]) -> None:
        asked = self._answers.pop(message_id, None)
        if asked is not None and not asked.answer.done():
            asked.answer.set_result(codes)

    def heard_message(self, topic: str, payload: bytes, retained: bool) -> None:
        self._on_message(topic, payload, retained)

    def heard_disconnect(self, code: int) -> None:
        if code >= FAILURE:
            self._end(failure(f"{self._where}: connection", code))
        else:
            self._end(self._lost(self._last_words or "a cut connection"))

    def heard_log(self, words: str) -> None:
        """2.x tells nobody but its log why a socket failed."""
        if "socket" in words:
            self._last_words = words.partition(": ")[2]

    def wants_to_write(self, descriptor: int) -> None:
        if self._attached:
            self._written.clear()
            self._loop.add_writer(descriptor, self._work, self._client.loop_write)

    def has_written(self, descriptor: int) -> None:
        if self._attached:
            self._written.set()
            self._loop.remove_writer(descriptor)

    def closes_socket(self, descriptor: int) -> None:
        if self._attached:
            self._attached = False
            self._written.set()
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

    # Between paho's socket and the event loop.

    async def _dial(self, dial: Callable[[], None]) -> None:
        """Connect in a thread, because paho blocks there until TLS is done; then the socket belongs to the loop."""
        done: asyncio.Future[None] = self._loop.create_future()

        def tell(error: Exception | None) -> None:
            if done.cancelled():
                self._shut()  # nobody waits any more
            elif error is not None:
                done.set_exception(self._dial_error(error))
            else:
                done.set_result(None)

        def run() -> None:
            failed: Exception | None = None
            try:
                dial()
            except Exception as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(tell, failed)

        threading.Thread(target=run, name=f"dial {self._where}", daemon=True).start()
        await done
        self._attach()

    def _attach(self) -> None:
        sock = self._client.socket()
        assert sock is not None
        descriptor = sock.fileno()
        self._attached = True
        with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as same:
            # Else each message waits up to 40 ms for the TCP acknowledgement of the one before.
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(descriptor, self._readable)
        self.wants_to_write(descriptor)  # CONNECT
        self._tick = self._loop.call_later(_TICK_S, self._ticked)

    def _readable(self) -> None:
        """One packet, and then as many as TLS holds back: the socket no longer shows those."""
        while self._work(self._client.loop_read):
            if not _pending(self._client.socket()):
                return

    def _ticked(self) -> None:
        """A broker that answers pings and nothing else would otherwise be taken for one, and what it has not answered
        would pile up in paho.
        """
        if any(self._loop.time() - asked.at_s > self._timeout_s for asked in self._answers.values()):
            self._end(self._lost("none in time"))
        elif self._work(self._client.loop_misc):
            self._tick = self._loop.call_later(_TICK_S, self._ticked)

    def _work(self, step: Callable[[], int]) -> bool:
        """False when the connection is over. What TLS complains of, paho 1.6.1 raises and 2.x puts into its log."""
        try:
            result = step()
        except Exception as error:  # whatever a broker's bytes make paho raise ends the connection, and nothing more
            self._end(self._lost(str(error) if isinstance(error, OSError) else f"noise ({error!r})"))
            return False
        if result != 0:
            self._end(self._lost(self._last_words or "a cut connection"))
        return not self.ended.done()

    async def _answer(self, message_id: int | None) -> list[int]:
        if message_id is None:
            raise self._end(self._lost("a cut connection"))
        waiting: asyncio.Future[list[int]] = self._loop.create_future()
        self._answers[message_id] = _Asked(at_s=self._loop.time(), answer=waiting)
        await asyncio.wait((waiting, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise self.ended.result()

    def _check(self) -> None:
        if self.ended.done():
            raise self.ended.result()

    def _dial_error(self, error: Exception) -> Exception:
        if isinstance(error, ssl.SSLCertVerificationError):
            return BrokerNotTrusted(f"{self._where}: {error.verify_message or error}")
        if isinstance(error, OSError | ValueError):  # a WebSocket that is not taken is a ValueError
            return self._lost(getattr(error, "strerror", None) or str(error))
        return error

    def _lost(self, found: str) -> BrokerLost:
        words = " ".join(found.split())[:200] or "nothing"
        if "alert" in words.lower() or "ALERT" in words:
            return CertificateRefused(f"{self._where}: refused the TLS connection ({words})")
        return BrokerLost(f"{self._where}: expected an answer, got: {words}")

    def _end(self, error: BrokerError) -> BrokerError:
        """Once; whoever waits is told. Returns the error for which it really ended."""
        if not self.ended.done():
            self.ended.set_result(error)
            if not self._accepted.done():
                self._accepted.set_exception(error)
                self._accepted.exception()  # `open` may have given up before
            if self._tick is not None:
                self._tick.cancel()
            self._shut()
        return self.ended.result()

    def _shut(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            self.closes_socket(sock.fileno())
            with contextlib.suppress(OSError):
                sock.close()


def _pending(sock: object) -> int:
    """Bytes that TLS has deciphered already; a WebSocket of paho's answers for the TLS below it."""
    return int(sock.pending()) if isinstance(sock, ssl.SSLSocket) or hasattr(sock, "pending") else 0
