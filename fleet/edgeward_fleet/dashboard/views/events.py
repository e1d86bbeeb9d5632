"""The life of a device in sentences: one for each update, with its steps, and one for whatever else happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from edgeward_contract.reported import UpdateState
from edgeward_contract.schema import JsonValue
from edgeward_fleet.dashboard.views.causes import of_alarms, of_update
from edgeward_fleet.dashboard.views.standings import Look
from edgeward_fleet.dashboard.words import span, state_word
from edgeward_fleet.devices.model import DeviceEvent
from edgeward_fleet.rollouts.analysis import FAILURES

_OK: Final = Look(tone="ok", sign="✓", word="done")
_BAD: Final = Look(tone="bad", sign="✕", word="failed")
_BUSY: Final = Look(tone="busy", sign="↻", word="under way")
_PLAIN: Final = Look(tone="idle", sign="·", word="")
_WARN: Final = Look(tone="warn", sign="!", word="alarm")
_KINDS: Final = {"enrolled": "Enrolled", "renewed": "Certificate renewed", "revoked": "Revoked"}
_QUIET_STEPS: Final = frozenset({UpdateState.SUPERSEDED, UpdateState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What happened, as a sentence. `detail` is smaller print."""

    at: datetime
    look: Look
    words: str
    detail: str = ""


def lines(events: Sequence[DeviceEvent]) -> tuple[Line, ...]:
    """Newest first, as `events` are."""
    return tuple(_line(group) for group in _together(events))


def _together(events: Iterable[DeviceEvent]) -> Iterator[tuple[DeviceEvent, ...]]:
    """The steps of an update that follow each other, with the changes of the live release that they made.

    An update that another model's came between shows twice; whoever reads it sees what came when.
    """
    group: list[DeviceEvent] = []
    for event in events:
        if group and not _belongs(event, group):
            yield tuple(group)
            group = []
        group.append(event)
    if group:
        yield tuple(group)


def _belongs(event: DeviceEvent, group: Sequence[DeviceEvent]) -> bool:
    if event.kind not in ("update", "live") or group[0].kind not in ("update", "live"):
        return False
    if _text(event, "model") != _text(group[0], "model"):
        return False
    deployments = {_text(each, "deployment") for each in (*group, event) if each.kind == "update"}
    return len(deployments) <= 1


def _line(group: Sequence[DeviceEvent]) -> Line:
    updates = [each for each in group if each.kind == "update"]
    return _update(group, updates) if updates else _single(group[0])


def _update(group: Sequence[DeviceEvent], updates: Sequence[DeviceEvent]) -> Line:
    """`updates` are the steps of one deployment, the last first."""
    last = updates[0]
    state, reason = _state(last), _text(last, "reason")
    steps = [step for step, _ in groupby(state_word(_text(each, "state")) for each in reversed(updates))]
    took = f" in {span(updates[0].at - updates[-1].at)}" if len(updates) > 1 else ""
    way = " → ".join(steps) + took if len(steps) > 1 else ""
    words = f"{_text(last, 'release')} {state_word(_text(last, 'state'))}"
    why = f": {of_update(reason).words}" if reason else ""
    detail = " · ".join(part for part in (_text(last, "detail"), way) if part)
    return Line(at=group[0].at, look=_look(state), words=words + why, detail=detail)


def _look(state: UpdateState | None) -> Look:
    if state in FAILURES and state not in _QUIET_STEPS:
        return _BAD
    if state is UpdateState.COMMITTED:
        return _OK
    return _PLAIN if state is None or state in _QUIET_STEPS else _BUSY


def _single(event: DeviceEvent) -> Line:
    match event.kind:
        case "live":
            return Line(at=event.at, look=_PLAIN, words=_answers(event))
        case "alarms":
            return _alarms(event)
        case _:
            rest = ", ".join(_fact(key, value) for key, value in event.detail.items() if value not in ("", None, False))
            return Line(
                at=event.at,
                look=_PLAIN,
                words=_KINDS.get(event.kind, state_word(event.kind).capitalize()),
                detail=rest,
            )


def _alarms(event: DeviceEvent) -> Line:
    now, before = (
        ", ".join(each.words for each in of_alarms(_text(event, key).split())) for key in ("alarms", "before")
    )
    if now:
        return Line(at=event.at, look=_WARN, words=f"Alarm: {now}", detail=f"before: {before}" if before else "")
    return Line(at=event.at, look=_OK, words="The alarms are over", detail=f"before: {before}" if before else "")


def _alarm_words(alarms: str) -> str:
    return ", ".join(each.words for each in of_alarms(alarms.split()))


def _answers(event: DeviceEvent) -> str:
    release, before = _text(event, "release"), _text(event, "before")
    if not release:
        return f"{_text(event, 'model')} answers no more"
    return f"Answers come from {release}{f', before from {before}' if before else ''}"


def _fact(key: str, value: JsonValue) -> str:
    text = str(value)
    return f"{state_word(key)} {text[:12]}…" if key == "serial" and len(text) > 12 else f"{state_word(key)} {text}"


def _state(event: DeviceEvent) -> UpdateState | None:
    """None for a state of a newer agent."""
    try:
        return UpdateState(_text(event, "state"))
    except ValueError:
        return None


def _text(event: DeviceEvent, key: str) -> str:
    detail: Mapping[str, JsonValue] = event.detail
    value = detail.get(key)
    return value if isinstance(value, str) else ""
