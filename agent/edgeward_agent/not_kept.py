"""How many results were answered and are not kept: without room on their way, or without room in the outbox."""

from __future__ import annotations

from typing import Final

from edgeward_agent.clock import Clock
from edgeward_agent.ports import ServingState

ALARM: Final = "results_not_kept"
_CALM_S: Final = 900.0


class NotKept:
    """Since the agent started; the count of a serving process that ended is kept as it was last seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._earlier = 0
        self._started_us = 0
        self._dropped = 0
        self._grew_s: float | None = None
        self.total = 0

    def look(self, serving: ServingState | None, *, refused: int) -> None:
        """Take what the serving process dropped, at the last look at it, and what the outbox refused."""
        if serving is not None:
            if serving.started_us != self._started_us:
                self._earlier += self._dropped
            self._started_us, self._dropped = serving.started_us, serving.capture_dropped
        total = self._earlier + self._dropped + refused
        if total > self.total:
            self._grew_s = self._clock.monotonic()
        self.total = total

    @property
    def alarms(self) -> tuple[str, ...]:
        """While the count grows, and a quarter of an hour longer: reports are minutes apart."""
        grows = self._grew_s is not None and self._clock.monotonic() - self._grew_s < _CALM_S
        return (ALARM,) if grows else ()
