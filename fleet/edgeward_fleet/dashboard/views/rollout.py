"""A rollout as a page: phases as lanes, gates with their evidence, and one sentence that says where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.api.rollout_views import PhaseStatus, phase_status
from edgeward_fleet.dashboard.views.gates import Gate, asks, gates_of, honesty
from edgeward_fleet.dashboard.views.standings import STANDINGS, STATES, Look, back_strip, standing_strip
from edgeward_fleet.dashboard.views.strips import Strip
from edgeward_fleet.dashboard.words import duration, plural, state_word
from edgeward_fleet.rollouts.analysis import Evidence, not_yet_back
from edgeward_fleet.rollouts.decide import evidence_of
from edgeward_fleet.rollouts.machine import FINAL, PhaseStep, RolloutEvent, RolloutState, commands
from edgeward_fleet.rollouts.model import Back, PhaseSpec, Rollout, RolloutDevice, Standing
from edgeward_fleet.rollouts.repository import RolloutLine
from edgeward_fleet.rollouts.service import RolloutRecord

MAX_CELLS: Final = 240
"""Above this a lane shows its strip alone: nobody counts a thousand squares."""

_GOES_BACK: Final = frozenset(
    {RolloutState.ABORTING, RolloutState.ROLLING_BACK, RolloutState.ROLLBACK_INCOMPLETE, RolloutState.ROLLED_BACK}
)


_VERBS: Final = {
    "approve": "approved it",
    "created": "asked for it",
    "pause": "paused it",
    "resume": "resumed it",
    "abort": "aborted it",
    "roll_back": "rolled it back",
    "supersede": "superseded it",
    "start_due": "started it",
    "offered": "offered it to",
    "taken_back": "gave the former release to",
}
DONE: Final = {
    RolloutEvent.APPROVE: "approved",
    RolloutEvent.PAUSE: "paused",
    RolloutEvent.RESUME: "resumed",
    RolloutEvent.ABORT: "aborted",
    RolloutEvent.ROLL_BACK: "rolled back",
}
"""What a command will have done."""
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
class Line:
    """What happened, as a sentence about somebody."""

    at: datetime
    actor: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What this person may do now. `refusal` says why not, where the button would mislead."""

    event: RolloutEvent
    path: str
    label: str
    tone: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """Everything of the page that changes while one looks."""

    record: RolloutRecord
    tone: str
    sentence: str
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
            return "Approved; it starts at its time." if rollout.spec.start_at else "Approved; it starts in a moment."
        case RolloutState.PROGRESSING:
            return _progress(rollout)
        case RolloutState.SUCCEEDED:
            return f"Every phase has passed: {reason}."
        case _:
            return f"{state_word(rollout.state).capitalize()}{f': {reason}' if reason else ''}."


def lines(timeline: Sequence[RolloutLine]) -> tuple[Line, ...]:
    """The timeline in words: what devices and the fleet say is a sentence already, a command needs its verb."""
    return tuple(Line(at=each.at, actor=each.actor, words=_words(each)) for each in timeline)


def _words(line: RolloutLine) -> str:
    if line.kind == "device":
        verb, _, rest = line.detail.partition(" ")
        return f"{state_word(verb)}{f': {rest}' if rest and verb.isupper() else f' {rest}' if rest else ''}"
    if line.kind == "step":
        return line.detail
    return f"{_VERBS.get(line.kind, state_word(line.kind))}{f': {line.detail}' if line.detail else ''}"


def actions(record: RolloutRecord, viewer: Principal) -> list[Action]:
    """The buttons for `viewer`, by role and state; nobody is shown a button that would be refused."""
    if not viewer.role.covers(Role.OPERATOR):
        return []
    possible = commands(record.rollout.state)
    return [action for action in (_action(record, viewer, event) for event in possible) if action]


def _action(record: RolloutRecord, viewer: Principal, event: RolloutEvent) -> Action | None:
    if event is RolloutEvent.APPROVE and not viewer.role.covers(Role.APPROVER):
        return None
    base = f"/rollouts/{record.rollout.id}/"
    match event:
        case RolloutEvent.APPROVE:
            own = "You asked for this rollout; somebody else has to approve it."
            refusal = own if record.authorship.created_by == viewer.username else ""
            return Action(event=event, path=base + "approve", label="Approve", tone="primary", refusal=refusal)
        case RolloutEvent.RESUME:
            return Action(event=event, path=base + "resume", label="Resume", tone="primary")
        case RolloutEvent.PAUSE:
            return Action(event=event, path=base + "pause", label="Pause")
        case RolloutEvent.ABORT:
            return Action(event=event, path=base + "abort", label="Abort", tone="danger")
        case _:
            return Action(event=event, path=base + "rollback", label="Roll back", tone="danger")


def consequence(record: RolloutRecord, event: RolloutEvent) -> str:
    """What a command will do, in the numbers of this rollout; stands above the button that does it."""
    rollout = record.rollout
    count = {each: sum(device.standing is each for device in rollout.devices) for each in Standing}
    offered = sum(device.offered for device in rollout.devices)
    unproven = sum(device.offered and device.standing is not Standing.SUCCEEDED for device in rollout.devices)
    match event:
        case RolloutEvent.APPROVE:
            first = rollout.spec.phases[0]
            return (
                f"{rollout.spec.release} is offered to {plural(len(rollout.of_phase(0)), 'device')} of phase "
                f"'{first.name}' at once; the plan holds {plural(len(rollout.devices), 'device')} in all."
            )
        case RolloutEvent.PAUSE:
            return f"No further device is offered {rollout.spec.release}. Those that have the offer ({offered}) go on."
        case RolloutEvent.RESUME:
            return (
                f"Phase '{rollout.open_phase.name}' goes on, its time-out begins anew. "
                f"The release is offered again to {plural(count[Standing.FAILED], 'device')} that failed."
            )
        case RolloutEvent.ABORT:
            return (
                f"The offer is withdrawn from {plural(unproven, 'device')} without proof so far. "
                f"{rollout.spec.release} stays on {plural(count[Standing.SUCCEEDED], 'device')}."
            )
        case _:
            all_of_them = plural(offered, "device")
            return f"Every device that was offered {rollout.spec.release} is given its former release: {all_of_them}."


def too_late(state: RolloutState, latest: RolloutLine | None) -> str:
    """How a rollout came into a `state` that somebody did not expect; `latest` is what a person asked of it last."""
    now = f"it is {state_word(state)}"
    if latest is None:
        return now
    return f"{now}; {latest.actor} {_VERBS[latest.kind]} at {_clock(latest.at)}"


def _progress(rollout: Rollout) -> str:
    evidence, phase = evidence_of(rollout, rollout.phase), rollout.open_phase
    good = evidence.succeeded + evidence.already
    where = f"Phase '{phase.name}' ({rollout.phase + 1} of {len(rollout.spec.phases)})"
    if not evidence.total:
        return f"{where} has no device of its own."
    done = f"{good} of {plural(evidence.total, 'device')} succeeded"
    if rollout.step is PhaseStep.SOAKING:
        return f"{where}: {done}; soaking for {duration(phase.soak_s)}."
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
        strip=standing_strip(counts),
        cells=_cells(devices),
        gates=gates_of(rollout.spec.gates, evidence, status),
        honesty=honesty(evidence),
        asks=asks(rollout.spec.gates, spec),
        note=_note(rollout, spec, status),
        soak=duration(spec.soak_s),
    )


def _cells(devices: Sequence[RolloutDevice]) -> tuple[Cell, ...]:
    if len(devices) > MAX_CELLS:
        return ()
    return tuple(Cell(device=device.device, look=STANDINGS[device.standing]) for device in devices)


def _note(rollout: Rollout, spec: PhaseSpec, status: PhaseStatus) -> str:
    if status is PhaseStatus.OPEN:
        ends = rollout.phase_since + timedelta(seconds=spec.timeout_s)
        if rollout.step is PhaseStep.SOAKING:
            return f"soaks until {_clock(rollout.step_since + timedelta(seconds=spec.soak_s))}"
        return f"times out at {_clock(ends)}"
    if status is PhaseStatus.STOPPED:
        return "taken back" if rollout.state in _GOES_BACK else state_word(rollout.state)
    return ""


def _clock(at: datetime) -> str:
    return at.strftime("%H:%M:%S UTC")
