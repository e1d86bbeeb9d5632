"""The devices of a rollout as a table: what went wrong first, a page at a time, with a filter that lives in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.views.standings import BACKS, STANDINGS, Look
from edgeward_fleet.rollouts.model import Back, Rollout, RolloutDevice, Standing

PAGE: Final = 50
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
    """One device."""

    device: RolloutDevice
    phase: str
    look: Look
    back: Look | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A choice of standing, with how many it would show."""

    label: str
    count: int
    query: str
    is_chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTable:
    """A page of the table; `next` is the query of the following one."""

    rows: tuple[Row, ...]
    filters: tuple[Filter, ...]
    total: int
    next: str
    is_first: bool


def device_table(rollout: Rollout, standing: Standing | None, after: str) -> DeviceTable:
    """The rows behind the device `after`, of `standing` or of all."""
    ordered = sorted(rollout.devices, key=lambda each: (_ORDER.index(each.standing), each.phase, each.device))
    wanted = [each for each in ordered if standing in (None, each.standing)]
    start = next((number + 1 for number, each in enumerate(wanted) if each.device == after), 0)
    shown = wanted[start : start + PAGE]
    more = len(wanted) > start + PAGE
    chosen = standing.value if standing else None
    return DeviceTable(
        rows=tuple(_row(rollout, each) for each in shown),
        filters=_filters(ordered, standing),
        total=len(wanted),
        next=query_string(standing=chosen, after=shown[-1].device) if more else "",
        is_first=start == 0,
    )


def _row(rollout: Rollout, device: RolloutDevice) -> Row:
    return Row(
        device=device,
        phase=rollout.spec.phases[device.phase].name,
        look=STANDINGS[device.standing],
        back=BACKS[device.back] if device.back is not Back.NONE else None,
    )


def _filters(devices: Sequence[RolloutDevice], chosen: Standing | None) -> tuple[Filter, ...]:
    everyone = Filter(label="all", count=len(devices), query="?", is_chosen=chosen is None)
    counts = {each: sum(device.standing is each for device in devices) for each in _ORDER}
    return (
        everyone,
        *(
            Filter(
                label=STANDINGS[each].word,
                count=counts[each],
                query=query_string(standing=each.value),
                is_chosen=chosen is each,
            )
            for each in _ORDER
            if counts[each] or chosen is each
        ),
    )
