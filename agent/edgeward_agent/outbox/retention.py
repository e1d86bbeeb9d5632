"""What may stay and what must go. Pure: numbers in, decisions out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

DAY_S: Final = 86_400


class Admission(Enum):
    """What to do with records that ask for room."""

    ADMIT = auto()
    DROP_OLDEST = auto()  # delete telemetry, then ask again
    DISCARD = auto()  # telemetry itself, and none older is left to make way for it: only its tombstone stays
    REFUSE = auto()


def admit(*, used_bytes: int, need_bytes: int, limit_bytes: int, droppable: bool, telemetry: bool) -> Admission:
    """Telemetry makes way for everything, oldest first; results and audit make way for nothing.

    `droppable`: there is telemetry in the store. `telemetry`: what asks is telemetry. What could not fit
    an empty store drops nobody.
    """
    if used_bytes + need_bytes <= limit_bytes:
        return Admission.ADMIT
    if droppable and need_bytes <= limit_bytes:
        return Admission.DROP_OLDEST
    return Admission.DISCARD if telemetry else Admission.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodUse:
    """A data key, the day (since 1970) it was made for, and how many rows still need it, quarantine included."""

    key_id: str
    day: int
    rows: int


def period_of(wall_s: float) -> int:
    """The day that a data key serves. A clock that jumps only makes another key."""
    return max(0, int(wall_s // DAY_S))


def keys_to_destroy(uses: Iterable[PeriodUse], *, today: int, retention_days: int) -> tuple[str, ...]:
    """Keys that no row needs and whose period is over.

    A day after today was named by a clock that was wrong; its key would otherwise stay for years.
    """
    return tuple(use.key_id for use in uses if use.rows == 0 and (use.day + retention_days < today or use.day > today))


def age_s(*, oldest_wall_us: int | None, now_wall_s: float) -> int:
    """Seconds since the oldest record; 0 for none, or when the clock was set back."""
    if oldest_wall_us is None:
        return 0
    return max(0, int(now_wall_s - oldest_wall_us / 1e6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Records given up for room: `count` of them, numbered `first` to `last` in `epoch`."""

    epoch: str
    first: int
    last: int
    count: int

    def join(self, other: Span) -> Span:
        return Span(
            epoch=self.epoch,
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            count=self.count + other.count,
        )


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """One span per epoch, in the order in which the epochs first appear."""
    by_epoch: dict[str, Span] = {}
    for span in spans:
        by_epoch[span.epoch] = by_epoch[span.epoch].join(span) if span.epoch in by_epoch else span
    return tuple(by_epoch.values())
