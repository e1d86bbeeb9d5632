"""A device as a page: what it should be beside what it is, and its life in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgeward_contract.artifact import ModelName
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import RESTING, ReportedModel, ReportedState, Traffic, UpdateState, UpdateStatus
from edgeward_contract.schema import JsonValue
from edgeward_fleet.dashboard.words import compact, size, state_word
from edgeward_fleet.devices.model import CertificateSummary, Device, DeviceDetails, DeviceEvent
from edgeward_fleet.rollouts.analysis import FAILURES
from edgeward_fleet.states.reported import ailments


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
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An event as a sentence."""

    event_id: int
    at: datetime
    words: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """What changes while one looks."""

    device: Device
    reported: ReportedState | None
    reported_at: datetime | None
    desired_generation: int
    unwell: tuple[str, ...]
    models: tuple[Comparison, ...]
    certificate: CertificateSummary | None
    now: datetime
    timeline: tuple[Line, ...]

    @property
    def days_left(self) -> int:
        """Whole days of the certificate; negative when it has ended."""
        return (self.certificate.not_after - self.now).days if self.certificate else 0


def device_view(found: DeviceDetails, events: Sequence[DeviceEvent], now: datetime) -> DeviceView:
    desired = DesiredState.parse(found.desired) if found.desired else DesiredState(generation=0)
    reported = ReportedState.parse(found.reported) if found.reported else None
    return DeviceView(
        device=found.device,
        reported=reported,
        reported_at=found.reported_at,
        desired_generation=desired.generation,
        unwell=ailments(reported) if reported else (),
        models=tuple(comparisons(desired, reported)),
        certificate=found.certificate,
        now=now,
        timeline=tuple(Line(event_id=each.event_id, at=each.at, **_said(each)) for each in events),
    )


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
        return f"{state_word(update.state)}{f': {state_word(update.reason)}' if update.reason else ''}", "bad"
    if update.state in RESTING:
        return state_word(update.state), "idle"
    return f"on its way: {_step(update)}", "busy"


def _step(update: UpdateStatus) -> str:
    if update.state is UpdateState.DOWNLOADING:
        return f"downloading, {update.progress_percent} %"
    return state_word(update.state)


_KINDS: Final = {"enrolled": "Enrolled", "renewed": "Certificate renewed", "revoked": "Revoked"}


def _said(event: DeviceEvent) -> dict[str, str]:
    """`words` and `detail` of a line."""
    detail = event.detail
    match event.kind:
        case "update":
            reason = f", {state_word(_text(detail, 'reason'))}" if detail.get("reason") else ""
            words = f"{_text(detail, 'release')}: {state_word(_text(detail, 'state'))}{reason}"
            return {"words": words, "detail": _text(detail, "detail")}
        case "live":
            return {"words": _answers(_text(detail, "model"), detail.get("release"), detail.get("before"))}
        case "alarms":
            now = _text(detail, "alarms")
            return {
                "words": f"Alarm: {_words(now)}" if now else "The alarms are over",
                "detail": _words(_text(detail, "before")),
            }
        case _:
            rest = ", ".join(f"{state_word(key)} {value}" for key, value in detail.items() if value not in ("", None))
            return {"words": _KINDS.get(event.kind, state_word(event.kind).capitalize()), "detail": rest}


def _answers(model: str, release: JsonValue, before: JsonValue) -> str:
    if release is None:
        return f"{model} answers no more"
    return f"Answers come from {release}{f', before from {before}' if before else ''}"


def _words(alarms: str) -> str:
    return ", ".join(state_word(each) for each in alarms.split())


def _text(detail: Mapping[str, JsonValue], key: str) -> str:
    value = detail.get(key)
    return value if isinstance(value, str) else ""


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
