"""A device as a page: what it should be beside what it is, how it is in one sentence, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from edgeward_contract.artifact import ModelName
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import RESTING, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.schema import JsonValue
from edgeward_contract.traffic import Traffic
from edgeward_fleet.dashboard.views.attention import CERTIFICATE_WARNING, NOT_TAKEN, is_stale
from edgeward_fleet.dashboard.views.causes import Cause, of_alarms, of_update
from edgeward_fleet.dashboard.views.events import Line, lines
from edgeward_fleet.dashboard.words import compact, plural, size, state_word
from edgeward_fleet.devices.model import CertificateSummary, Device, DeviceDetails, DeviceEvent, Presence
from edgeward_fleet.rollouts.analysis import FAILURES
from edgeward_fleet.states.reported import ailments

_RENEWAL: Final = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model: wanted beside live. `verdict` says whether they agree, and if not, why."""

    model: str
    wanted: str
    live: str
    slot: str
    verdict: str
    tone: str
    detail: str = ""
    advice: str = ""
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The newest certificate. `used`, `renewal` and `end` are shares of its life: now, when it renews, all."""

    summary: CertificateSummary
    days_left: int
    renews_at: datetime
    used: float
    renewal: float = _RENEWAL
    tone: str = "ok"

    @property
    def words(self) -> str:
        if self.summary.revoked_at is not None:
            return f"revoked: {self.summary.revoked_because or 'no reason given'}"
        return "ended" if self.days_left < 0 else f"{plural(self.days_left, 'day')} left"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """What changes while one looks."""

    device: Device
    reported: ReportedState | None
    reported_at: datetime | None
    desired_generation: int
    state: str
    tone: str
    sentence: str
    advice: str
    command: str
    models: tuple[Comparison, ...]
    certificate: Certificate | None
    timeline: tuple[Line, ...]


def device_view(found: DeviceDetails, events: Sequence[DeviceEvent], now: datetime) -> DeviceView:
    desired = DesiredState.parse(found.desired) if found.desired else DesiredState(generation=0)
    reported = ReportedState.parse(found.reported) if found.reported else None
    causes = of_alarms(ailments(reported)) if reported else ()
    models = tuple(comparisons(desired, reported))
    state, tone = _state(found.device.presence, causes)
    is_old = is_stale(found.reported_at or found.device.enrolled_at, now)
    return DeviceView(
        device=found.device,
        reported=reported,
        reported_at=found.reported_at,
        desired_generation=desired.generation,
        state=state,
        tone=tone,
        sentence=_sentence(found.device, reported, _said(causes, models), is_old=is_old),
        advice=_advice(found.device, causes, models, is_old=is_old),
        command=_command(found.device),
        models=models,
        certificate=certificate_view(found.certificate, now) if found.certificate else None,
        timeline=lines(events),
    )


def certificate_view(summary: CertificateSummary, now: datetime) -> Certificate:
    """How much of its life is gone. A device renews at two thirds of it, give or take a tenth."""
    life = summary.not_after - summary.not_before
    left = summary.not_after - now
    is_bad = summary.revoked_at is not None or left <= timedelta()
    return Certificate(
        summary=summary,
        days_left=left.days,
        renews_at=summary.not_before + life * _RENEWAL,
        used=min(1.0, max(0.0, (now - summary.not_before) / life)),
        tone="bad" if is_bad else "warn" if left < CERTIFICATE_WARNING else "ok",
    )


def _state(presence: Presence, causes: Sequence[Cause]) -> tuple[str, str]:
    if causes and presence in (Presence.ONLINE, Presence.LATE):
        return "failing", "bad"
    tones = {Presence.ONLINE: "ok", Presence.LATE: "warn", Presence.REVOKED: "bad"}
    return "never heard of" if presence is Presence.NEVER else presence.value, tones.get(presence, "idle")


def _sentence(device: Device, reported: ReportedState | None, said: str, *, is_old: bool) -> str:
    """How it is, for somebody who reads nothing else; what is not heard now is not said as if it were."""
    if device.presence is Presence.REVOKED:
        return "It is revoked: the fleet takes nothing from it and gives it nothing."
    if reported is None:
        return "It has enrolled and not reported yet."
    last = f"Its last report said: {said}."
    match device.presence:
        case Presence.OFFLINE | Presence.NEVER:
            return f"Nothing is heard of it. {last}"
        case _ if is_old:
            return f"It is heard of, and has not reported for more than 2 h. {last}"
        case Presence.LATE:
            return f"Nothing was heard of it in the last minutes. {last}"
    return f"{said[0].upper()}{said[1:]}."


def _said(causes: Sequence[Cause], models: Sequence[Comparison]) -> str:
    """By its own account."""
    if causes:
        return ", ".join(each.words for each in causes)
    astray = [each for each in models if each.tone != "ok"]
    if len(astray) == 1:
        return f"{astray[0].model} is {astray[0].verdict}"
    return f"{len(astray)} models are not as they should be" if astray else "all is well"


def _advice(
    device: Device,
    causes: Sequence[Cause],
    models: Sequence[Comparison],
    *,
    is_old: bool,
) -> str:
    if device.presence is Presence.REVOKED:
        return "To let it in again, make a token and enrol it anew with what it prints."
    if device.presence in (Presence.ONLINE, Presence.LATE) and is_old:
        return NOT_TAKEN
    if device.presence is Presence.NEVER:
        return "Start the agent on it."
    if device.presence is Presence.OFFLINE:
        return "Look whether it is switched on and has a network. It answers all the same, and keeps what it answered."
    advice = (*(each.advice for each in causes), *(each.advice for each in models))
    return next((each for each in advice if each), "")


def comparisons(desired: DesiredState, reported: ReportedState | None) -> Iterable[Comparison]:
    """Every model that is wanted or there."""
    said: Mapping[ModelName, ReportedModel] = reported.models if reported else {}
    for name in sorted({*desired.models, *said}):
        wanted, seen = desired.models.get(name), said.get(name, ReportedModel())
        verdict, tone = _verdict(wanted, seen)
        yield Comparison(
            model=name,
            wanted=str(wanted.release) if wanted else "",
            live=str(seen.live.release) if seen.live else "",
            slot=seen.live.slot if seen.live else "",
            verdict=verdict,
            tone=tone,
            detail=seen.update.detail if seen.update else "",
            advice=of_update(seen.update.reason).advice if tone == "bad" and seen.update else "",
            traffic=seen.live.traffic if seen.live else None,
        )


def _verdict(wanted: DesiredModel | None, seen: ReportedModel) -> tuple[str, str]:
    if wanted is None:
        return ("to be taken away", "busy") if seen.live else ("gone", "idle")
    update = seen.update if seen.update and seen.update.deployment == wanted.deployment else None
    if seen.live and seen.live.sha256 == wanted.sha256 and seen.live.slot == "current":
        return "as it should be", "ok"
    if update is None:
        return "not taken up yet", "idle"
    if update.state in FAILURES:
        return f"{state_word(update.state)}{f': {of_update(update.reason).words}' if update.reason else ''}", "bad"
    if update.state in RESTING:
        return state_word(update.state), "idle"
    return f"on its way: {_step(update)}", "busy"


def _step(update: UpdateStatus) -> str:
    if update.state is UpdateState.DOWNLOADING:
        return f"downloading, {update.progress_percent} %"
    return state_word(update.state)


def _command(device: Device) -> str:
    """What to type where a command is all that it takes; "" elsewhere."""
    if device.presence is Presence.REVOKED:
        return f"edgeward device token --site {device.site} --device-id {device.device_id}"
    return "edgeward-agent run" if device.presence is Presence.NEVER else ""


_HARDWARE: Final = {"machine": "Architecture", "os": "Operating system", "cpus": "Processors", "memory_bytes": "Memory"}


def machine(hardware: Mapping[str, JsonValue]) -> tuple[tuple[str, str], ...]:
    """What the device said of itself when it enrolled; what it did not say is left out."""
    return tuple(
        (
            _HARDWARE.get(key, state_word(key).capitalize()),
            size(value) if key.endswith("_bytes") and isinstance(value, int) else compact(value),
        )
        for key, value in hardware.items()
        if value
    )
