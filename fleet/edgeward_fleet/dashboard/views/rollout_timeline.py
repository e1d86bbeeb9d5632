"""What happened to a rollout, as sentences about somebody: people, the fleet, and devices many at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from edgeward_fleet.audit.model import SYSTEM
from edgeward_fleet.dashboard.views.causes import of_update
from edgeward_fleet.dashboard.words import plural, state_word
from edgeward_fleet.rollouts.repository import RolloutLine

_NAMES_SHOWN: Final = 4
_FLEET: Final = "the fleet"
VERBS: Final[Mapping[str, str]] = {
    "approve": "approved it",
    "created": "asked for it",
    "pause": "paused it",
    "resume": "resumed it",
    "abort": "aborted it",
    "roll_back": "rolled it back",
    "supersede": "superseded it",
    "start_due": "started it",
    "offered": "offered it to",
    "taken_back": "gave the former release to",
    "phase_passed": "passed the phase",
    "all_phases_passed": "finished it",
    "inconclusive": "paused it without a verdict",
    "failed_pause": "paused it",
    "failed_abort": "aborted it",
    "failed_roll_back": "began to take it back",
    "withdrawn": "has withdrawn every offer",
    "all_proven_back": "has every device back",
    "back_timed_out": "waits for proof no longer",
    "approval_expired": "let it expire",
    "unwatched": "was away",
}
_STEPS: Final[Mapping[str, str]] = {
    "selected": "opens {}",
    "offered": "has made the offers of {}",
    "soaks": "waits while {} soaks",
    "is analysed": "judges {}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`detail` is smaller print."""

    at: datetime
    actor: str
    words: str
    detail: str = ""


def lines(timeline: Sequence[RolloutLine]) -> tuple[Line, ...]:
    """In the order of `timeline`. Devices that did the same, one after the other, are one line."""
    return tuple(_line(tuple(group)) for _, group in groupby(timeline, _alike))


def _alike(line: RolloutLine) -> tuple[object, ...]:
    """The key of lines that are told together: the same of devices, and nothing else."""
    return ("device", *_device_words(line.detail)[:1]) if line.kind == "device" else ("alone", line.event_id)


def _line(group: Sequence[RolloutLine]) -> Line:
    first = group[0]
    if first.kind == "device":
        words, detail = _device_words(first.detail)
        if len(group) == 1:
            return Line(at=first.at, actor=first.actor, words=words, detail=detail)
        return Line(
            at=first.at, actor=plural(len(group), "device"), words=words, detail=_names([each.actor for each in group])
        )
    return Line(at=first.at, actor=_FLEET if first.actor == SYSTEM.name else first.actor, **_words(first))


def _device_words(said: str) -> tuple[str, str]:
    """`FAILED golden_mismatch risk differs` is what a device did, why, and its own words."""
    standing, reason, detail = (*said.split(" ", 2), "", "")[:3]
    if not standing.isupper():
        return said, ""
    return state_word(standing) + (f": {of_update(reason).words}" if reason else ""), detail


def _words(line: RolloutLine) -> dict[str, str]:
    """A command needs its verb; what the fleet says is a sentence already."""
    match line.kind:
        case "step":
            return {"words": _step(line.detail)}
        case "offered" | "taken_back":
            devices = line.detail.split(", ")
            return {"words": f"{VERBS[line.kind]} {plural(len(devices), 'device')}", "detail": _names(devices)}
        case _:
            return {"words": VERBS.get(line.kind, state_word(line.kind)), "detail": line.detail}


def _step(detail: str) -> str:
    """`phase 'canary' soaks` is what the fleet notes of a step."""
    for end, words in _STEPS.items():
        if detail.endswith(f" {end}"):
            return words.format(detail.removesuffix(f" {end}"))
    return detail


def _names(devices: Sequence[str]) -> str:
    shown = ", ".join(devices[:_NAMES_SHOWN])
    more = len(devices) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
