"""The fleet at an MQTT 5 broker: hears every device, answers after the commit, publishes what each should be.

What is at the broker is a copy. Roles are made those of the database at each connection; desired state is published
when it changes, and again when a device says hello, because a broker that crashed may have lost what it retained.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import Final, NoReturn

from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import BrokerError, Options
from edgeward_contract.mqtt.connection import Connection
from edgeward_contract.mqtt.documents import PresenceNote, Up
from edgeward_contract.schema import ContractError
from edgeward_fleet.errors import FleetError, Forbidden
from edgeward_fleet.link.mqtt_access import RESPONSES, BrokerAccess
from edgeward_fleet.link.mqtt_devices import is_ours, ours
from edgeward_fleet.link.mqtt_identity import client_context
from edgeward_fleet.link.mqtt_inbox import Inbox
from edgeward_fleet.link.mqtt_lanes import Lane, Lanes, Message, Strikes
from edgeward_fleet.link.mqtt_roles import FLEET_NAME
from edgeward_fleet.services import Services

_log: Final = logging.getLogger(__name__)

_TIMEOUT_S: Final = 20.0
_LONGEST_WAIT_S: Final = 15.0  # between two tries to reach the broker
_LOOK_AGAIN_S: Final = 5.0
_LANES: Final = 8
_ANSWER_EXPIRY_S: Final = 120  # a device that comes back later has asked anew


async def serve_mqtt(services: Services) -> None:
    """Be at the broker while the fleet runs, if there is one; out of reach, it is tried again and told once."""
    address = services.settings.mqtt_broker
    if address is None:
        return
    failures = 0
    while True:
        visit = Visit(services)
        try:
            await visit.run()
        except (BrokerError, FleetError, OSError) as error:  # a database or a disk in trouble is no end of the fleet
            failures = 0 if visit.was_there else failures + 1
            if failures <= 1:
                _log.warning("not at the broker: %s", error)
        await asyncio.sleep(random.uniform(0.2, min(2.0**failures, _LONGEST_WAIT_S)))  # noqa: S311  # no secret


class Visit:
    """One connection of the fleet to its broker. Whatever concerns one device goes through one lane, in order."""

    def __init__(self, services: Services) -> None:
        self._services: Final = services
        self._loop: Final = asyncio.get_running_loop()
        self._inbox: Final = Inbox(services.database, services.clock, services.inbound, self._offer)
        self._lanes: Final = Lanes(_LANES)
        self._strikes: Final = Strikes()
        self._present: Final[set[DeviceId]] = set()  # devices that use this broker
        self._granted: set[DeviceId] = set()
        self._connection: Connection
        self._access: BrokerAccess
        self.was_there = False

    async def run(self) -> NoReturn:
        """Raises BrokerError when the connection is over."""
        with self._services.wakeups.listen(self._woken):
            self._connection = await self._open()
            try:
                await self._stay()
            finally:
                await self._connection.close()

    async def _open(self) -> Connection:
        address = self._services.settings.mqtt_broker
        assert address is not None
        tls = client_context(self._services.authority, self._services.settings.data_dir, self._services.clock())
        options = Options(client_id=FLEET_NAME, session_expiry_s=0, timeout_s=_TIMEOUT_S)
        return await Connection.open(address, tls, options, self._heard)

    async def _stay(self) -> NoReturn:
        self._access = BrokerAccess(self._connection)
        await self._connection.subscribe(RESPONSES)
        self._granted = await self._services.database.run(ours)
        added, removed = await self._access.reconcile(self._granted)
        await self._connection.subscribe(topics.ALL_UP)
        self.was_there = True
        _log.info("at the broker: %d devices, %d roles added, %d taken away", len(self._granted), added, removed)
        tasks = [asyncio.create_task(self._work(lane), name="mqtt lane") for lane in self._lanes.all]
        tasks.append(asyncio.create_task(self._over(), name="mqtt connection"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await next(iter(done))
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _over(self) -> NoReturn:
        raise await asyncio.shield(self._connection.ended)

    # What comes in, without waiting: from the broker, and from the fleet itself.

    def _heard(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic == RESPONSES:
            self._access.heard(payload)
            return
        try:
            device, what = topics.read_up_topic(topic)
            kind = Up(what)
        except (ContractError, ValueError):
            _log.warning("a message on %s is not of this version", topic[:200])
            return
        if not payload:  # a retained message was cleared
            return
        if retained:
            self._was_here(device, payload)
        elif not self._lanes.put(Message(device, kind, payload)):
            self._strike(device)

    def _woken(self, device: DeviceId) -> None:
        """From any thread: the device enrolled, was revoked, or should be something else."""
        with suppress(RuntimeError):  # the loop is closed, and this visit with it
            self._loop.call_soon_threadsafe(self._lanes.look, device)

    def _was_here(self, device: DeviceId, payload: bytes) -> None:
        """What the broker kept tells who uses it; whether they are there still is told by what they send."""
        try:
            present = PresenceNote.parse(payload).online
        except ContractError:
            return
        if present:
            self._present.add(device)
            self._lanes.look(device)

    def _strike(self, device: DeviceId) -> None:
        """A message came to nothing: one too many, or one that nobody can read. Its device will send it again."""
        out_s = self._strikes.add(device)
        if out_s is not None:
            _log.warning("device %s sends more than the fleet can take; it is kept out for %d s", device, out_s)
            self._loop.call_later(out_s, self._forgive, device)
            self._lanes.look(device)

    def _forgive(self, device: DeviceId) -> None:
        self._strikes.forgive(device)
        self._lanes.look(device)

    # What is done about it, in lanes.

    async def _work(self, lane: Lane) -> NoReturn:
        while True:
            errand = await lane.take()
            if isinstance(errand, Message):
                await self._act_on(errand)
            else:
                await self._look_or_look_again(errand)

    async def _act_on(self, message: Message) -> None:
        try:
            if message.what is Up.PRESENCE:
                await self._presence(message.device, message.payload)
            else:
                await self._answer(message.device, message.what, message.payload)
        except Forbidden:  # its will, after it was revoked
            return
        except FleetError as error:
            _log.error("device %s: %s", message.device, error)
        finally:
            self._lanes.done(message)

    async def _look_or_look_again(self, device: DeviceId) -> None:
        """Nobody else would ask for it."""
        try:
            await self._look(device)
        except FleetError as error:
            _log.error("device %s: %s", device, error)
            self._loop.call_later(_LOOK_AGAIN_S, self._lanes.look, device)

    async def _look(self, device: DeviceId) -> None:
        """Make the broker say of the device what the database says."""
        if not await self._services.database.run(lambda session: is_ours(session, device)):
            await self._forget(device)
            return
        if self._strikes.is_out(device):
            await self._access.revoke(device)
            self._granted.discard(device)
            return
        if device not in self._granted:
            await self._access.grant(device)
            self._granted.add(device)
        if device in self._present:
            await self._offer(device, -1)

    async def _forget(self, device: DeviceId) -> None:
        """First the role, then the connection: see `mqtt_access`. What it left behind goes too."""
        await self._access.revoke(device)
        self._granted.discard(device)
        self._present.discard(device)
        for topic in (topics.down_desired(device), topics.up_topic(device, Up.PRESENCE)):
            await self._connection.publish(topic, b"", retain=True)

    async def _presence(self, device: DeviceId, payload: bytes) -> None:
        try:
            online = PresenceNote.parse(payload).online
        except ContractError as error:
            _log.warning("device %s: presence: %s", device, error)
            self._strike(device)
            return
        if online:
            self._present.add(device)
        await self._inbox.presence(device, online=online)

    async def _answer(self, device: DeviceId, what: Up, payload: bytes) -> None:
        self._present.add(device)
        answer = await self._inbox.answer(device, what, payload)
        if answer is None:
            self._strike(device)
            return
        await self._connection.publish(topics.down_acks(device), answer.canonical(), expiry_s=_ANSWER_EXPIRY_S)

    async def _offer(self, device: DeviceId, after: int) -> None:
        """Publish the device's desired state, if it is newer. It counts as fetched: from now on it may be acted on."""
        document = await self._services.inbound.desired(device, after)
        if document is not None:
            await self._connection.publish(topics.down_desired(device), document, retain=True)
