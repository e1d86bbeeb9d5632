"""What waits to be done for devices that come through a broker: in order for each, and with room for all.

A broker passes on whatever an enrolled device sends, as fast as it sends it. So each device has a share of the room,
and what the fleet itself wants of a device (to let it in, to shut it out) goes before everything that devices want.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.documents import Up

MAX_OF_ONE: Final = 16
"""Messages of one device. An agent has three under way, and sends another after a time-out and a growing pause."""
MAX_BYTES: Final = 128 << 20  # of all devices: a thousand that come home with a full batch each
MAX_STRIKES: Final = 200  # dropped or unreadable messages in an hour; an agent comes to a few in the worst of a fleet
_HOUR_S: Final = 3600.0
_DAY_S: Final = 86_400.0
SHORTEST_OUT_S: Final = 60.0
LONGEST_OUT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Message:
    """Something that a device has published."""

    device: DeviceId
    what: Up
    payload: bytes


class Lane:
    """Devices whose errands are run one after another: `take` gives the next."""

    def __init__(self) -> None:
        self._looks: Final[dict[DeviceId, None]] = {}  # a second one while the first waits says nothing new
        self._messages: Final[deque[Message]] = deque()
        self._news: Final = asyncio.Event()

    def put(self, errand: DeviceId | Message) -> None:
        if isinstance(errand, Message):
            self._messages.append(errand)
        else:
            self._looks[errand] = None
        self._news.set()

    async def take(self) -> DeviceId | Message:
        """A device to look at, before any message."""
        while not self._looks and not self._messages:
            self._news.clear()
            await self._news.wait()
        if self._looks:
            device = next(iter(self._looks))
            del self._looks[device]
            return device
        return self._messages.popleft()


class Lanes:
    """All lanes, and how much waits in them."""

    def __init__(self, count: int) -> None:
        self.all: Final = tuple(Lane() for _ in range(count))
        self._waiting: Final[Counter[DeviceId]] = Counter()
        self._bytes = 0

    def look(self, device: DeviceId) -> None:
        """The fleet itself wants the device to be looked at; there is always room for that."""
        self._lane(device).put(device)

    def put(self, message: Message) -> bool:
        """False: the message is dropped, because its device or all of them together have too many here."""
        if self.is_full_of(message.device) or self._bytes + len(message.payload) > MAX_BYTES:
            return False
        self._waiting[message.device] += 1
        self._bytes += len(message.payload)
        self._lane(message.device).put(message)
        return True

    def is_full_of(self, device: DeviceId) -> bool:
        return self._waiting[device] >= MAX_OF_ONE

    def done(self, message: Message) -> None:
        """To be said once for each message that was taken."""
        self._bytes -= len(message.payload)
        self._waiting[message.device] -= 1
        if not self._waiting[message.device]:
            del self._waiting[message.device]

    def _lane(self, device: DeviceId) -> Lane:
        return self.all[hash(device) % len(self.all)]


class Strikes:
    """Who sends what nobody can take, and how long it is kept out for it: twice as long each time.

    The count begins anew with each hour, and the times after a day without one: a fleet stays at its broker for months.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._strikes: Final[Counter[DeviceId]] = Counter()
        self._since_s: Final[dict[DeviceId, float]] = {}
        self._times_out: Final[Counter[DeviceId]] = Counter()
        self._last_out_s: Final[dict[DeviceId, float]] = {}
        self._out: Final[set[DeviceId]] = set()

    def is_out(self, device: DeviceId) -> bool:
        return device in self._out

    def add(self, device: DeviceId) -> float | None:
        """One more; when it is one too many, the seconds for which the device is out from now on."""
        if device in self._out:  # what it had sent before still arrives
            return None
        now_s = self._clock()
        if now_s - self._since_s.setdefault(device, now_s) > _HOUR_S:
            self._since_s[device], self._strikes[device] = now_s, 0
        self._strikes[device] += 1
        if self._strikes[device] < MAX_STRIKES:
            return None
        del self._strikes[device], self._since_s[device]
        self._out.add(device)
        if now_s - self._last_out_s.get(device, now_s) > _DAY_S:
            self._times_out[device] = 0
        self._last_out_s[device] = now_s
        self._times_out[device] += 1
        return min(SHORTEST_OUT_S * 2.0 ** (self._times_out[device] - 1), LONGEST_OUT_S)

    def forgive(self, device: DeviceId) -> None:
        self._out.discard(device)
