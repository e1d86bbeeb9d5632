"""What devices say through a broker, and the fleet's answer to it; nothing here knows a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import MAX_PAYLOAD_BYTES
from edgeward_contract.mqtt.documents import Answer, Hello, Up
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import ContractError, parse_json
from edgeward_fleet.clock import Clock
from edgeward_fleet.db.engine import Database
from edgeward_fleet.devices.service import heard_of
from edgeward_fleet.errors import FleetError, TooMany
from edgeward_fleet.link.inbound import Check, Inbound
from edgeward_fleet.link.mqtt_devices import VIA, note_presence
from edgeward_fleet.states import desired

_log: Final = logging.getLogger(__name__)
_UNREADABLE: Final = 400
_TOO_LARGE: Final = 413
_FAILED: Final = 500


Offer = Callable[[DeviceId, int], Awaitable[None]]
"""Publishes a device's desired state, if its generation is above the given one. Raises Forbidden."""


class Inbox:
    """Takes a device's messages. The broker has seen to it that each is on a topic of the device that sent it."""

    def __init__(self, database: Database, clock: Clock, inbound: Inbound, offer: Offer) -> None:
        self._database: Final = database
        self._clock: Final = clock
        self._inbound: Final = inbound
        self._offer: Final = offer

    async def answer(self, device: DeviceId, what: Up, payload: bytes) -> Answer | None:
        """What the device is to hear; None when its message does not even say how it is called."""
        try:
            tag = _tag(what, payload)
        except ContractError as error:
            _log.warning("device %s: a message on %s cannot be answered: %s", device, what, error)
            return None
        try:
            acknowledgement = await self._take(device, what, payload)
        except ContractError as error:
            return Answer(tag=tag, status=_UNREADABLE, detail=str(error))
        except FleetError as error:
            return _refusal(tag, error)
        except Exception:
            _log.exception("device %s: a message on %s could not be handled", device, what)
            return Answer(tag=tag, status=_FAILED, detail="the fleet failed; its log has the cause")
        return _fitting(Answer(tag=tag, acknowledgement=acknowledgement))

    async def presence(self, device: DeviceId, *, online: bool) -> None:
        """Note that the device came to the broker, or left it. Raises Forbidden."""
        now = self._clock()

        def work(session: Session) -> None:
            if online:
                heard_of(session, device, VIA, now)
            note_presence(session, device, online=online, now=now)

        await self._database.run(work)

    async def _heard(self, check: Check) -> None:
        now = self._clock()
        await self._database.run(lambda session: check(session, now))

    async def _take(self, device: DeviceId, what: Up, payload: bytes) -> Acknowledgement | None:
        def check(session: Session, now: datetime) -> None:
            heard_of(session, device, VIA, now)

        if what is Up.REPORTED:
            await self._report(device, ReportedState.parse(payload), check)
            return None
        await self._heard(check)
        if what is Up.RECORDS:
            return await self._inbound.deliver(device, await asyncio.to_thread(Batch.parse, payload))
        await self._offer(device, Hello.parse(payload).generation)
        return None

    async def _report(self, device: DeviceId, state: ReportedState, check: Check) -> None:
        """A device that stays at the broker says hello no more: that it has seen a generation from after the backup
        that this fleet was restored from is told by its reports alone.
        """
        is_ahead = False

        def look(session: Session, now: datetime) -> None:
            nonlocal is_ahead
            check(session, now)
            is_ahead = desired.is_behind(session, device, state.generation)

        await self._inbound.report(device, state, look)
        if is_ahead:
            await self._offer(device, state.generation)


def _tag(what: Up, payload: bytes) -> str:
    """Read before anything else: a batch with one bad record must be refused by its name. Raises ContractError."""
    fields = parse_json(payload)
    if what is Up.REPORTED:
        return f"{fields.text('boot')}:{fields.integer('sequence')}"
    return fields.text("batch_id" if what is Up.RECORDS else "tag", max_length=64)


def _refusal(tag: str, error: FleetError) -> Answer:
    later_s = float(error.retry_after_s) if isinstance(error, TooMany) else None
    return Answer(tag=tag, status=error.status, detail=str(error), hint=error.hint, retry_after_s=later_s)


def _fitting(answer: Answer) -> Answer:
    """An acknowledgement that a broker would not carry: the device sends less at once, and hears of the rest then."""
    if len(answer.canonical()) <= MAX_PAYLOAD_BYTES:
        return answer
    return Answer(
        tag=answer.tag, status=_TOO_LARGE, detail="expected an answer that a broker carries; send less at once"
    )
