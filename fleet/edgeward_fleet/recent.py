"""What was found out about a device a moment ago, so that a burst of requests asks the database once.

A wake-up of the device forgets it at once: revocations and changes of its desired state send one. Other replicas of
the fleet do not hear it, which is why nothing is remembered for long.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from edgeward_contract.artifact import DeviceId

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, each about one device, for `keep_s`. For the event loop's thread alone."""

    def __init__(self, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s: Final = keep_s
        self._clock: Final = clock
        self._values: Final[dict[K, tuple[V, float]]] = {}
        self._keys: Final[defaultdict[DeviceId, set[K]]] = defaultdict(set)

    def get(self, key: K) -> V | None:
        found = self._values.get(key)
        return found[0] if found is not None and self._clock() < found[1] else None

    def of(self, device: DeviceId) -> list[V]:
        """All that is still known of the device."""
        found = (self.get(key) for key in self._keys.get(device, ()))
        return [value for value in found if value is not None]

    def put(self, device: DeviceId, key: K, value: V) -> None:
        """What else is known of the device and has grown old makes room."""
        now = self._clock()
        for old in [each for each in self._keys[device] if self._values[each][1] <= now]:
            self._keys[device].discard(old)
            del self._values[old]
        self._values[key] = value, now + self._keep_s
        self._keys[device].add(key)

    def forget(self, device: DeviceId) -> None:
        for key in self._keys.pop(device, ()):
            del self._values[key]
