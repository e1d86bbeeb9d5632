"""Lets the serving process and the release folders agree with the slots: either may have lost what it had.

A disk forgets without a word, and a release that does not load any more does not begin to by being loaded again: it
is fetched anew where the fleet still wants it. Elsewhere the alarm says so, and a new rollout of it heals.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from edgeward_agent.errors import ServingError, ServingUnavailable
from edgeward_agent.ports import Serving, ServingState
from edgeward_agent.update.deployment import Book
from edgeward_agent.update.files import DiskThread
from edgeward_agent.update.plan import Drop, Repair, anew, repairs
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_agent.update.trial import Trials
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import DesiredModel
from edgeward_contract.reported import UpdateState

log = logging.getLogger(__name__)

_CHECKED: Final = frozenset({UpdateState.PROBING, UpdateState.ACTIVATING, UpdateState.PROBATION, UpdateState.COMMITTED})
"""A deployment that has come so far has verified its folder."""


class Mender:
    """What the updater does between two deployments."""

    def __init__(self, *, serving: Serving, trials: Trials, folders: ReleaseFolders, disk: DiskThread) -> None:
        self._serving = serving
        self._trials = trials
        self._folders = folders
        self._disk = disk
        self._not_live: dict[ModelName, str] = {}  # and why it could not be repaired at the last look
        self._suspects: dict[Sha256, str] = {}
        self._damaged: Mapping[ModelName, Sha256] = {}

    @property
    def alarms(self) -> set[str]:
        return {f"not-live:{model}" for model in self._not_live} | {f"damaged:{model}" for model in self._damaged}

    def suspect(self, sha256: Sha256, problem: str) -> None:
        """Take notice of a folder that is not what it was."""
        self._suspects[sha256] = problem

    async def mend(self, book: Book, state: ServingState) -> bool:
        """Repair what the serving process lacks; whether there was something. Raises ServingUnavailable."""
        needed = repairs(book, state)
        amiss = {repair.model for repair in needed}
        self._not_live = {model: words for model, words in self._not_live.items() if model in amiss}
        self._damaged = {model: sha256 for model, sha256 in self._damaged.items() if _is_still(book, model, sha256)}
        done = [await self._repair(repair) for repair in needed]
        return any(done)

    def to_fetch(self, book: Book) -> list[DesiredModel]:
        """The releases that are to be fetched once more, each told once."""
        for model, slots in book.slots.items():
            if slots.current and (problem := self._suspects.get(slots.current.sha256)):
                log.error("%s: the release on disk is damaged: %s", model, problem)
                self._damaged = {**self._damaged, model: slots.current.sha256}
        wanted = [anew(book, sha256) for sha256 in self._suspects]
        self._suspects.clear()
        return [each for each in wanted if each]

    async def _repair(self, repair: Repair) -> bool:
        try:
            if isinstance(repair, Drop):
                await self._serving.unload(repair.model, repair.sha256)
            else:
                await self._trials.load_and_activate(repair.model, repair.installed)
        except ServingUnavailable:
            raise
        except ServingError as error:
            await self._refused(repair, str(error))
            return False
        self._not_live.pop(repair.model, None)
        return True

    async def _refused(self, repair: Repair, words: str) -> None:
        """Said once, and looked into once: what is refused is tried again at each look."""
        if self._not_live.get(repair.model) == words:
            return
        self._not_live[repair.model] = words
        log.error("%s: %s", repair.model, words)
        if isinstance(repair, Drop):
            return
        if problem := await self._disk.run(self._folders.problem, repair.installed.sha256):
            self.suspect(repair.installed.sha256, str(problem))


def _is_still(book: Book, model: ModelName, sha256: Sha256) -> bool:
    slots, newest = book.slots.get(model), book.deployments.get(model)
    current = slots is not None and slots.current is not None and slots.current.sha256 == sha256
    return current and not (newest and newest.sha256 == sha256 and newest.state in _CHECKED)
