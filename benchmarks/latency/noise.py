"""Whether the machine has something else to do: then a measurement waits, and one that was disturbed is made again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

LIMIT: Final = 0.2
"""Share of all cores. One tick of the system's clock in a tenth of a second is 5 % of two cores."""

_LOOK_S: Final = 0.1
_PATIENCE_S: Final = 20.0
_ATTEMPTS: Final = 25
_IDLE: Final = (3, 4)  # proc_stat(5): idle and iowait
T = TypeVar("T")


class TooNoisy(Exception):
    """Others use the machine, and go on using it."""

    hint = "End what runs besides, or wait until it has ended: see `top`."


def undisturbed(measure: Callable[[], T], careful: bool = True) -> T:
    """What `measure` gives while others do nothing, before and after; at once when it need not be `careful`.

    Raises:
        TooNoisy: others go on using the machine.
    """
    if not careful:
        return measure()
    for _ in range(_ATTEMPTS):
        wait()
        found = measure()
        if _busy_share() <= LIMIT:
            return found
    raise TooNoisy(f"expected an idle machine, others used it in {_ATTEMPTS} attempts. {TooNoisy.hint}")


def wait() -> None:
    """Until the machine is idle. Raises TooNoisy."""
    deadline = time.monotonic() + _PATIENCE_S
    while (share := _busy_share()) > LIMIT:
        if time.monotonic() > deadline:
            raise TooNoisy(f"expected an idle machine, others use {share:.0%} of it. {TooNoisy.hint}")


def _busy_share() -> float:
    before = _ticks()
    time.sleep(_LOOK_S)
    passed = [after - earlier for earlier, after in zip(before, _ticks(), strict=True)]
    return 1.0 - sum(passed[index] for index in _IDLE) / max(1, sum(passed))


def _ticks() -> list[int]:
    """Of all cores since the start: user, nice, system, idle, iowait, irq, softirq, steal."""
    return [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
