"""The devices of a rollout as a table: what went wrong first, a page at a time, with a filter that lives in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.views.causes import of_update
from edgeward_fleet.dashboard.views.paging import Pages, pages
from edgeward_fleet.dashboard.views.standings import BACKS, Look, looks
from edgeward_fleet.dashboard.words import state_word
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Back, Rollout, RolloutDevice, Standing

PAGE: Final = 25
_ORDER: Final = (
    Standing.FAILED,
    Standing.WORKING,
    Standing.UNKNOWN,
    Standing.SUCCEEDED,
    Standing.ALREADY,
    Standing.WAITING,
    Standing.LEFT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One device. `look` is where it stands now; `note` is the step that it is at, or where it stood before."""

    device: RolloutDevice
    phase: str
    look: Look
    note: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A choice of standing, with how many it would show."""

    label: str
    count: int
    href: str
    is_chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTable:
    """A page of the table."""

    rows: tuple[Row, ...]
    filters: tuple[Filter, ...]
    pages: Pages


def device_table(rollout: Rollout, standing: Standing | None, page: int) -> DeviceTable:
    """The rows of `standing` or of all; a page beyond the last is the last."""
    ordered = sorted(rollout.devices, key=_urgency)
    wanted = [each for each in ordered if standing in (None, each.standing)]
    numbered = pages(len(wanted), page, PAGE, lambda number: _href(standing, number))
    return DeviceTable(
        rows=tuple(_row(rollout, each) for each in wanted[numbered.skipped : numbered.skipped + PAGE]),
        filters=_filters(ordered, standing, rollout.state),
        pages=numbered,
    )


def _urgency(device: RolloutDevice) -> tuple[bool, int, int, str]:
    """Who is not proven back comes before whatever happened earlier."""
    return device.back is not Back.ASKED, _ORDER.index(device.standing), device.phase, device.device


def _href(standing: Standing | None, page: int = 1) -> str:
    query = query_string(standing=standing.value if standing else None, page=page if page > 1 else None)
    return f"{query or '?'}#devices"


def _row(rollout: Rollout, device: RolloutDevice) -> Row:
    standing = looks(rollout.state)[device.standing]
    return Row(
        device=device,
        phase=rollout.spec.phases[device.phase].name,
        look=standing if device.back is Back.NONE else BACKS[device.back],
        note=_step(device) if device.back is Back.NONE else f"before: {standing.word}",
        why=_why(device),
    )


def _step(device: RolloutDevice) -> str:
    return state_word(device.reason) if device.standing is Standing.WORKING else ""


def _why(device: RolloutDevice) -> str:
    """What a device that failed says, and what it means."""
    if device.standing is not Standing.FAILED:
        return device.detail
    words = of_update(device.reason).words
    return f"{words} ({device.detail})" if device.detail else words


def _filters(devices: Sequence[RolloutDevice], chosen: Standing | None, state: RolloutState) -> tuple[Filter, ...]:
    everyone = Filter(label="all", count=len(devices), href=_href(None), is_chosen=chosen is None)
    counts = {each: sum(device.standing is each for device in devices) for each in _ORDER}
    return (
        everyone,
        *(
            Filter(
                label=looks(state)[each].word,
                count=counts[each],
                href=_href(each),
                is_chosen=chosen is each,
            )
            for each in _ORDER
            if counts[each] or chosen is each
        ),
    )
