"""Wakes parked polls: a device's desired state changed, or its certificate was revoked.

A wake-up says "look again", nothing more; what is true stands in the database. A needless one does no harm, nor does
one that another replica's change did not send, because a poll then looks again by itself at its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from edgeward_contract.artifact import DeviceId


class Watch:
    """One parked poll's ear. Taken *before* the first look at the database, so that no change falls in between."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()
        self.was_woken = False

    def set(self) -> None:
        """From any thread."""
        self.was_woken = True
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # the loop is closed, and its polls with it
            return

    async def wait(self, timeout_s: float) -> bool:
        """Whether there was a wake-up since the last call; False after `timeout_s`."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Wakeups:
    """The parked polls of this process, by device. `hears_all`: nobody else can change what a poll waits for."""

    def __init__(self, *, hears_all: bool = False) -> None:
        self.hears_all: Final = hears_all
        self._lock: Final = threading.Lock()
        self._watches: Final[defaultdict[DeviceId, set[Watch]]] = defaultdict(set)
        self._listeners: Final[list[Callable[[DeviceId], None]]] = []
        self._settled: Final[dict[DeviceId, int]] = {}
        self._closing = False

    @property
    def closing(self) -> bool:
        """The fleet is shutting down: polls answer at once, so that nobody has to wait for them."""
        return self._closing

    @contextmanager
    def watch(self, device_id: DeviceId) -> Iterator[Watch]:
        """Listen for wake-ups of `device_id`; needs a running event loop."""
        watch = Watch(asyncio.get_running_loop())
        with self._lock:
            self._watches[device_id].add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches[device_id].discard(watch)
                if not self._watches[device_id]:
                    del self._watches[device_id]

    def settle(self, device_id: DeviceId, after: int, watch: Watch) -> None:
        """Remember that a look during `watch` found nothing above generation `after`, unless that may have changed."""
        with self._lock:
            if self.hears_all and not watch.was_woken:
                self._settled[device_id] = after

    def is_settled(self, device_id: DeviceId, after: int) -> bool:
        """There is nothing above `after` for the device; False when that has to be looked up."""
        with self._lock:
            return self._settled.get(device_id) == after

    def add_listener(self, listener: Callable[[DeviceId], None]) -> None:
        """`listen` for as long as the fleet runs."""
        with self._lock:
            self._listeners.append(listener)

    @contextmanager
    def listen(self, listener: Callable[[DeviceId], None]) -> Iterator[None]:
        """Tell `listener` of the wake-ups of every device, each in the thread that it happens in."""
        self.add_listener(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def notify(self, device_id: DeviceId) -> None:
        """Wake the polls of `device_id`. Call it after the commit, from any thread."""
        with self._lock:
            self._settled.pop(device_id, None)
            for watch in self._watches.get(device_id, ()):
                watch.set()
            for listener in self._listeners:
                listener(device_id)

    def close(self) -> None:
        """Wake everybody, for the last time."""
        self._closing = True
        with self._lock:
            self._settled.clear()
            for watches in self._watches.values():
                for watch in watches:
                    watch.set()
