"""Waiting for a condition with a deadline, never for luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, *, within_s: float = 20.0) -> None:
    """Return as soon as `condition` holds; raise AssertionError when it does not within `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {within_s:g} s"
        time.sleep(0.02)


async def eventually(condition: Callable[[], bool], what: str, *, within_s: float = 20.0) -> None:
    """`until` for a test that runs on the event loop."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {within_s:g} s"
        await asyncio.sleep(0.005)
