"""What is done in each state before a candidate is activated; see `trial` for the rest.

An action runs only after its state was stored, and can be repeated from the start at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from edgeward_agent.errors import LinkLost, LinkRefused, UpdateError
from edgeward_agent.ports import Probe, ProbeReason, ProbeVerdict, ReleaseSource
from edgeward_agent.update.chunks import ChunkStore, Download, assemble, room_needed
from edgeward_agent.update.deployment import Deployment, Outcome
from edgeward_agent.update.failures import outcome_of
from edgeward_agent.update.files import DiskThread
from edgeward_agent.update.machine import Event
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_agent.update.settings import UpdateSettings
from edgeward_agent.update.slots import Slots
from edgeward_agent.update.trial import Trials
from edgeward_contract.artifact import ModelName
from edgeward_contract.manifest import Manifest
from edgeward_contract.reported import UpdateState
from edgeward_contract.schema import ContractError

Action = Callable[[Deployment, Slots], Awaitable[Outcome]]

_GLANCE_S: Final = 0.05


class Actions:
    """One action for each working state. `free_bytes` says how much room a folder's disk has."""

    def __init__(
        self,
        *,
        source: ReleaseSource,
        probe: Probe,
        folders: ReleaseFolders,
        chunks: ChunkStore,
        disk: DiskThread,
        trials: Trials,
        settings: UpdateSettings,
        free_bytes: Callable[[Path], int],
    ) -> None:
        self._source = source
        self._probe = probe
        self._folders = folders
        self._chunks = chunks
        self._disk = disk
        self._settings = settings
        self._free_bytes = free_bytes
        self._downloads: dict[ModelName, Download] = {}
        self._probes: dict[ModelName, asyncio.Task[ProbeVerdict]] = {}
        self._table: Final[dict[UpdateState, Action]] = {
            UpdateState.OFFERED: self._offered,
            UpdateState.ACCEPTED: self._accepted,
            UpdateState.DEFERRED: self._deferred,
            UpdateState.RETRY_WAIT: self._retry_wait,
            UpdateState.DOWNLOADING: self._downloading,
            UpdateState.VERIFYING: self._verifying,
            UpdateState.PROBING: self._probing,
            UpdateState.ACTIVATING: trials.activating,
            UpdateState.PROBATION: trials.probation,
            UpdateState.ROLLING_BACK: trials.rolling_back,
        }

    async def act(self, deployment: Deployment, slots: Slots) -> Outcome:
        """Do what the deployment's state asks for. What fails on the way is an outcome, not an exception."""
        try:
            outcome = await self._table[deployment.state](deployment, slots)
        except (LinkLost, LinkRefused, UpdateError, ContractError, OSError) as error:
            outcome = outcome_of(error, deployment, max_retries=self._settings.max_retries)
        if outcome.event is not None:
            self.forget(deployment.model)
        return outcome

    def percent(self, deployment: Deployment) -> int:
        """How much of the release is here."""
        if deployment.state is UpdateState.DOWNLOADING:
            download = self._downloads.get(deployment.model)
            return download.percent if download else 0
        return 0 if deployment.state in _BEFORE_DOWNLOAD else 100

    def forget(self, model: ModelName) -> None:
        """Let go of what is under way for the model; a probe of it ends."""
        self._downloads.pop(model, None)
        if probe := self._probes.pop(model, None):
            probe.cancel()

    async def aclose(self) -> None:
        """End every probe, and wait for it."""
        probes = tuple(self._probes.values())
        for model in tuple(self._probes):
            self.forget(model)
        await asyncio.gather(*probes, return_exceptions=True)

    async def _offered(self, deployment: Deployment, slots: Slots) -> Outcome:
        if slots.current == deployment.installed and not await self._problem(deployment):
            return Outcome(event=Event.ALREADY_CURRENT, detail="it is the current release already")
        return Outcome(event=Event.ACCEPT)

    async def _accepted(self, deployment: Deployment, slots: Slots) -> Outcome:
        complete = await self._disk.run(self._folders.complete, deployment.sha256)
        if complete and not await self._disk.run(self._folders.arriving, deployment.sha256):
            return Outcome(event=Event.ON_DISK)
        return await self._without_room(deployment) or Outcome(event=Event.START)

    async def _deferred(self, deployment: Deployment, slots: Slots) -> Outcome:
        if await self._without_room(deployment):
            return Outcome(wait_s=self._settings.defer_poll_s)
        return Outcome(event=Event.RESUME)

    async def _retry_wait(self, deployment: Deployment, slots: Slots) -> Outcome:
        return Outcome(event=Event.RESUME)

    async def _downloading(self, deployment: Deployment, slots: Slots) -> Outcome:
        download = self._downloads.get(deployment.model)
        if download is None:
            download = self._download(deployment)
            manifest = await download.manifest()
            self._downloads[deployment.model] = download
            if refusal := await self._cannot_hold(deployment, manifest):
                return refusal
        return Outcome(event=Event.DOWNLOADED) if await download.step() else Outcome()

    async def _verifying(self, deployment: Deployment, slots: Slots) -> Outcome:
        complete = await self._disk.run(self._folders.complete, deployment.sha256)
        if not complete or await self._disk.run(self._folders.arriving, deployment.sha256):
            await self._disk.run(assemble, self._folders, self._chunks, deployment.sha256)
        elif problem := await self._problem(deployment):
            await self._disk.run(self._folders.doubt, deployment.sha256)
            raise problem
        return Outcome(event=Event.VERIFIED)

    async def _problem(self, deployment: Deployment) -> Exception | None:
        return await self._disk.run(self._folders.problem, deployment.sha256)

    async def _probing(self, deployment: Deployment, slots: Slots) -> Outcome:
        if deployment.attempts >= self._settings.max_attempts:
            detail = f"expected a verdict within {self._settings.max_attempts} starts of the agent, got none"
            return Outcome(event=Event.ATTEMPTS_USED, reason="attempts", detail=detail)
        probe = self._begun_probe(deployment)
        await asyncio.wait({probe}, timeout=_GLANCE_S)
        if not probe.done():
            return Outcome(wait_s=self._settings.poll_s)
        verdict = probe.result()
        if verdict.ok:
            return Outcome(event=Event.PROBE_PASSED, slots=slots.with_candidate(deployment.installed))
        if verdict.reason is ProbeReason.TIMEOUT and deployment.retries < self._settings.max_retries:
            return Outcome(event=Event.RETRY, reason=verdict.reason, detail=verdict.detail, counted=True)
        return Outcome(event=Event.FAIL, reason=verdict.reason, detail=verdict.detail)

    def _begun_probe(self, deployment: Deployment) -> asyncio.Task[ProbeVerdict]:
        """A task, because it takes minutes: other models, and a fleet that changes its mind, do not wait for it."""
        if deployment.model not in self._probes:
            examining = self._probe.examine(self._folders.path(deployment.sha256))
            probe = asyncio.ensure_future(examining)
            probe.add_done_callback(_heard)
            self._probes[deployment.model] = probe
        return self._probes[deployment.model]

    def _download(self, deployment: Deployment) -> Download:
        return Download(
            deployment,
            source=self._source,
            folders=self._folders,
            chunks=self._chunks,
            disk=self._disk,
            timeout_s=self._settings.fetch_timeout_s,
        )

    async def _cannot_hold(self, deployment: Deployment, manifest: Manifest) -> Outcome | None:
        limit, size = self._settings.max_model_bytes, manifest.file.size_bytes
        if size > limit:
            detail = f"expected a model of at most {limit} bytes, as update.max_model_bytes says, got {size}"
            return Outcome(event=Event.REJECT, reason="incompatible", detail=detail)
        return await self._without_room(deployment)

    async def _without_room(self, deployment: Deployment) -> Outcome | None:
        """As much as the manifest asks for; before it is here, the reserve alone."""
        return await self._disk.run(self._measure, deployment)

    def _measure(self, deployment: Deployment) -> Outcome | None:
        manifest = self._folders.manifest(deployment.sha256)
        here = self._chunks.size_bytes()
        needed = self._settings.disk_reserve_bytes + (max(0, room_needed(manifest) - here) if manifest else 0)
        free = self._free_bytes(self._folders.root)
        if free >= needed:
            return None
        detail = f"expected {needed} bytes free on the disk of the state folder, got {free}"
        return Outcome(event=Event.DEFER, reason="disk", detail=detail)


_BEFORE_DOWNLOAD: Final = (
    UpdateState.OFFERED,
    UpdateState.ACCEPTED,
    UpdateState.DEFERRED,
    UpdateState.RETRY_WAIT,
    UpdateState.REJECTED,
)


def _heard(probe: asyncio.Task[ProbeVerdict]) -> None:
    """Nobody asks one that was let go of how it failed; asyncio would complain."""
    if not probe.cancelled():
        probe.exception()
