"""The updater: follows what the fleet wants, one stored step at a time, and tells how it stands.

One loop takes one action after another, of all models in turn. Between two actions everything that matters is in the
journal: a kill at any moment is answered by opening it again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgeward_agent.clock import Clock
from edgeward_agent.errors import ServingUnavailable
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.ports import Probe, ReleaseSource, Serving, ServingState
from edgeward_agent.update.actions import Actions
from edgeward_agent.update.chunks import free_bytes
from edgeward_agent.update.deployment import Deployment, Outcome, settled
from edgeward_agent.update.files import DiskThread
from edgeward_agent.update.journal import Journal, JournalFull
from edgeward_agent.update.keeper import Keeper
from edgeward_agent.update.machine import Event
from edgeward_agent.update.mender import Mender
from edgeward_agent.update.plan import Remove, Stop, all_live, plan
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_agent.update.report import reported_models, stranded
from edgeward_agent.update.settings import UpdateSettings
from edgeward_agent.update.trial import Trials
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import ReportedModel, UpdateState

log = logging.getLogger(__name__)

_STOPPED: Final = {
    Event.CANCEL: ("withdrawn", "the fleet does not want this model here any more"),
    Event.SUPERSEDE: ("superseded", "the fleet wants another deployment"),
    Event.WITHDRAWN: ("withdrawn", "the fleet wants something else while this release was on trial"),
}


def _nobody_listens() -> None:
    """The default of `on_change`."""


class Updater:
    """Walks every model of the device towards the desired state.

    Owned by one task, which calls `run`. `offer`, `reported_models` and the properties may be used by other tasks of
    the same loop. `on_change` is called from that loop after each change of a state and each tenth of a download.
    Close it before the journal: its thread may still be writing.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        journal: Journal,
        source: ReleaseSource,
        serving: Serving,
        probe: Probe,
        clock: Clock,
        settings: UpdateSettings | None = None,
        rand: Callable[[], float] = random.random,
        on_change: Callable[[], None] = _nobody_listens,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._clock = clock
        self._settings = settings or UpdateSettings()
        self._rand = rand
        self._on_change = on_change
        self._disk = DiskThread()
        folders = ReleaseFolders(state_dir)
        self._keeper = Keeper(state_dir=state_dir, journal=journal, disk=self._disk, folders=folders)
        self._trials = Trials(serving=serving, folders=folders, disk=self._disk, clock=clock, settings=self._settings)
        self._mender = Mender(serving=serving, trials=self._trials, folders=folders, disk=self._disk)
        self._actions = Actions(
            source=source,
            probe=probe,
            folders=folders,
            chunks=self._keeper.chunks,
            disk=self._disk,
            trials=self._trials,
            settings=self._settings,
            free_bytes=free_bytes,
        )
        self._offered: DesiredState | None = None
        self._wake = asyncio.Event()
        self._due: dict[ModelName, float] = {}
        self._turns: dict[ModelName, int] = {}
        self._failures: dict[ModelName, int] = {}
        self._told: Mapping[ModelName, tuple[str, UpdateState, int]] = {}
        self._watch_due = 0.0
        self._recovered = False

    def close(self) -> None:
        self._disk.close()

    @property
    def generation(self) -> int:
        """The newest generation taken; ask the fleet for what comes after it."""
        known = self._offered or self._keeper.book.desired
        return known.generation if known else 0

    @property
    def serving_state(self) -> ServingState | None:
        """The serving process at the last look; None when it did not answer."""
        return self._trials.state

    @property
    def ready(self) -> bool:
        """Whether the serving process answered at the last look, with every model that has a current release."""
        state = self._trials.state
        return state is not None and all_live(self._keeper.book, state)

    @property
    def alarms(self) -> tuple[str, ...]:
        """Words for the report: what a person must look at."""
        unable = stranded(self._keeper.book, self._trials.state)
        return tuple(sorted(self._keeper.troubles | self._mender.alarms | unable))

    def reported_models(self) -> Mapping[ModelName, ReportedModel]:
        book = self._keeper.book
        percents = {name: self._actions.percent(each) for name, each in book.deployments.items()}
        return reported_models(book, self._trials.state, percents)

    def offer(self, desired: DesiredState) -> None:
        """Take what the fleet wants; an older generation, or one that is known already, changes nothing."""
        unknown = self._offered is None and self._keeper.book.desired is None
        if unknown or desired.generation > self.generation:
            self._offered = desired
            self._wake.set()

    def suspect(self, sha256: Sha256, problem: str) -> None:
        """Take notice of a release folder that is not what it was; one that is current is fetched again."""
        self._mender.suspect(sha256, problem)
        self._watch_due = 0.0
        self._wake.set()

    @property
    def current(self) -> tuple[Sha256, ...]:
        """The releases that a boot starts."""
        return tuple(each.current.sha256 for each in self._keeper.book.slots.values() if each.current)

    async def run(self) -> None:
        """Never returns. Raises what is a bug, or a disk that fails; no probe is left behind."""
        try:
            while True:
                await self._turn()
        finally:
            await self._actions.aclose()

    async def _turn(self) -> None:
        try:
            if not await self.step():
                await self._rest()
        except JournalFull as error:
            log.error("%s", error)
            await self._wait_for_room()

    async def step(self) -> bool:
        """Do one thing; False when there is nothing to do now. Raises JournalFull, after which nothing was done."""
        keeper = self._keeper
        if not self._recovered:
            await keeper.recover()
            self._recovered = True
        elif self._offered or plan(keeper.book):
            await self._follow()
        elif keeper.untidy:
            await keeper.tidy()
        elif self._clock.monotonic() >= self._watch_due:
            await self._watch()
        elif (deployment := self._next()) is not None:
            await self._walk(deployment)
        else:
            return False
        self._tell()
        return True

    async def _follow(self) -> None:
        if offered := self._offered:
            await self._keeper.take(offered)
            if self._offered is offered:  # a newer one may have come while the disk was busy
                self._offered = None
        for step in plan(self._keeper.book):
            if isinstance(step, Stop):
                await self._stop(step)
            elif isinstance(step, Remove):
                await self._keeper.remove(step.model)
                self._watch_due = 0.0  # what is in no slot is unloaded there
            else:
                await self._open(step.wanted)
        self._keeper.untidy = True

    async def _open(self, wanted: DesiredModel) -> None:
        fresh = Deployment.of(wanted)
        await self._keeper.open(fresh)
        self._forget(fresh.model)

    async def _stop(self, step: Stop) -> None:
        reason, detail = _STOPPED[step.event]
        deployment = self._keeper.book.deployments[step.model]
        await self._keeper.store(deployment.after(step.event, reason=reason, detail=detail))
        self._forget(step.model)

    def _forget(self, model: ModelName) -> None:
        """What was remembered of an earlier deployment of the model."""
        self._actions.forget(model)
        self._due.pop(model, None)
        self._failures.pop(model, None)

    async def _walk(self, deployment: Deployment) -> None:
        self._turns[deployment.model] = max(self._turns.values(), default=0) + 1
        outcome = await self._actions.act(deployment, self._keeper.slots(deployment.model))
        after = settled(deployment, outcome, max_stores=self._settings.max_stores)
        if outcome.event or (outcome.flush and after != deployment):
            await self._keeper.store(after, outcome.slots)
        else:
            self._keeper.remember(after)
        self._schedule(after, outcome)

    def _schedule(self, deployment: Deployment, outcome: Outcome) -> None:
        model, wait_s = deployment.model, outcome.wait_s
        if outcome.event is Event.RETRY:
            self._failures[model] = self._failures.get(model, 0) + 1
            wait_s = delay_s(self._failures[model], self._rand(), retry_after_s=outcome.retry_after_s)
        elif outcome.event is Event.DEFER:
            wait_s = self._settings.defer_poll_s
        elif deployment.state is UpdateState.DOWNLOADING and outcome.event is None:
            self._failures.pop(model, None)  # a piece came
        self._due[model] = self._clock.monotonic() + wait_s

    async def _watch(self) -> None:
        """Look at the serving process and let it agree with the slots: it may have been restarted, or never told."""
        self._watch_due = self._clock.monotonic() + self._settings.watch_s
        self._keeper.untidy = "boot-file" in self._keeper.troubles
        try:
            if await self._mender.mend(self._keeper.book, await self._trials.look()):
                self._look_again_soon()  # what is reported is what is seen
        except ServingUnavailable as error:
            log.warning("serving process: %s", error)
            self._look_again_soon()
        for wanted in self._mender.to_fetch(self._keeper.book):
            await self._open(wanted)

    def _look_again_soon(self) -> None:
        self._watch_due = self._clock.monotonic() + min(self._settings.poll_s, self._settings.watch_s)

    def _next(self) -> Deployment | None:
        """Of the deployments that are due, the one whose last turn is longest ago."""
        now = self._clock.monotonic()
        due = [each for each in self._keeper.working if self._due.get(each.model, 0.0) <= now]
        return min(due, key=lambda each: self._turns.get(each.model, 0), default=None)

    def _tell(self) -> None:
        deployments = self._keeper.book.deployments.items()
        told = {name: (each.deployment, each.state, self._actions.percent(each) // 10) for name, each in deployments}
        if told != self._told:
            self._told = told
            self._on_change()

    async def _rest(self) -> None:
        """Sleep until something is due or the fleet wants something."""
        until = min([self._watch_due, *(self._due.get(each.model, 0.0) for each in self._keeper.working)])
        sleep = asyncio.ensure_future(self._clock.sleep(max(0.0, until - self._clock.monotonic())))
        wake = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleep, wake}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            wake.cancel()
        self._wake.clear()

    async def _wait_for_room(self) -> None:
        """What could not be stored was not acted on: begin again from the journal once there may be room."""
        self._keeper.troubles.add("journal-full")
        self._on_change()
        await self._clock.sleep(self._settings.poll_s)
        await self._keeper.collect()
        await self._keeper.reload()
        self._keeper.troubles.discard("journal-full")
