"""A rollout as a page: phases as lanes, gates with their evidence, and one sentence that says where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from edgeward_fleet.accounts.model import Principal
from edgeward_fleet.api.rollout_views import PhaseStatus, phase_status
from edgeward_fleet.dashboard.views.causes import of_update
from edgeward_fleet.dashboard.views.gates import Gate, asks, gates_of, honesty
from edgeward_fleet.dashboard.views.rollout_actions import Action, actions
from edgeward_fleet.dashboard.views.standings import STATES, Look, back_strip, looks, standing_strip
from edgeward_fleet.dashboard.views.strips import Strip
from edgeward_fleet.dashboard.words import dated, duration, plural, state_word
from edgeward_fleet.rollouts.analysis import Evidence, not_yet_back
from edgeward_fleet.rollouts.decide import evidence_of, lasting_evidence, soaked_at
from edgeward_fleet.rollouts.machine import FINAL, PhaseStep, RolloutState
from edgeward_fleet.rollouts.model import Back, PhaseSpec, Rollout, RolloutDevice, Standing
from edgeward_fleet.rollouts.service import RolloutRecord

MAX_CELLS: Final = 240
"""Above this a lane shows its strip alone: nobody counts a thousand squares."""

_GOES_BACK: Final = frozenset(
    {RolloutState.ABORTING, RolloutState.ROLLING_BACK, RolloutState.ROLLBACK_INCOMPLETE, RolloutState.ROLLED_BACK}
)


_TONES: Final = {PhaseStatus.OPEN: "busy", PhaseStatus.PASSED: "ok", PhaseStatus.STOPPED: "bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One device of a lane."""

    device: str
    look: Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One phase. `note` says what it waits for, or came to."""

    name: str
    size: str
    status: PhaseStatus
    evidence: Evidence
    strip: Strip
    cells: tuple[Cell, ...]
    gates: tuple[Gate, ...]
    honesty: str
    asks: str
    note: str
    soak: str

    @property
    def tone(self) -> str:
        return _TONES.get(self.status, "idle")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """Everything of the page that changes while one looks."""

    record: RolloutRecord
    tone: str
    sentence: str
    advice: str
    lanes: tuple[Lane, ...]
    actions: tuple[Action, ...]
    going_back: Strip | None
    not_proven_back: tuple[RolloutDevice, ...]

    @property
    def rollout(self) -> Rollout:
        return self.record.rollout

    @property
    def is_moving(self) -> bool:
        return self.rollout.state not in FINAL


def rollout_view(record: RolloutRecord, viewer: Principal) -> RolloutView:
    """The page of `record` as `viewer` sees it."""
    rollout = record.rollout
    back = tuple(device for device in rollout.devices if device.back is not Back.NONE)
    return RolloutView(
        record=record,
        tone=STATES[rollout.state],
        sentence=sentence(record),
        advice=advice(rollout),
        lanes=tuple(_lane(rollout, index) for index in range(len(rollout.spec.phases))),
        actions=tuple(actions(record, viewer)),
        going_back=back_strip(back) if back else None,
        not_proven_back=not_yet_back(rollout.devices),
    )


def sentence(record: RolloutRecord) -> str:
    """Where the rollout stands and why, for somebody who reads nothing else."""
    rollout, reason = record.rollout, record.rollout.reason
    match rollout.state:
        case RolloutState.AWAITING_APPROVAL:
            return f"Waits for approval by somebody other than {record.authorship.created_by}, who asked for it."
        case RolloutState.SCHEDULED:
            start = rollout.spec.start_at
            return f"Approved; it starts {f'at {dated(start)}' if start else 'in a moment'}."
        case RolloutState.PROGRESSING:
            return _progress(rollout)
        case RolloutState.SUCCEEDED:
            return f"Every phase has passed: {reason}."
        case _:
            return f"{state_word(rollout.state).capitalize()}{f': {reason}' if reason else ''}."


def advice(rollout: Rollout) -> str:
    """What a person does about it, in the state that it is in; "" where there is nothing to do."""
    match rollout.state:
        case RolloutState.AWAITING_APPROVAL:
            start = rollout.spec.start_at
            then = f"Once approved, it starts at {dated(start)}." if start else "Approving starts it."
            return f"Hold the plan and the gates below against what was agreed. {then}"
        case RolloutState.PROGRESSING:
            return _silent(rollout)
        case RolloutState.PAUSED:
            choice = "Resume offers it again to those that failed; roll back gives every device its former release."
            return f"{_why(rollout)}{choice}"
        case RolloutState.ROLLBACK_INCOMPLETE:
            return "Bring back the devices that are named below: each gives the release up once it is heard of."
        case RolloutState.ROLLED_BACK | RolloutState.ROLLING_BACK:
            return _why(rollout).strip()
        case RolloutState.ABORTED | RolloutState.ABORTING:
            return _kept(rollout)
        case RolloutState.EXPIRED:
            again = f"edgeward rollout create --release {rollout.spec.release}"
            return f"Ask for it again if it is still wanted: `{again}`"
        case _:
            return ""


def _why(rollout: Rollout) -> str:
    """What the most frequent word of the devices that failed means; without any, whether it was the answers."""
    words = Counter(each.reason for each in rollout.devices if each.standing is Standing.FAILED and each.reason)
    if not words and not any(each.errors for each in rollout.devices):
        return ""
    word = words.most_common(1)[0][0] if words else "errors"
    cause = of_update(word)
    return f"`{word}` means: {cause.words}. {cause.advice} "


def _silent(rollout: Rollout) -> str:
    silent = evidence_of(rollout, rollout.phase).unknown
    if not silent:
        return ""
    return f"{plural(silent, 'device has', 'devices have')} not answered the offer; each takes it once it is heard of."


def _kept(rollout: Rollout) -> str:
    """Of that moment: what came later is another rollout's to tell."""
    kept = sum(each.standing is Standing.SUCCEEDED and each.back is Back.NONE for each in rollout.devices)
    if not kept:
        return ""
    return (
        f"It left {rollout.spec.release} on {plural(kept, 'device')}. Roll back takes it from those that still have it."
    )


def _progress(rollout: Rollout) -> str:
    evidence, phase = evidence_of(rollout, rollout.phase), rollout.open_phase
    good = evidence.succeeded + evidence.already
    where = f"Phase '{phase.name}' ({rollout.phase + 1} of {len(rollout.spec.phases)})"
    if not evidence.total:
        return f"{where} has no device of its own."
    done = f"{good} of {plural(evidence.total, 'device')} succeeded"
    if rollout.step is PhaseStep.SOAKING:
        unheard = len(lasting_evidence(rollout).faded)
        words = f", {unheard} still to be heard of" if unheard else ""
        return f"{where}: {done}; soaking for {duration(phase.soak_s)}{words}."
    rest = [(evidence.working, "at it"), (evidence.unknown, "not heard of"), (evidence.failed, "failed")]
    words = "".join(f", {count} {word}" for count, word in rest if count)
    return f"{where}: {done}{words}."


def _lane(rollout: Rollout, index: int) -> Lane:
    spec, status = rollout.spec.phases[index], phase_status(rollout, index)
    evidence, devices = evidence_of(rollout, index), rollout.of_phase(index)
    counts = {each: sum(device.standing is each for device in devices) for each in Standing}
    return Lane(
        name=spec.name,
        size=f"up to {spec.percent} %" if spec.percent is not None else f"up to {plural(spec.devices or 0, 'device')}",
        status=status,
        evidence=evidence,
        strip=standing_strip(counts, rollout.state, leads=True),
        cells=_cells(devices, rollout.state),
        gates=gates_of(rollout.spec.gates, evidence, status),
        honesty=honesty(evidence),
        asks=asks(rollout.spec.gates, spec),
        note=_note(rollout, spec, status),
        soak=duration(spec.soak_s),
    )


def _cells(devices: Sequence[RolloutDevice], state: RolloutState) -> tuple[Cell, ...]:
    if len(devices) > MAX_CELLS:
        return ()
    return tuple(Cell(device=device.device, look=looks(state)[device.standing]) for device in devices)


def _note(rollout: Rollout, spec: PhaseSpec, status: PhaseStatus) -> str:
    if status is PhaseStatus.OPEN:
        ends = rollout.phase_since + timedelta(seconds=spec.timeout_s)
        if rollout.step is PhaseStep.SOAKING:
            return f"soaks until {dated(soaked_at(rollout))}"
        return f"times out at {dated(ends)}"
    if status is PhaseStatus.STOPPED:
        return "taken back" if rollout.state in _GOES_BACK else state_word(rollout.state)
    return ""
