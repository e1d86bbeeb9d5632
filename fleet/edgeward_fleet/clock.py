"""The clock is a value that is passed in, so that tests can move it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def is_due(last: datetime | None, now: datetime, resolution: timedelta) -> bool:
    """Whether a time that is noted only so often should be noted again: also when a clock that ran ahead wrote it."""
    return last is None or not timedelta() <= now - last < resolution


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T19:16:00.123456Z`: UTC, always with microseconds, so that text sorts as time does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
