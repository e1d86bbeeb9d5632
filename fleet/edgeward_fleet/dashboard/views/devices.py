"""The list of devices: a page at a time, with filters and an order that live in the URL. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.queries.devices import Condition, Glance, Runs
from edgeward_fleet.dashboard.views.attention import Concern, wants
from edgeward_fleet.dashboard.views.fleet import CONDITIONS, WORDS
from edgeward_fleet.dashboard.views.paging import Pages, pages
from edgeward_fleet.dashboard.words import plural

PAGE: Final = 50
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_WORST_FIRST: Final = (
    Condition.FAILING,
    Condition.OFFLINE,
    Condition.LATE,
    Condition.NEVER,
    Condition.ONLINE,
    Condition.REVOKED,
)


class Order(StrEnum):
    """What stands first. Ties are in the order of names."""

    NAME = "name"
    TROUBLE = "trouble"
    SILENCE = "silence"
    OUTBOX = "outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFilter:
    """What is empty matches everything. `search` is a part of the name."""

    site: str = ""
    state: Condition | None = None
    release: str = ""
    search: str = ""
    attention: Concern | None = None
    order: Order = Order.NAME

    @property
    def is_on(self) -> bool:
        return replace(self, order=Order.NAME) != DeviceFilter()

    def query(self, page: int = 1) -> str:
        """The address of a page of the list, "" for the whole list from its beginning."""
        return query_string(
            site=self.site,
            state=self.state.value if self.state else None,
            release=self.release,
            search=self.search,
            attention=self.attention.value if self.attention else None,
            order=self.order.value if self.order is not Order.NAME else None,
            page=page if page > 1 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One device of the page."""

    glance: Glance
    tone: str
    runs: tuple[Runs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A condition to choose, with how many devices it would show beside the other filters."""

    label: str
    count: int
    href: str
    is_chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A heading that orders the list. `href` is "" for the order that there is."""

    label: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the list is made of. `running` are the devices of the chosen release, None when none is chosen."""

    glances: Sequence[Glance]
    running: Collection[DeviceId] | None = None
    astray: Collection[DeviceId] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesView:
    """A page of the list."""

    rows: tuple[Row, ...]
    chosen: DeviceFilter
    choices: tuple[Choice, ...]
    columns: Mapping[str, Column]
    summary: str
    pages: Pages

    @property
    def address(self) -> str:
        """Of this page of this list."""
        return self.chosen.query(self.pages.number)

    def with_runs(self, runs: Mapping[DeviceId, tuple[Runs, ...]]) -> DevicesView:
        """What the devices of this page run, which is asked for once the page is known."""
        return replace(self, rows=tuple(replace(row, runs=runs.get(row.glance.device, ())) for row in self.rows))


def devices_view(found: Found, chosen: DeviceFilter, page: int, now: datetime) -> DevicesView:
    """The devices that match, in their order; a page beyond the last is the last."""
    beside = [each for each in found.glances if _matches(each, chosen, found, now)]
    matching = sorted((each for each in beside if _is_shown(each, chosen)), key=_KEYS[chosen.order])
    numbered = pages(len(matching), page, PAGE, lambda number: "/devices" + chosen.query(number))
    shown = matching[numbered.skipped : numbered.skipped + PAGE]
    return DevicesView(
        rows=tuple(Row(glance=each, tone=CONDITIONS[each.condition]) for each in shown),
        chosen=chosen,
        choices=_choices(beside, chosen),
        columns={each.value: _column(each, chosen) for each in Order},
        summary=f"{plural(len(matching), 'device')}{' found' if chosen.is_on else ''}",
        pages=numbered,
    )


def _matches(glance: Glance, chosen: DeviceFilter, found: Found, now: datetime) -> bool:
    """By everything but the condition."""
    return (
        (not chosen.site or glance.site == chosen.site)
        and chosen.search.lower() in glance.device.lower()
        and (chosen.attention is None or wants(glance, chosen.attention, found.astray, now))
        and (found.running is None or glance.device in found.running)
    )


def _is_shown(glance: Glance, chosen: DeviceFilter) -> bool:
    if chosen.state is None:
        return glance.condition is not Condition.REVOKED or bool(chosen.search)  # whoever looks for one finds it
    return glance.condition is chosen.state


def _choices(beside: Sequence[Glance], chosen: DeviceFilter) -> tuple[Choice, ...]:
    conditions = [each.condition for each in beside]
    counts = {each: conditions.count(each) for each in CONDITIONS}
    everyone = replace(chosen, state=None)
    shown = sum(_is_shown(each, everyone) for each in beside)
    return (
        Choice(label="all", count=shown, href="/devices" + everyone.query(), is_chosen=chosen.state is None),
        *(
            Choice(
                label=WORDS.get(each, each.value),
                count=counts[each],
                href="/devices" + replace(chosen, state=each).query(),
                is_chosen=chosen.state is each,
            )
            for each in CONDITIONS
            if counts[each] or chosen.state is each
        ),
    )


def _column(order: Order, chosen: DeviceFilter) -> Column:
    here = chosen.order is order
    return Column(label=_LABELS[order], href="" if here else "/devices" + replace(chosen, order=order).query())


_LABELS: Final = {
    Order.NAME: "Device",
    Order.TROUBLE: "Health",
    Order.SILENCE: "Heard of",
    Order.OUTBOX: "Outbox",
}
ORDERS: Final = {
    Order.NAME: "by name",
    Order.TROUBLE: "in trouble first",
    Order.SILENCE: "longest silent first",
    Order.OUTBOX: "oldest results first",
}
"""What a person chooses."""


def _name(glance: Glance) -> tuple[float, str]:
    return (0, glance.device)


def _trouble(glance: Glance) -> tuple[float, str]:
    return (_WORST_FIRST.index(glance.condition), glance.device)


def _silence(glance: Glance) -> tuple[float, str]:
    return ((glance.last_seen_at or _LONG_AGO).timestamp(), glance.device)


def _outbox(glance: Glance) -> tuple[float, str]:
    return (-glance.outbox_oldest_s, glance.device)


_KEYS: Final = {Order.NAME: _name, Order.TROUBLE: _trouble, Order.SILENCE: _silence, Order.OUTBOX: _outbox}
