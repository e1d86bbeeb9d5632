"""What wants a person, the worst first, each with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.queries.devices import Condition, Glance
from edgeward_fleet.dashboard.queries.rollouts import ListedRollout
from edgeward_fleet.dashboard.views.causes import of_alarms
from edgeward_fleet.dashboard.views.standings import Look
from edgeward_fleet.dashboard.words import duration, plural
from edgeward_fleet.devices.model import Presence
from edgeward_fleet.rollouts.machine import RolloutState

CERTIFICATE_WARNING: Final = timedelta(days=5)  # devices renew at two thirds of 30 days: one that is here has not
OUTBOX_WARNING_S: Final = 3600
REPORT_WARNING: Final = timedelta(hours=2)  # at rest a device reports once an hour at the least
TAKEN_BACK_FOR: Final = timedelta(hours=24)
"""How long a rollout that was taken back stands here: whoever comes in the morning must see it."""
WANT_A_PERSON: Final = frozenset(
    {RolloutState.PAUSED, RolloutState.ROLLBACK_INCOMPLETE, RolloutState.AWAITING_APPROVAL}
)
"""Rollouts that go on only when somebody has done something; those that were taken back stand beside them."""
NOT_TAKEN: Final = (
    "What is shown of them is old. Look whether the fleet takes their reports: one that is older than its devices "
    "refuses what it does not know."
)
_NAMES_SHOWN: Final = 3


class Concern(StrEnum):
    """What the overview points at, across conditions; also a filter of the list of devices."""

    CERTIFICATE = "certificate"
    OUTBOX = "outbox"
    RELEASE = "release"
    REPORT = "report"


class Urgency(StrEnum):
    """How soon a person should look."""

    NOW = "now"
    SOON = "soon"


LOOKS: Final[Mapping[Urgency, Look]] = {
    Urgency.NOW: Look(tone="bad", sign="!", word="now"),
    Urgency.SOON: Look(tone="warn", sign="!", word="soon"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """`detail` is what was seen, `advice` what to do."""

    urgency: Urgency
    title: str
    href: str
    detail: str = ""
    advice: str = ""

    @property
    def look(self) -> Look:
        return LOOKS[self.urgency]


def attention(
    present: Sequence[Glance], rollouts: Iterable[ListedRollout], astray: Collection[DeviceId], now: datetime
) -> tuple[Attention, ...]:
    """Of `present` devices and of `rollouts`. `astray` do not run what they should."""
    found = (
        *_of_rollouts(rollouts, now),
        *_of_failing(present),
        *_of_silent(present),
        *_of_reports(present, now),
        *_of_outboxes(present),
        *_of_astray([each for each in present if each.device in astray]),
        *_of_certificates(present, now),
    )
    return tuple(sorted(found, key=lambda each: each.urgency is not Urgency.NOW))


def wants(glance: Glance, concern: Concern, astray: Collection[DeviceId], now: datetime) -> bool:
    """Whether `concern` is about the device."""
    match concern:
        case Concern.OUTBOX:
            return glance.outbox_oldest_s > OUTBOX_WARNING_S
        case Concern.RELEASE:
            return glance.device in astray
        case Concern.REPORT:
            return glance.presence in (Presence.ONLINE, Presence.LATE) and is_stale(glance.told_at, now)
        case Concern.CERTIFICATE:
            return glance.certificate_ends is None or glance.certificate_ends - now < CERTIFICATE_WARNING


def is_stale(told_at: datetime, now: datetime) -> bool:
    """Whether what a device told so long ago says nothing any more of how it is."""
    return now - told_at > REPORT_WARNING


def _of_rollouts(rollouts: Iterable[ListedRollout], now: datetime) -> Iterable[Attention]:
    for rollout in rollouts:
        said = _said_of(rollout, now)
        if said is not None:
            urgency, what, advice = said
            name = f" ({rollout.spec.name})" if rollout.spec.name else ""
            yield Attention(
                urgency=urgency,
                title=f"Rollout of {rollout.spec.release}{name} {what}",
                href=f"/rollouts/{rollout.id}",
                detail=rollout.reason or f"asked for by {rollout.created_by}",
                advice=advice,
            )


def _said_of(rollout: ListedRollout, now: datetime) -> tuple[Urgency, str, str] | None:
    match rollout.state:
        case RolloutState.PAUSED:
            return Urgency.NOW, "is paused", "Resume it, or roll it back."
        case RolloutState.ROLLBACK_INCOMPLETE:
            advice = "Bring the devices back that are not proven; each goes back by itself once it is heard of."
            return Urgency.NOW, "could not be rolled back everywhere", advice
        case RolloutState.ROLLED_BACK if now - rollout.since < TAKEN_BACK_FOR:
            return Urgency.SOON, "was taken back", "Look why before you ask for the next one."
        case RolloutState.AWAITING_APPROVAL:
            advice = f"Somebody other than {rollout.created_by} approves it, or aborts it."
            return Urgency.SOON, "waits for approval", advice
        case _:
            return None


def _of_failing(present: Sequence[Glance]) -> Iterable[Attention]:
    failing = [each for each in present if each.condition is Condition.FAILING]
    for each in failing[:_NAMES_SHOWN]:
        causes = of_alarms(each.unwell)
        yield Attention(
            urgency=Urgency.NOW,
            title=f"{each.device} says that it is unwell",
            href=_page_of(each),
            detail=f"{', '.join(cause.words for cause in causes)} · {each.site}",
            advice=next((cause.advice for cause in causes if cause.advice), ""),
        )
    if len(failing) > _NAMES_SHOWN:
        rest = failing[_NAMES_SHOWN:]
        title = plural(len(rest), "more device says that it is unwell", "more devices say that they are unwell")
        yield Attention(urgency=Urgency.NOW, title=title, href="/devices?state=failing", detail=_names(rest))


def _of_silent(present: Sequence[Glance]) -> Iterable[Attention]:
    """A whole site that is silent has another cause than a device that is; many of them may have one in common."""
    dark = {site: members for site, members in _by_site(present).items() if _is_dark(members)}
    named, more = list(dark)[:_NAMES_SHOWN], list(dark)[_NAMES_SHOWN:]
    for site in named:
        yield Attention(
            urgency=Urgency.NOW,
            title=f"Site {site} is cut off",
            href="/devices" + query_string(site=site),
            detail=f"none of its {plural(len(dark[site]), 'device')} is heard of",
            advice="Look at its network. The devices answer at the bedside all the same, and keep their results.",
        )
    if more:
        yield Attention(
            urgency=Urgency.NOW,
            title=plural(len(more), "more site is cut off", "more sites are cut off"),
            href="/?sites=all#sites",
            detail=", ".join(more[:_NAMES_SHOWN]) + (", …" if len(more) > _NAMES_SHOWN else ""),
            advice="Look whether the fleet itself can be reached, and what these sites have in common.",
        )
    single = [each for each in present if each.condition is Condition.OFFLINE and each.site not in dark]
    href = _page_of(single[0]) if len(single) == 1 else "/devices?state=offline&order=silence"
    advice = "Look whether they are switched on and have a network; what they answered waits on them."
    yield from _group(single, "is offline", "are offline", href, advice, Urgency.SOON)


def _is_dark(members: Sequence[Glance]) -> bool:
    silent = [each for each in members if each.condition in (Condition.OFFLINE, Condition.NEVER)]
    return len(silent) == len(members) and sum(each.condition is Condition.OFFLINE for each in silent) > 1


def _of_certificates(present: Sequence[Glance], now: datetime) -> Iterable[Attention]:
    ending = [each for each in present if wants(each, Concern.CERTIFICATE, (), now)]
    yield from _group(
        ending,
        "has a certificate that ends soon or has ended",
        "have certificates that end soon or have ended",
        _page_of(ending[0]) if len(ending) == 1 else "/devices?attention=certificate",
        "A device renews by itself ten days before the end; after it, enrol the device again with a new token.",
        Urgency.SOON,
    )


def _of_outboxes(present: Sequence[Glance]) -> Iterable[Attention]:
    full = [each for each in present if each.outbox_oldest_s > OUTBOX_WARNING_S]
    oldest = max((each.outbox_oldest_s for each in full), default=0)
    yield from _group(
        full,
        f"has kept results for {duration(oldest)}",
        f"have kept results for up to {duration(oldest)}",
        _page_of(full[0]) if len(full) == 1 else "/devices?attention=outbox&order=outbox",
        "They are delivered when the link is back; if the device is online, its quarantine says why not.",
        Urgency.SOON,
    )


def _of_reports(present: Sequence[Glance], now: datetime) -> Iterable[Attention]:
    mute = [each for each in present if wants(each, Concern.REPORT, (), now)]
    yield from _group(
        mute,
        "is heard of, and has not reported for more than 2 h",
        "are heard of, and have not reported for more than 2 h",
        _page_of(mute[0]) if len(mute) == 1 else "/devices?attention=report",
        NOT_TAKEN,
        Urgency.SOON,
    )


def _of_astray(found: Sequence[Glance]) -> Iterable[Attention]:
    yield from _group(
        found,
        "does not run what it should, and no rollout is under way",
        "do not run what they should, and no rollout is under way",
        _page_of(found[0]) if len(found) == 1 else "/devices?attention=release",
        "The page of the device says why; a new rollout tries again.",
        Urgency.SOON,
    )


def _group(
    found: Sequence[Glance], one: str, many: str, href: str, advice: str, urgency: Urgency
) -> Iterable[Attention]:
    if not found:
        return
    title = f"{found[0].device} {one}" if len(found) == 1 else f"{plural(len(found), 'device')} {many}"
    detail = _names(found) if len(found) > 1 else f"site {found[0].site}"
    yield Attention(urgency=urgency, title=title, href=href, detail=detail, advice=advice)


def _names(found: Sequence[Glance]) -> str:
    return ", ".join(each.device for each in found[:_NAMES_SHOWN]) + (", …" if len(found) > _NAMES_SHOWN else "")


def _by_site(present: Iterable[Glance]) -> Mapping[str, Sequence[Glance]]:
    by_site: dict[str, list[Glance]] = {}
    for each in present:
        by_site.setdefault(each.site, []).append(each)
    return by_site


def _page_of(glance: Glance) -> str:
    return f"/devices/{glance.device}"
