"""The book of this device and the disk that agrees with it: every change is in the journal before it is in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeward_agent.update.chunks import ChunkStore
from edgeward_agent.update.deployment import Deployment, rebooted
from edgeward_agent.update.files import DiskThread
from edgeward_agent.update.journal import Journal
from edgeward_agent.update.plan import given_up
from edgeward_agent.update.releases import ReleaseFolders, read_boot_file, write_boot_file
from edgeward_agent.update.slots import Slots
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import DesiredState
from edgeward_contract.reported import UpdateState

log = logging.getLogger(__name__)

_USES_CHUNKS: Final = frozenset(
    {
        UpdateState.OFFERED,
        UpdateState.ACCEPTED,
        UpdateState.DEFERRED,
        UpdateState.RETRY_WAIT,
        UpdateState.DOWNLOADING,
        UpdateState.VERIFYING,
    }
)


class Keeper:
    """Holds `book` in memory exactly as the journal has it, but for counts that are not worth a flush."""

    def __init__(self, *, state_dir: Path, journal: Journal, disk: DiskThread, folders: ReleaseFolders) -> None:
        self._state_dir = state_dir
        self._journal = journal
        self._disk = disk
        self._folders = folders
        self.chunks = ChunkStore(state_dir)
        self.book = journal.load()
        self.untidy = True
        self.troubles = {"journal-damaged"} if journal.quarantined else set[str]()

    def slots(self, model: ModelName) -> Slots:
        return self.book.slots.get(model, Slots())

    @property
    def working(self) -> list[Deployment]:
        return [each for each in self.book.deployments.values() if each.working]

    async def recover(self) -> None:
        """Begin again from the journal, whatever the last agent was doing. Raises JournalFull, as all that store."""
        await self.reload()
        if not self.book.slots and self.book.desired is None:
            await self._disk.run(self._adopt)
            await self.reload()
        for deployment in self.working:
            await self.store(rebooted(deployment))

    async def reload(self) -> None:
        self.book = await self._disk.run(self._journal.load)

    async def take(self, desired: DesiredState) -> None:
        await self._disk.run(self._journal.take, desired)
        self.book = replace(self.book, desired=desired)

    async def open(self, fresh: Deployment) -> None:
        """Make it the newest of its model. If this very deployment gave its release up, its end is told again."""
        earlier = await self._disk.run(self._journal.find, fresh)
        given = earlier is not None and given_up(earlier) and self.slots(fresh.model).current != fresh.installed
        deployment = earlier if earlier is not None and given else fresh
        await self._disk.run(self._journal.open, deployment)
        self.remember(deployment)

    async def store(self, deployment: Deployment, slots: Slots | None = None) -> None:
        await self._disk.run(self._journal.store, deployment, slots)
        reason = f" ({deployment.reason}: {deployment.detail})" if deployment.reason else ""
        log.info("%s, deployment %s: %s%s", deployment.release, deployment.deployment, deployment.state, reason)
        if slots is not None:
            await self._put(deployment.model, slots)
        self.remember(deployment)
        self.untidy = self.untidy or not deployment.working

    def remember(self, deployment: Deployment) -> None:
        self.book = replace(self.book, deployments={**self.book.deployments, deployment.model: deployment})

    async def remove(self, model: ModelName) -> None:
        await self._disk.run(self._journal.put_slots, model, Slots())
        await self._put(model, Slots())

    async def tidy(self) -> None:
        """Bring the disk into agreement with the book: boot.json first, then what nobody needs any more."""
        self.untidy = False
        await self._write_boot_file(self.book.slots)
        await self.collect()

    async def collect(self) -> None:
        """Free what is in no slot and not wanted; what is under way is one or the other."""
        with suppress(OSError):
            await self._disk.run(self._collect)

    async def _put(self, model: ModelName, slots: Slots) -> None:
        """Who is told that a release is committed may cut the power: by then it is what boots."""
        others = {name: each for name, each in self.book.slots.items() if name != model}
        after = others if slots == Slots() else {**others, model: slots}
        await self._write_boot_file(after)
        self.book = replace(self.book, slots=after)
        self.untidy = True

    async def _write_boot_file(self, slots: Mapping[ModelName, Slots]) -> None:
        try:
            await self._disk.run(write_boot_file, self._state_dir, slots)
            self.troubles.discard("boot-file")
        except OSError as error:
            log.error("boot.json: %s", error)
            self.troubles.add("boot-file")

    def _adopt(self) -> None:
        """Without a journal boot.json still says what this device runs: losing the one must not lose the other."""
        for model, slots in read_boot_file(self._state_dir).items():
            if slots.current and self._folders.complete(slots.current.sha256):
                self._journal.put_slots(model, slots)

    def _collect(self) -> None:
        kept = frozenset[Sha256]().union(*(slots.kept() for slots in self.book.slots.values()))
        wanted = {each.sha256 for each in self.book.desired.models.values()} if self.book.desired else set[Sha256]()
        fetching = frozenset(each.sha256 for each in self.working if each.state in _USES_CHUNKS)
        self._folders.collect(keep=kept | wanted, under_way=fetching)
        if not fetching:
            self.chunks.clear()
        self._journal.restore_ballast()
