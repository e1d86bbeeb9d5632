"""MQTT 5 through a broker. The broker carries; only the fleet's own answers on `down/acks` count.

A connection is opened when a call needs one and is never repaired behind the callers' backs: they all wait between
tries, each with its own jitter, and a try of one serves all. Everything a connection needs is said anew each time
(subscriptions, presence, hello), because a broker may have forgotten any of it.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from edgeward_agent.errors import IdentityError, LinkError, LinkLost, LinkRefused
from edgeward_agent.link.wire import CertificateNotTaken, FleetNotTrusted
from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.desired import DesiredState
from edgeward_contract.mqtt.broker import (
    MAX_PAYLOAD_BYTES,
    BrokerAddress,
    BrokerError,
    BrokerNotTrusted,
    BrokerRefused,
    CertificateRefused,
    Options,
    PacketTooLarge,
    Will,
)
from edgeward_contract.mqtt.connection import Connection
from edgeward_contract.mqtt.documents import OK, Answer, Hello, PresenceNote, Up, report_tag
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import ContractError

T = TypeVar("T")

SESSION_EXPIRY_S: Final = 3600  # for how long the broker keeps what came while we were away
_TOO_LARGE: Final = 413
_FORBIDDEN: Final = 403
_AGAIN: Final = frozenset({408, 425, 429})


class MqttLink:
    """See `ports.Link`. `tls` is asked at each connection, so that a renewed certificate is taken into use."""

    def __init__(
        self, address: BrokerAddress, device: DeviceId, tls: Callable[[], ssl.SSLContext], *, timeout_s: float
    ) -> None:
        self._address: Final = address
        self._device: Final = device
        self._tls: Final = tls
        self._timeout_s: Final = timeout_s
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._newest: DesiredState | None = None
        self._unreadable: ContractError | None = None
        self._news = asyncio.Event()
        self._answers: Final[dict[str, asyncio.Future[Answer]]] = {}
        self._closed = False

    @property
    def max_batch_bytes(self) -> int:
        return self._room(topics.up_topic(self._device, Up.RECORDS))

    async def next_desired(self, after: int) -> DesiredState:
        connection = await self._connected()
        if self._newer(after) is None:
            await self._request(Up.HELLO, tag := secrets.token_hex(8), Hello(tag=tag, generation=after).canonical())
        while (desired := self._newer(after)) is None:
            self._check_readable()
            self._news.clear()
            await self._first(connection, asyncio.ensure_future(self._news.wait()))
        return desired

    async def report(self, reported: ReportedState) -> None:
        await self._request(Up.REPORTED, report_tag(reported), reported.canonical())

    async def deliver(self, batch: Batch) -> Acknowledgement:
        answer = await self._request(Up.RECORDS, batch.batch_id, batch.canonical())
        if answer.acknowledgement is None or answer.acknowledgement.batch_id != batch.batch_id:
            raise LinkLost(f"{self._where}: expected the acknowledgement of {batch.batch_id}, got another answer")
        return answer.acknowledgement

    async def aclose(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError, LinkError):
                await self._opening
        if self._connection is not None:
            await self._connection.close(with_will=True)

    @property
    def _where(self) -> str:
        return f"fleet behind the broker at {self._address.where}"

    def _newer(self, after: int) -> DesiredState | None:
        newest = self._newest
        return newest if newest is not None and newest.generation > after else None

    async def _connected(self) -> Connection:
        if self._closed:
            raise LinkLost(f"{self._where}: the link was closed")
        if self._connection is not None and not self._connection.ended.done():
            return self._connection
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="mqtt open")
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            if self._closed:
                raise LinkLost(f"{self._where}: the link was closed") from None
            raise

    async def _open(self) -> Connection:
        gone = PresenceNote(online=False).canonical()
        presence = topics.up_topic(self._device, Up.PRESENCE)
        options = Options(
            client_id=self._device,
            session_expiry_s=SESSION_EXPIRY_S,
            timeout_s=self._timeout_s,
            will=Will(topic=presence, payload=gone),
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await Connection.open(self._address, self._tls(), options, self._heard)
                await self._introduce(connection, presence)
        except TimeoutError:
            raise LinkLost(f"broker at {self._address.where}: expected an answer, got none in time") from None
        except BrokerError as error:
            raise _link_error(error) from None
        except IdentityError as error:
            raise LinkLost(f"broker at {self._address.where}: {error}") from None
        return connection

    async def _introduce(self, connection: Connection, presence: str) -> None:
        try:
            await connection.subscribe(topics.all_of(self._device, "down"))
            await connection.publish(presence, PresenceNote(online=True).canonical(), retain=True)
        except BaseException:
            await connection.close()
            raise

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._connection = opening.result()

    async def _request(self, what: Up, tag: str, payload: bytes) -> Answer:
        """Publish and wait for the fleet's own answer."""
        connection = await self._connected()
        topic = topics.up_topic(self._device, what)
        room = self._room(topic)
        if len(payload) > room:
            raise LinkRefused(
                f"broker at {self._address.where}: expected at most {room} bytes, got {len(payload)}",
                status=_TOO_LARGE,
            )
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[tag] = answered
        try:
            async with asyncio.timeout(self._timeout_s):
                if not await connection.publish(topic, payload):
                    raise LinkLost(f"{self._where}: expected an answer, got: nobody listens")
                answer = await self._first(connection, answered)
        except BrokerError as error:
            raise _link_error(error) from None
        except TimeoutError:
            raise LinkLost(f"{self._where}: expected an answer, got none in time") from None
        finally:
            if self._answers.get(tag) is answered:
                del self._answers[tag]
        self._check(answer)
        return answer

    def _room(self, topic: str) -> int:
        connection = self._connection
        return MAX_PAYLOAD_BYTES if connection is None else connection.room(topic, MAX_PAYLOAD_BYTES)

    async def _first(self, connection: Connection, wanted: asyncio.Future[T]) -> T:
        """What is wanted, unless the connection ends before it. Raises LinkLost and LinkRefused."""
        try:
            await asyncio.wait((wanted, connection.ended), return_when=asyncio.FIRST_COMPLETED)
            if wanted.done():
                return wanted.result()
        finally:
            wanted.cancel()
        raise _link_error(connection.ended.result())

    def _check(self, answer: Answer) -> None:
        if answer.status == OK:
            return
        text = f"{self._where}: {answer.detail or 'no reason given'} ({answer.status})"
        error: LinkError
        if answer.status in _AGAIN or answer.status >= 500:
            error = LinkLost(text, retry_after_s=answer.retry_after_s)
        else:
            error = LinkRefused(text, status=answer.status)
        if answer.hint:
            error.hint = answer.hint
        raise error

    def _check_readable(self) -> None:
        """What the fleet wants may be of a newer version: nobody asks again for what was published."""
        error, self._unreadable = self._unreadable, None
        if error is not None:
            raise LinkRefused(f"{self._where}: desired state: {error}")

    def _heard(self, topic: str, payload: bytes, _retained: bool) -> None:
        if topic == topics.down_desired(self._device) and payload:
            try:
                self._take(DesiredState.parse(payload))
            except ContractError as error:
                self._unreadable = error
                self._news.set()
        elif topic == topics.down_acks(self._device):
            with suppress(ContractError):  # as good as lost: whoever waits for it asks again
                self._answered(Answer.parse(payload))

    def _answered(self, answer: Answer) -> None:
        waiting = self._answers.get(answer.tag)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _take(self, desired: DesiredState) -> None:
        """A broker may bring an older one late, or after it came back with an old retained message."""
        if self._newest is None or desired.generation > self._newest.generation:
            self._newest = desired
            self._news.set()


def _link_error(error: BrokerError) -> LinkError:
    if isinstance(error, PacketTooLarge):
        return LinkRefused(str(error), status=_TOO_LARGE)
    if isinstance(error, BrokerRefused):
        return LinkRefused(str(error), status=_FORBIDDEN)
    if isinstance(error, CertificateRefused):
        return CertificateNotTaken(str(error))
    return FleetNotTrusted(str(error)) if isinstance(error, BrokerNotTrusted) else LinkLost(str(error))
