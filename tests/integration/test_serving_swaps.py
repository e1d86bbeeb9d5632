"""Swap after swap in the real serving process: what is left of the old versions in its memory."""

from __future__ import annotations

import os

from benchmarks import swaps

SWAPS = 200 if os.environ.get("EDGEWARD_SOAK") else 30


def test_the_memory_of_old_versions_is_given_back() -> None:
    with swaps.scene() as scene:
        first = scene.resident_bytes()
        resident = [scene.swap(number) for number in range(SWAPS)]
    assert max(resident) <= 1.1 * first, [each >> 20 for each in (first, *resident)]
