"""Waiting for the next request where the last one was answered, not in the loop (ADR 9).

A processor that goes to sleep because nothing has come yet is woken through the system and, on a virtual machine,
through its host: that takes longer than a small model and its answer. A client that asks again at once, as one does
who works through a row of values, is worth a moment of looking; all others are not.
"""

from __future__ import annotations

import os
import select
import time
from typing import Final, Protocol

_MOMENT_NS: Final = 200_000
_FORGIVEN: Final = 2  # in a row; now and then the processor is somebody else's
_ENOUGH: Final = 8
_PASSED: Final = 31  # answers after which nobody looks, where it was for nothing
_now_ns: Final = time.perf_counter_ns
_CAN_LOOK: Final = hasattr(select, "poll") and hasattr(os, "sched_yield")  # not on Windows


def _yield() -> None:
    os.sched_yield()


class Connected(Protocol):
    """A socket, or what a transport shows of its own."""

    def fileno(self) -> int: ...


class Patience:
    """What is known of one client. For who is alone: everything else on the loop waits too."""

    __slots__ = ("_at_once", "_missed", "_passes", "_ready")

    def __init__(self, connection: Connected) -> None:
        self._at_once = self._missed = self._passes = 0
        if _CAN_LOOK:
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN)
            self._ready = poll.poll

    def pays(self) -> bool:
        """Whether to look at all. To be asked once after each answer."""
        if self._passes:
            self._passes -= 1
            return False
        return _CAN_LOOK

    def wait(self) -> bool:
        """Until there is something to read, an end or an error too; for a moment at most. False: there is nothing.

        Whoever has work for this processor gets it meanwhile, be it the client itself.
        """
        ready = self._ready
        if ready(0):
            self._at_once += 1
            if self._at_once >= _ENOUGH:  # the loop finds it as soon, as where client and server share a core
                self._passes = _PASSED
            return True
        self._at_once = 0
        until_ns = _now_ns() + _MOMENT_NS
        while not ready(0):
            if _now_ns() > until_ns:
                self._missed += 1
                if self._missed > _FORGIVEN:
                    self._passes = _PASSED
                return False
            _yield()
        self._missed = 0
        return True
