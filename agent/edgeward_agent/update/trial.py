"""From ACTIVATING on: the candidate answers real requests, is watched, and is kept or taken back.

Each method performs the action of a state that is stored already and may be repeated after any kill. What is newly
learnt (a crash, say) is returned to be stored before anything is done about it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgeward_agent.clock import Clock
from edgeward_agent.errors import ServingRefused, ServingUnavailable
from edgeward_agent.ports import Serving, ServingState
from edgeward_agent.update.deployment import Deployment, Outcome, Trial
from edgeward_agent.update.files import DiskThread
from edgeward_agent.update.machine import Event
from edgeward_agent.update.plan import live_sha256
from edgeward_agent.update.probation import ProbationJudge
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_agent.update.settings import UpdateSettings
from edgeward_agent.update.slots import Installed, Slots
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.manifest import Budget
from edgeward_contract.traffic import Traffic

_SAVE_EACH_S: Final = 10.0
_REFUSED_RESTORES: Final = 3


class Trials:
    """The actions of ACTIVATING, PROBATION and ROLLING_BACK."""

    def __init__(
        self, *, serving: Serving, folders: ReleaseFolders, disk: DiskThread, clock: Clock, settings: UpdateSettings
    ) -> None:
        self._serving = serving
        self._folders = folders
        self._disk = disk
        self._clock = clock
        self._settings = settings
        self._judge = ProbationJudge(settings)
        self._budgets: dict[Sha256, int] = {}
        self._seen_well: dict[ModelName, float] = {}  # when the candidate was last seen live
        self._traffic: dict[ModelName, Traffic] = {}  # and what it had answered by then
        self.state: ServingState | None = None

    async def look(self) -> ServingState:
        """Ask the serving process; raises ServingUnavailable."""
        try:
            self.state = await self._serving.state()
        except ServingUnavailable:
            self.state = None
            raise
        return self.state

    async def activating(self, deployment: Deployment, slots: Slots) -> Outcome:
        if verdict := self._judge.restarts(deployment):
            return Outcome(event=verdict.event, reason=verdict.reason, detail=verdict.detail)
        try:
            state = await self.look()
            trial = self._learn(deployment, slots, state)
            if trial != deployment.trial:
                return Outcome(trial=trial)
            return await self._go_live(deployment, Outcome(event=Event.ACTIVATED))
        except ServingUnavailable:
            return Outcome(wait_s=self._settings.poll_s)

    async def probation(self, deployment: Deployment, slots: Slots) -> Outcome:
        if verdict := self._judge.restarts(deployment):
            return Outcome(event=verdict.event, reason=verdict.reason, detail=verdict.detail)
        try:
            state = await self.look()
            trial = self._learn(deployment, slots, state)
            if trial != deployment.trial:
                return Outcome(trial=trial)
            if live_sha256(state, deployment.model) != deployment.sha256:
                return await self._go_live(deployment, Outcome(wait_s=self._settings.poll_s))
        except ServingUnavailable:
            self._seen_well.pop(deployment.model, None)
            return Outcome(wait_s=self._settings.poll_s)
        return await self._judged(deployment, slots, state.models[deployment.model].traffic)

    async def rolling_back(self, deployment: Deployment, slots: Slots) -> Outcome:
        """The reason of the roll-back stays the reason that is reported."""
        done = Outcome(
            event=Event.RESTORED, reason=deployment.reason, detail=deployment.detail, slots=slots.rolled_back()
        )
        try:
            await self._restore(deployment, slots, await self.look())
        except ServingUnavailable:
            return Outcome(wait_s=self._settings.poll_s)
        except ServingRefused as error:
            return self._refused_restore(deployment, slots, str(error))
        return done

    async def load_and_activate(self, model: ModelName, installed: Installed) -> None:
        """Raises ServingUnavailable, ServingRefused."""
        path = self._folders.path(installed.sha256)
        await self._serving.load(model, sha256=installed.sha256, version=installed.version, path=path)
        await self._serving.activate(model, installed.sha256)

    async def _go_live(self, deployment: Deployment, done: Outcome) -> Outcome:
        try:
            await self.load_and_activate(deployment.model, deployment.installed)
        except ServingRefused as error:
            return Outcome(event=Event.LOAD_REFUSED, reason="load_refused", detail=str(error))
        self._seen_well[deployment.model] = self._clock.monotonic()
        return done

    def _learn(self, deployment: Deployment, slots: Slots, state: ServingState) -> Trial:
        """Compare with the serving process that was last seen: another one means that it crashed on our watch."""
        trial = deployment.trial
        if trial.serving_started_us == 0:
            baseline_us = trial.baseline_p99_us or self._baseline(deployment.model, slots, state)
            return replace(trial, serving_started_us=state.started_us, baseline_p99_us=baseline_us)
        if trial.serving_started_us == state.started_us:
            return trial
        self._seen_well.pop(deployment.model, None)
        lost = self._traffic.pop(deployment.model, Traffic())
        return replace(
            trial,
            serving_started_us=state.started_us,
            crashes=trial.crashes + 1,
            earlier_requests=trial.earlier_requests + lost.requests,
            earlier_errors=trial.earlier_errors + lost.errors,
        )

    def _baseline(self, model: ModelName, slots: Slots, state: ServingState) -> int:
        """The p99 of the release before, where it has answered enough to have one."""
        served = state.models.get(model)
        if served is None or slots.current is None or live_sha256(state, model) != slots.current.sha256:
            return 0
        return served.traffic.p99_us if served.traffic.requests >= self._settings.latency_min_requests else 0

    async def _judged(self, deployment: Deployment, slots: Slots, traffic: Traffic) -> Outcome:
        self._traffic[deployment.model] = traffic
        before = deployment.trial.elapsed_s
        trial = replace(deployment.trial, elapsed_s=self._elapsed(deployment))
        known = replace(deployment, trial=trial)
        judgement = self._judge.judge(known, traffic, budget_us=await self._budget_us(deployment.sha256))
        if judgement.event is None:
            flush = int(trial.elapsed_s / _SAVE_EACH_S) != int(before / _SAVE_EACH_S)
            return Outcome(trial=trial, flush=flush, wait_s=self._settings.poll_s)
        return Outcome(
            event=judgement.event,
            reason=judgement.reason,
            detail=judgement.detail,
            trial=trial,
            slots=slots.committed() if judgement.event is Event.HEALTHY else None,
        )

    def _elapsed(self, deployment: Deployment) -> float:
        """Only time between two looks that both found it live counts; not a night's suspend in between."""
        now = self._clock.monotonic()
        since = now - self._seen_well.get(deployment.model, now)
        self._seen_well[deployment.model] = now
        seconds = deployment.trial.elapsed_s + min(since, 5 * self._settings.poll_s)
        return min(seconds, self._settings.probation_s)

    async def _budget_us(self, sha256: Sha256) -> int:
        if sha256 not in self._budgets:
            manifest = await self._disk.run(self._folders.manifest, sha256)
            self._budgets[sha256] = (manifest.budget if manifest else Budget()).latency_us
        return self._budgets[sha256]

    async def _restore(self, deployment: Deployment, slots: Slots, state: ServingState) -> None:
        model = deployment.model
        if slots.current is None:
            await self._serving.unload(model, None)
        elif live_sha256(state, model) != slots.current.sha256:
            await self.load_and_activate(model, slots.current)
        elif deployment.installed != slots.current and _has(state, model, deployment.sha256):
            await self._serving.unload(model, deployment.sha256)

    def _refused_restore(self, deployment: Deployment, slots: Slots, problem: str) -> Outcome:
        refused = deployment.trial.refused_restores + 1
        if refused < _REFUSED_RESTORES:
            trial = replace(deployment.trial, refused_restores=refused)
            return Outcome(trial=trial, wait_s=self._settings.poll_s)
        release = f"sha256 {slots.current.sha256[:12]}…" if slots.current else "no model"
        detail = f"expected to go back to {release} ({deployment.reason}: {deployment.detail}), got: {problem}"
        return Outcome(event=Event.IMPOSSIBLE, reason="stranded", detail=detail, slots=slots.rolled_back())


def _has(state: ServingState, model: ModelName, sha256: Sha256) -> bool:
    return any(each.sha256 == sha256 for each in state.models[model].loaded)
