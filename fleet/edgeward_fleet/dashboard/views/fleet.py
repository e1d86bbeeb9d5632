"""The overview: how the fleet is, where, which versions it runs, and what wants a person. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.queries.devices import Condition, Glance
from edgeward_fleet.dashboard.queries.releases import VersionCount
from edgeward_fleet.dashboard.queries.rollouts import ListedRollout
from edgeward_fleet.dashboard.views.attention import Attention, attention
from edgeward_fleet.dashboard.views.strips import Segment, Strip, strip
from edgeward_fleet.dashboard.words import plural

SITES_SHOWN: Final = 12
CONDITIONS: Final = {
    Condition.ONLINE: "ok",
    Condition.LATE: "warn",
    Condition.OFFLINE: "off",
    Condition.FAILING: "bad",
    Condition.NEVER: "idle",
    Condition.REVOKED: "left",
}
WORDS: Final = {Condition.NEVER: "never heard of"}
"""Where the name of a condition does not read as a word."""
_WORST_FIRST: Final = (Condition.FAILING, Condition.OFFLINE, Condition.LATE, Condition.NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site's devices; `wrong` says how many are not online, and why."""

    name: str
    devices: int
    strip: Strip
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpread:
    """The versions of a model that are live or wanted somewhere."""

    model: str
    strip: Strip
    versions: tuple[VersionCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the overview is drawn from.

    `rollouts` are the newest under way, then the last that have ended; `wanting` are all that may want a person.
    """

    glances: Sequence[Glance] = ()
    versions: Sequence[VersionCount] = ()
    rollouts: Sequence[ListedRollout] = ()
    wanting: Sequence[ListedRollout] = ()
    astray: Collection[DeviceId] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """The whole overview. A fleet without devices shows the way to the first one instead.

    `release` is one that could be rolled out, "" while there is none.
    `sites` are those that are shown, the worst first; `all_sites` is their number.
    """

    devices: int
    health: Strip
    summary: str
    attention: tuple[Attention, ...]
    sites: tuple[Site, ...]
    all_sites: int
    spread: tuple[ModelSpread, ...]
    rollouts: tuple[ListedRollout, ...]
    release: str


def fleet_view(seen: Seen, now: datetime, *, every_site: bool = False) -> FleetView:
    """`every_site` shows also those beyond the worst SITES_SHOWN."""
    present = [each for each in seen.glances if each.condition is not Condition.REVOKED]
    wanting = attention(present, seen.wanting, seen.astray, now)
    sites = _sites(present)
    return FleetView(
        devices=len(present),
        health=health_strip(present),
        summary=_summary(present, wanting),
        attention=wanting,
        sites=sites if every_site else sites[:SITES_SHOWN],
        all_sites=len(sites),
        spread=tuple(_spread(seen.versions)),
        rollouts=tuple(seen.rollouts),
        release=f"{seen.versions[0].model}@{seen.versions[0].version}" if seen.versions else "",
    )


def health_strip(glances: Iterable[Glance], site: str = "") -> Strip:
    """Devices by condition; each part leads to its devices."""
    conditions = [each.condition for each in glances]
    return strip(
        [
            Segment(
                label=WORDS.get(each, each.value),
                count=conditions.count(each),
                tone=tone,
                href="/devices" + query_string(site=site, state=each.value),
            )
            for each, tone in CONDITIONS.items()
            if each not in (Condition.NEVER, Condition.REVOKED) or each in conditions
        ]
    )


def _summary(present: Sequence[Glance], wanting: Sequence[Attention]) -> str:
    sites = len({each.site for each in present})
    needs = (
        "Nothing needs attention."
        if not wanting
        else f"{plural(len(wanting), 'thing needs', 'things need')} attention."
    )
    return f"{plural(len(present), 'device')} at {plural(sites, 'site')}. {needs}"


def _sites(present: Sequence[Glance]) -> tuple[Site, ...]:
    """The share of devices that are not well decides, and how badly; names order those that are equal."""
    by_site: dict[str, list[Glance]] = {}
    for each in present:
        by_site.setdefault(each.site, []).append(each)
    found = [_site(name, members) for name, members in by_site.items()]
    return tuple(site for _, site in sorted(found, key=lambda each: (each[0], each[1].name)))


def _site(name: str, members: Sequence[Glance]) -> tuple[tuple[float, ...], Site]:
    counts = {each: sum(member.condition is each for member in members) for each in _WORST_FIRST}
    wrong = ", ".join(f"{counts[each]} {WORDS.get(each, each.value)}" for each in _WORST_FIRST if counts[each])
    rank = tuple(-counts[each] / len(members) for each in _WORST_FIRST)
    return rank, Site(name=name, devices=len(members), strip=health_strip(members, name), wrong=wrong)


def _spread(versions: Sequence[VersionCount]) -> Iterable[ModelSpread]:
    for model in dict.fromkeys(each.model for each in versions):
        used = tuple(each for each in versions if each.model == model and (each.live or each.desired))
        if used:
            yield ModelSpread(model=model, strip=version_strip(used), versions=used)


def version_strip(used: Sequence[VersionCount]) -> Strip:
    """Live devices by version, newest first; the tone fades with age, the label names the version."""
    return strip(
        [
            Segment(
                label=f"on version {each.version}",
                count=each.live,
                tone=f"version-{min(age, 4)}",
                href=f"/devices?release={each.model}%40{each.version}",
            )
            for age, each in enumerate(used)
        ]
    )
