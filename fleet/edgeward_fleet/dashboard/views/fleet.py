"""The overview: how the fleet is, where, which versions it runs, and what wants a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.queries.devices import Condition, Glance
from edgeward_fleet.dashboard.queries.releases import VersionCount
from edgeward_fleet.dashboard.queries.rollouts import ListedRollout
from edgeward_fleet.dashboard.views.standings import STATES
from edgeward_fleet.dashboard.views.strips import Segment, Strip, strip
from edgeward_fleet.dashboard.words import duration, plural, state_word
from edgeward_fleet.rollouts.machine import RolloutState

CERTIFICATE_WARNING: Final = timedelta(days=5)  # devices renew at two thirds of 30 days: one that is here has not
OUTBOX_WARNING_S: Final = 3600
_NAMES_SHOWN: Final = 3

CONDITIONS: Final = {
    Condition.ONLINE: "ok",
    Condition.LATE: "warn",
    Condition.OFFLINE: "idle",
    Condition.FAILING: "bad",
    Condition.NEVER: "unknown",
    Condition.REVOKED: "left",
}
_WANTING: Final = {
    RolloutState.AWAITING_APPROVAL: "waits for approval",
    RolloutState.PAUSED: "is paused",
    RolloutState.ROLLBACK_INCOMPLETE: "could not be rolled back everywhere",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Something that a person should look at; `tone` says how soon."""

    tone: str
    title: str
    detail: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site's devices."""

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
class FleetView:
    """The whole overview. A fleet without devices shows the way to the first one instead."""

    devices: int
    health: Strip
    summary: str
    attention: tuple[Attention, ...]
    sites: tuple[Site, ...]
    spread: tuple[ModelSpread, ...]
    rollouts: tuple[ListedRollout, ...]
    has_releases: bool


def fleet_view(
    glances: Sequence[Glance], versions: Sequence[VersionCount], rollouts: Sequence[ListedRollout], now: datetime
) -> FleetView:
    """`rollouts` are those that are not finished."""
    present = [each for each in glances if each.condition is not Condition.REVOKED]
    wanting = (*_of_rollouts(rollouts), *_of_devices(present, now))
    return FleetView(
        devices=len(present),
        health=health_strip(present),
        summary=_summary(present, wanting),
        attention=wanting,
        sites=tuple(_sites(present)),
        spread=tuple(_spread(versions)),
        rollouts=tuple(rollouts),
        has_releases=bool(versions),
    )


def health_strip(glances: Iterable[Glance], site: str = "") -> Strip:
    """Devices by condition; each part leads to its devices."""
    conditions = [each.condition for each in glances]
    return strip(
        [
            Segment(
                label=each.value,
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


def _of_rollouts(rollouts: Iterable[ListedRollout]) -> Iterable[Attention]:
    for rollout in rollouts:
        if rollout.state in _WANTING:
            name = f" ({rollout.spec.name})" if rollout.spec.name else ""
            yield Attention(
                tone=STATES[rollout.state],
                title=f"Rollout of {rollout.spec.release}{name} {_WANTING[rollout.state]}",
                detail=rollout.reason or f"asked for by {rollout.created_by}",
                href=f"/rollouts/{rollout.id}",
            )


def _of_devices(present: Sequence[Glance], now: datetime) -> Iterable[Attention]:
    failing = [each for each in present if each.condition is Condition.FAILING]
    for each in failing[:_NAMES_SHOWN]:
        words = ", ".join(state_word(word) for word in each.unwell)
        yield Attention(tone="bad", title=f"{each.device} says that it is unwell", detail=words, href=_page_of(each))
    if len(failing) > _NAMES_SHOWN:
        rest = plural(len(failing) - _NAMES_SHOWN, "more device says", "more devices say")
        yield Attention(tone="bad", title=f"{rest} so", detail="", href="/devices?state=failing")
    yield from _group(
        [each for each in present if each.condition is Condition.OFFLINE],
        "is offline",
        "are offline",
        "/devices?state=offline",
    )
    yield from _of_certificates(present, now)
    yield from _of_outboxes(present)


def _of_certificates(present: Sequence[Glance], now: datetime) -> Iterable[Attention]:
    ending = [
        each for each in present if each.certificate_ends is None or each.certificate_ends - now < CERTIFICATE_WARNING
    ]
    yield from _group(
        ending,
        "has a certificate that ends soon or has ended",
        "have certificates that end soon or have ended",
        _page_of(ending[0]) if len(ending) == 1 else "/devices?attention=certificate",
    )


def _of_outboxes(present: Sequence[Glance]) -> Iterable[Attention]:
    full = [each for each in present if each.outbox_oldest_s > OUTBOX_WARNING_S]
    oldest = max((each.outbox_oldest_s for each in full), default=0)
    yield from _group(
        full,
        f"has kept results for {duration(oldest)}",
        f"have kept results for up to {duration(oldest)}",
        _page_of(full[0]) if len(full) == 1 else "/devices?attention=outbox",
    )


def _group(found: Sequence[Glance], one: str, many: str, href: str) -> Iterable[Attention]:
    if not found:
        return
    names = ", ".join(each.device for each in found[:_NAMES_SHOWN]) + (", …" if len(found) > _NAMES_SHOWN else "")
    title = f"{found[0].device} {one}" if len(found) == 1 else f"{plural(len(found), 'device')} {many}"
    yield Attention(tone="warn", title=title, detail=names if len(found) > 1 else f"site {found[0].site}", href=href)


def _page_of(glance: Glance) -> str:
    return f"/devices/{glance.device}"


def _sites(present: Sequence[Glance]) -> Iterable[Site]:
    by_site: dict[str, list[Glance]] = {}
    for each in present:
        by_site.setdefault(each.site, []).append(each)
    for name, members in sorted(by_site.items()):
        counts = {each: sum(member.condition is each for member in members) for each in Condition}
        wrong = ", ".join(
            f"{counts[each]} {each.value}" for each in Condition if counts[each] and each is not Condition.ONLINE
        )
        yield Site(name=name, devices=len(members), strip=health_strip(members, name), wrong=wrong)


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
