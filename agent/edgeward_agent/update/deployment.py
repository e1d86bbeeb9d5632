"""One desired change on this device, and how far it has come. Pure values; the journal stores them whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edgeward_agent.update.machine import ON_TRIAL, WORKING, Event, advance
from edgeward_agent.update.slots import Installed, Slots
from edgeward_contract.artifact import ModelName, ReleaseRef, Sha256
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import UpdateState, UpdateStatus
from edgeward_contract.visible import visible

_MAX_DETAIL: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What has been seen of a candidate since it was first activated; counts outlive the processes they count.

    `serving_started_us` is the serving process that was last seen, 0 when the next one seen counts as no crash.
    """

    serving_started_us: int = 0
    baseline_p99_us: int = 0
    crashes: int = 0
    elapsed_s: float = 0.0
    earlier_requests: int = 0
    earlier_errors: int = 0
    refused_restores: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """`attempts` counts restarts of the agent that a candidate has to answer for, `retries` failures that count."""

    model: ModelName
    deployment: str
    release: ReleaseRef
    sha256: Sha256
    state: UpdateState = UpdateState.OFFERED
    reason: str = ""
    detail: str = ""
    attempts: int = 0
    retries: int = 0
    stores: int = 0
    trial: Trial = field(default_factory=Trial)

    @classmethod
    def of(cls, wanted: DesiredModel) -> Deployment:
        return cls(
            model=wanted.release.name, deployment=wanted.deployment, release=wanted.release, sha256=wanted.sha256
        )

    @property
    def working(self) -> bool:
        return self.state in WORKING

    @property
    def installed(self) -> Installed:
        return Installed(version=self.release.version, sha256=self.sha256)

    def answers(self, wanted: DesiredModel) -> bool:
        return (self.deployment, self.sha256) == (wanted.deployment, wanted.sha256)

    def after(self, event: Event, *, reason: str = "", detail: str = "") -> Deployment:
        """The deployment after `event`. `detail` may quote a hostile file, and is made fit to show.

        Raises IllegalTransition.
        """
        return replace(
            self,
            state=advance(self.state, event),
            reason=reason,
            detail=visible(detail)[:_MAX_DETAIL],
            stores=self.stores + 1,
        )

    def status(self, progress_percent: int) -> UpdateStatus:
        return UpdateStatus(
            deployment=self.deployment,
            release=self.release,
            state=self.state,
            reason=self.reason,
            detail=self.detail,
            attempt=1 + self.attempts + self.retries,
            progress_percent=progress_percent,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Everything the journal holds: what the fleet wants, what is installed, the newest deployment of each model."""

    desired: DesiredState | None = None
    slots: Mapping[ModelName, Slots] = field(default_factory=dict)
    deployments: Mapping[ModelName, Deployment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an action came to. Without an event the deployment stays where it is and is looked at again.

    `trial` and `slots` are stored together with the event; a trial that is not worth a flush says `flush=False`.
    """

    event: Event | None = None
    reason: str = ""
    detail: str = ""
    wait_s: float = 0.0
    slots: Slots | None = None
    trial: Trial | None = None
    flush: bool = True
    counted: bool = False
    retry_after_s: float | None = None


def settled(deployment: Deployment, outcome: Outcome, *, max_stores: int) -> Deployment:
    """The deployment with the outcome applied, and the loop guard held. Pure.

    A wait for the world (a lost link, a full disk) is no loop of ours: it begins the count anew.
    """
    known = replace(
        deployment,
        trial=outcome.trial or deployment.trial,
        retries=deployment.retries + outcome.counted,
    )
    if outcome.event is None:
        return known
    after = known.after(outcome.event, reason=outcome.reason, detail=outcome.detail)
    if outcome.event is Event.DEFER or (outcome.event is Event.RETRY and not outcome.counted):
        return replace(after, stores=0)
    if after.working and after.stores > max_stores:
        detail = f"expected an end within {max_stores} steps, got {outcome.event} in {deployment.state} once more"
        return replace(known.after(Event.GUARD, reason="loop_guard", detail=detail), stores=0)
    return after


def rebooted(deployment: Deployment) -> Deployment:
    """After a restart of the agent. What a candidate has to answer for is counted; time and process are new."""
    after = deployment.after(Event.REBOOTED, reason=deployment.reason, detail=deployment.detail)
    after = replace(after, stores=0)
    if deployment.state not in (UpdateState.PROBING, *ON_TRIAL):
        return after
    return replace(after, attempts=after.attempts + 1, trial=replace(after.trial, serving_started_us=0))
