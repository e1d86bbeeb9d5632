"""The list of devices: a page at a time, with filters that live in the URL. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.queries.devices import Condition, Glance, Runs
from edgeward_fleet.dashboard.views.fleet import CERTIFICATE_WARNING, CONDITIONS, OUTBOX_WARNING_S
from edgeward_fleet.dashboard.words import plural

PAGE: Final = 50


class Concern(StrEnum):
    """What the overview points at, across conditions."""

    CERTIFICATE = "certificate"
    OUTBOX = "outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFilter:
    """What is empty matches everything. `search` is a part of the name."""

    site: str = ""
    state: Condition | None = None
    release: str = ""
    search: str = ""
    attention: Concern | None = None

    @property
    def is_on(self) -> bool:
        return self != DeviceFilter()

    def query(self, after: str = "") -> str:
        return query_string(
            site=self.site,
            state=self.state.value if self.state else None,
            release=self.release,
            search=self.search,
            attention=self.attention.value if self.attention else None,
            after=after,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One device of the page."""

    glance: Glance
    tone: str
    runs: tuple[Runs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesView:
    """A page of the list; `next` is the query of the following one."""

    rows: tuple[Row, ...]
    chosen: DeviceFilter
    sites: tuple[str, ...]
    summary: str
    next: str
    first: str
    is_empty: bool

    def with_runs(self, runs: Mapping[DeviceId, tuple[Runs, ...]]) -> DevicesView:
        """What the devices of this page run, which is asked for once the page is known."""
        return replace(self, rows=tuple(replace(row, runs=runs.get(row.glance.device, ())) for row in self.rows))


def devices_view(
    glances: Sequence[Glance],
    chosen: DeviceFilter,
    running: Collection[DeviceId] | None,
    after: str,
    now: datetime,
) -> DevicesView:
    """The devices behind `after` that match; `running` are those of the chosen release, None when none is chosen."""
    found = [each for each in glances if _matches(each, chosen, now) and (running is None or each.device in running)]
    rest = [each for each in found if each.device > after]
    shown, more = rest[:PAGE], len(rest) > PAGE
    start = len(found) - len(rest)
    return DevicesView(
        rows=tuple(Row(glance=each, tone=CONDITIONS[each.condition]) for each in shown),
        chosen=chosen,
        sites=tuple(sorted({each.site for each in glances})),
        summary=_summary(len(found), start, len(shown), chosen),
        next=chosen.query(shown[-1].device) if more else "",
        first=chosen.query() or "?" if start else "",
        is_empty=not glances,
    )


def _matches(glance: Glance, chosen: DeviceFilter, now: datetime) -> bool:
    if chosen.state is None and glance.condition is Condition.REVOKED and not chosen.search:
        return False  # whoever looks for one finds it
    return (
        (not chosen.site or glance.site == chosen.site)
        and chosen.state in (None, glance.condition)
        and chosen.search.lower() in glance.device.lower()
        and (chosen.attention is None or _wants(glance, chosen.attention, now))
    )


def _wants(glance: Glance, concern: Concern, now: datetime) -> bool:
    if concern is Concern.OUTBOX:
        return glance.outbox_oldest_s > OUTBOX_WARNING_S
    return glance.certificate_ends is None or glance.certificate_ends - now < CERTIFICATE_WARNING


def _summary(total: int, start: int, shown: int, chosen: DeviceFilter) -> str:
    found = f"{plural(total, 'device')}{' found' if chosen.is_on else ''}"
    return f"{found}, {start + 1} to {start + shown} shown" if shown < total else found
