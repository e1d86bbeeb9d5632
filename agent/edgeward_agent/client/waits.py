"""One time-out for a whole question, however it is cut into waits and whatever interrupts them."""

from __future__ import annotations

import math
import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import Final
from weakref import WeakSet

_TIMEVAL: Final = struct.Struct("@ll")  # struct timeval: seconds, microseconds; 0 is no limit
_NEARLY: Final = 0.9
_GRACE: Final = 0.1  # of a time-out; the system ends what it can
_MOMENT_S: Final = 0.01  # the watch looks no more often
NEVER: Final = math.inf


def left_s(ends_s: float) -> float:
    """Until then, on `time.monotonic`. Raises TimeoutError: the time is over."""
    left = ends_s - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class Waits:
    """Ends the waits of a connection, so that a whole question takes no longer than its time-out, or a tenth more.

    The system knows limits of a single wait alone, and a question may need many: a server that stops while it
    reads 8 MB had the time-out three times over. What is left is told to the system only where much of it is gone,
    which a question that is answered at once never pays. Who has the answer sets `ends_s` to NEVER, since a
    call for that alone costs 0.4 µs.
    """

    __slots__ = ("__weakref__", "_connection", "_limit_s", "_timeout_s", "ends_s")

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self.ends_s = NEVER
        self._limit(timeout_s)
        if sys.platform != "win32":  # no signal interrupts a wait there
            _watch.add(self)

    def begin(self, ends_s: float) -> None:
        """A question begins that is to be answered by then, on `time.monotonic`."""
        self.ends_s = ends_s
        if self._limit_s != self._timeout_s:
            self._limit(self._timeout_s)

    def go_on(self) -> None:
        """Before a wait. Raises TimeoutError: the time is over."""
        left_s = self.ends_s - time.monotonic()
        if left_s < _NEARLY * self._limit_s:
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._limit(left_s)

    def look(self, now_s: float) -> float:
        """Break off a question that should have ended by now. In how many seconds it is worth another look."""
        late_s = self.ends_s + _GRACE * self._timeout_s
        if late_s <= now_s:
            self.ends_s = NEVER
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        return max(_MOMENT_S, min(late_s - now_s, self._timeout_s))

    def _limit(self, wait_s: float) -> None:
        """Python would ask the system twice for everything, once whether it may; so the system itself ends a wait.

        One that ends so is a BlockingIOError.
        """
        self._limit_s = wait_s
        if sys.platform == "win32":  # there the option is no timeval
            self._connection.settimeout(wait_s)
            return
        limit = _TIMEVAL.pack(int(wait_s), int(wait_s % 1 * 1e6) or int(wait_s < 1))
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._connection.settimeout(None)


class _Watch:
    """A thread that breaks off what the system does not end: a wait that signals interrupt.

    Python begins such a call anew (PEP 475), and the system its limit with it: where a timer went off every 0.2 s, a
    time-out of 1 s never came. Python counts right where it asks `poll` first, which is one more system call for each
    question; this looks once in a time-out, and a question pays nothing.
    """

    def __init__(self) -> None:
        self._watched: WeakSet[Waits] = WeakSet()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._begun = False

    def add(self, waits: Waits) -> None:
        with self._lock:
            self._watched.add(waits)
            if not self._begun:
                with suppress(RuntimeError):  # no more threads, or the end of the process: the system's limits remain
                    threading.Thread(target=self._run, name="edgeward-client-watch", daemon=True).start()
                    self._begun = True
        self._news.set()

    def _run(self) -> None:
        while True:
            self._news.wait(self._look())
            self._news.clear()

    def _look(self) -> float | None:
        with self._lock:
            watched = tuple(self._watched)
        now_s = time.monotonic()
        return min((waits.look(now_s) for waits in watched), default=None)


_watch = _Watch()


def _watch_anew() -> None:
    """In a forked process: the thread is in the other, and may have held the lock."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch_anew)
