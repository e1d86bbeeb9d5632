"""Tells on standard error how far a measurement is: one line that changes on a terminal, a few lines elsewhere."""

from __future__ import annotations

import io
import shutil
import time
from typing import Final, TextIO

from edgeward_agent.bench.words import Screen, seconds

_EVERY_S: Final = 0.1
_EVERY_S_IN_A_FILE: Final = 10.0


class Telling:
    """A callable that `measuring` may call as often as it likes. `done` takes the line away.

    Nothing is told to a stream that was closed before we began, which is None.
    """

    def __init__(self, stream: TextIO | None, screen: Screen) -> None:
        self._stream = stream or io.StringIO()
        self._screen = screen
        self._live = self._stream.isatty()
        self._told = time.monotonic() if not self._live else 0.0

    def __call__(self, what: str, share: float, left_s: float) -> None:
        now = time.monotonic()
        if now - self._told < (_EVERY_S if self._live else _EVERY_S_IN_A_FILE) and (share or not self._live):
            return
        self._told = now
        if self._live:
            width = min(shutil.get_terminal_size().columns, 100) - 1
            self._stream.write(f"\r\033[K{self._line(what, share, left_s)[:width]}")
        else:
            self._stream.write(f"{self._line(what, share, left_s).strip()}\n")
        self._stream.flush()

    def done(self) -> None:
        if self._live:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _line(self, what: str, share: float, left_s: float) -> str:
        if not share:
            return f"{what} …" if self._screen.unicode else f"{what} ..."
        room = 24
        drawn = self._screen.bar_of(share, room) if self._live else ""
        return f"{drawn:<{room}} {share:>4.0%}  {what}" + (f", {seconds(left_s)} left" if left_s >= 1 else "")
