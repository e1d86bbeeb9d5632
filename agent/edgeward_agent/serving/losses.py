"""Results that were answered and could not be kept: counted each, and said when it begins and when it has ended."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

_log: Final = logging.getLogger(__name__)

CALM_S: Final = 10.0
"""So long without a loss is the end of it: a queue that is full has room again at each batch that is sent."""


class Losses:
    """Touched on the loop's thread alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, calm_s: float = CALM_S) -> None:
        self._loop = loop
        self._calm_s = calm_s
        self._before = self._seen = 0
        self._timer: asyncio.TimerHandle | None = None
        self.total = 0

    def count(self) -> None:
        self.total += 1
        if self._timer is None:
            _log.warning("results are not kept: there is no room for them on their way to the agent's outbox")
            self._before = self._seen = self.total - 1
            self._look_later()

    def close(self) -> None:
        """Say the count of what has not ended yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._end()

    def _look_later(self) -> None:
        self._seen = self.total
        self._timer = self._loop.call_later(self._calm_s, self._look)

    def _look(self) -> None:
        if self.total > self._seen:
            self._look_later()
        else:
            self._end()

    def _end(self) -> None:
        self._timer = None
        _log.warning("results are kept again; %d were not", self.total - self._before)
