"""Broken inputs by the hundred thousand: Hypothesis throws the dice, each throw a batch of wounded good inputs."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SOAK: Final = bool(os.environ.get("EDGEWARD_SOAK"))
MAX_SECONDS_EACH: Final = 2.0  # far above what any takes, and far below a hang
MAX_GROWTH_BYTES: Final = 32 << 20
WORDS: Final = (
    b"-1",
    b"9223372036854775808",
    b"1e999",
    b"null",
    b"NaN",
    b"-Infinity",
    b"[",
    b"}",
    b'"',
    b"\\u0000",
    b"\xff",
)
_BATCH: Final = 250
_LEARNT_AFTER: Final = 2_000
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def mutated(dice: random.Random, seed: bytes, words: Sequence[bytes] = WORDS) -> bytes:
    """A good input with up to four wounds."""
    data = bytearray(seed)
    for _ in range(dice.randint(0, 4)):
        at, what = dice.randint(0, len(data)), dice.randrange(5)
        if what == 0:
            data[at:at] = dice.choice(words)
        elif what == 1:
            del data[at : at + dice.randint(1, 12)]
        elif what == 2:
            data[at:at] = dice.randbytes(dice.randint(1, 6))
        elif what == 3 and data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        else:
            data[at:at] = data[at : at + dice.randint(1, 40)]
    return bytes(data)


class Watch:
    """How long each input took, and how the memory of this process grew."""

    def __init__(self) -> None:
        self.count = 0
        self._slowest_s = 0.0
        self._began = time.monotonic()
        self._before = 0

    def run(self, call: Callable[[], None], data: bytes) -> None:
        begin = time.monotonic()
        call()
        took_s = time.monotonic() - begin
        assert took_s < MAX_SECONDS_EACH, f"{took_s:.1f} s for {data[:500]!r}"
        self._slowest_s = max(self._slowest_s, took_s)
        self.count += 1
        if self.count == _LEARNT_AFTER:
            self._before = _resident_bytes()

    def report(self, what: str) -> None:
        grown = _resident_bytes() - self._before
        rate, slowest_ms = self.count / (time.monotonic() - self._began), self._slowest_s * 1e3
        print(f"{what}: {self.count} inputs, {rate:.0f}/s, slowest {slowest_ms:.1f} ms, grown {grown >> 10} KiB")
        assert grown < MAX_GROWTH_BYTES


def fuzz(what: str, one: Callable[[random.Random, Watch], None], *, inputs: int, in_soak: int) -> None:
    """Have `one` try an input, over and over; a failure names the state of its dice. New ones in each soak."""
    wanted, watch = in_soak if SOAK else inputs, Watch()

    @settings(
        max_examples=wanted // _BATCH,
        derandomize=not SOAK,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),  # a state of the dice is not made simpler by making it smaller
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True))
    def batch(dice: random.Random) -> None:
        for _ in range(_BATCH):
            one(dice, watch)

    batch()
    watch.report(what)
    assert watch.count >= wanted


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
