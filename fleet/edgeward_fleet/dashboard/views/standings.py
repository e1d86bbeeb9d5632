"""How the standings of devices in a rollout look and read. Never by colour alone: each has a sign and a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_fleet.dashboard.views.strips import Segment, Strip, strip
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Back, RolloutDevice, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`tone` is a class of the style sheet, `sign` one character, `word` what it means."""

    tone: str
    sign: str
    word: str


STANDINGS: Final[Mapping[Standing, Look]] = {
    Standing.SUCCEEDED: Look(tone="ok", sign="✓", word="succeeded"),
    Standing.ALREADY: Look(tone="ok-quiet", sign="✓", word="had it before"),
    Standing.WORKING: Look(tone="busy", sign="↻", word="at it"),
    Standing.UNKNOWN: Look(tone="unknown", sign="?", word="not heard of"),
    Standing.FAILED: Look(tone="bad", sign="✕", word="failed"),
    Standing.WAITING: Look(tone="idle", sign="·", word="not offered yet"),
    Standing.LEFT: Look(tone="left", sign="–", word="left"),
}
ENDED: Final[Mapping[Standing, Look]] = {
    **STANDINGS,
    Standing.WORKING: Look(tone="off", sign="↻", word="was at it"),
    Standing.WAITING: Look(tone="idle", sign="·", word="never offered"),
}
"""Of a rollout that nothing happens to any more: a standing stays as it was when it stopped."""
TAKEN_BACK: Final[Mapping[Standing, Look]] = {
    **ENDED,
    Standing.SUCCEEDED: Look(tone="off", sign="✓", word="had succeeded"),
}
"""Of a rollout whose release is taken from its devices: green would say that they have it."""
BACKS: Final[Mapping[Back, Look]] = {
    Back.PROVEN: Look(tone="ok", sign="✓", word="back, proven"),
    Back.NEVER_TOOK: Look(tone="ok-quiet", sign="✓", word="never took it"),
    Back.ASKED: Look(tone="busy", sign="↺", word="no proof yet"),
    Back.LEFT: Look(tone="left", sign="–", word="left"),
}
_MOVING: Final = frozenset(
    {RolloutState.AWAITING_APPROVAL, RolloutState.SCHEDULED, RolloutState.PROGRESSING, RolloutState.PAUSED}
)
_GOES_BACK: Final = frozenset({RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.ROLLBACK_INCOMPLETE})
STATES: Final[Mapping[RolloutState, str]] = {
    RolloutState.DRAFT: "idle",
    RolloutState.VALIDATING: "idle",
    RolloutState.AWAITING_APPROVAL: "warn",
    RolloutState.SCHEDULED: "idle",
    RolloutState.PROGRESSING: "busy",
    RolloutState.PAUSED: "warn",
    RolloutState.ABORTING: "bad",
    RolloutState.ABORTED: "bad",
    RolloutState.ROLLING_BACK: "bad",
    RolloutState.ROLLED_BACK: "bad",
    RolloutState.ROLLBACK_INCOMPLETE: "bad",
    RolloutState.SUPERSEDED: "idle",
    RolloutState.EXPIRED: "idle",
    RolloutState.SUCCEEDED: "ok",
}


def looks(state: RolloutState) -> Mapping[Standing, Look]:
    """How standings read in a rollout that is in `state`."""
    if state in _GOES_BACK:
        return TAKEN_BACK
    return STANDINGS if state in _MOVING else ENDED


def standing_strip(counts: Mapping[Standing, int], state: RolloutState, *, leads: bool = False) -> Strip:
    """All devices by what is proven of them; on the page of the rollout each part `leads` to its devices."""
    return strip(
        [
            Segment(
                label=look.word,
                count=counts.get(each, 0),
                tone=look.tone,
                href=f"?standing={each.value}#devices" if leads else "",
            )
            for each, look in looks(state).items()
        ]
    )


def back_strip(devices: Sequence[RolloutDevice]) -> Strip:
    """The devices that are given their former release, by what is proven of that."""
    return strip(
        [
            Segment(label=look.word, count=sum(device.back is each for device in devices), tone=look.tone)
            for each, look in BACKS.items()
        ]
    )
