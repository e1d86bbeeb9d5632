"""Keeps prepared graphs: has them made by a child, publishes what it made, forgets what nobody needs.

Nothing here decides an update: a graph that cannot be prepared costs a slower load, and a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.clock import Clock
from edgeward_agent.ports import LoadedVersion, Probe, ProbeVerdict, ServingState
from edgeward_agent.update.child import last_words, run_child
from edgeward_agent.update.confinement import Limits
from edgeward_agent.update.files import flush_file, flush_folder, write_durably
from edgeward_agent.update.prepare_child import Preparation
from edgeward_agent.update.releases import MODEL
from edgeward_contract.artifact import Sha256, sha256_of_file

log = logging.getLogger(__name__)

_CHILD: Final = "edgeward_agent.update.prepare_child"
_PARTIAL: Final = "partial"
_KEY: Final = re.compile(r"[0-9a-f]{32}")
_GROWTH: Final = 2  # of a file by optimisation: folded constants, weights in another layout
_SLACK_BYTES: Final = 16 << 20
_WORTH_ANOTHER: Final = frozenset({"missing", "damaged", "refused"})
_LOOK_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFolder:
    """`graphs/<release>/<key>.onnx` with `<key>.sha256` beside it. Blocking; methods raise OSError."""

    root: Path

    def begin(self, release: Sha256) -> Path:
        """Where a child may write."""
        folder = self.root / release
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = folder / _PARTIAL
        target.unlink(missing_ok=True)
        return target

    def publish(self, release: Sha256, key: str) -> None:
        """Give what a child wrote its name. Its digest comes last: without one there is no graph."""
        folder = self.root / release
        flush_file(folder / _PARTIAL)
        digest = sha256_of_file(folder / _PARTIAL)
        for old in folder.iterdir():
            if old.name != _PARTIAL:  # of another runtime or processor
                old.unlink()
        (folder / _PARTIAL).rename(folder / f"{key}.onnx")
        flush_folder(folder)
        write_durably(folder / f"{key}.sha256", digest.encode())

    def abandon(self, release: Sha256) -> None:
        """Forget what a child may have written."""
        (self.root / release / _PARTIAL).unlink(missing_ok=True)

    def collect(self, keep: Callable[[str], bool]) -> None:
        """Forget the graphs of releases that are gone."""
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if not keep(folder.name):
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPreparer:
    """Has the graph of a release prepared, one at a time."""

    folder: GraphFolder
    limits: Limits
    timeout_s: float
    reserve_bytes: int
    free_bytes: Callable[[Path], int]

    async def prepare(self, release_dir: Path) -> str:
        """Returns why there is no prepared graph now; empty when there is. Cancelled, it leaves no child."""
        release = Sha256(release_dir.name)
        try:
            return await self._prepare(release, release_dir)
        except TimeoutError:
            return f"expected a graph within {self.timeout_s:g} s, got none"
        except OSError as error:
            return f"expected to write {self.folder.root}, got: {error.strerror or error}"
        finally:
            with suppress(OSError):
                self.folder.abandon(release)

    async def _prepare(self, release: Sha256, release_dir: Path) -> str:
        target, room = await asyncio.to_thread(self._room, release, release_dir)
        free = self.free_bytes(target.parent)
        if free < room + self.reserve_bytes:
            return f"expected {room + self.reserve_bytes} bytes free on the disk of the state folder, got {free}"
        limits = replace(self.limits, file_bytes=room)
        options: dict[str, str | int] = {**limits.options(os.getpid()), "--target": str(target)}
        end = await run_child(_CHILD, options, release_dir, timeout_s=self.timeout_s)
        made = Preparation(problem=f"expected an answer of the child, got: {last_words(end)}")
        with suppress(msgspec.MsgspecError):
            if end.status == 0:
                made = msgspec.json.decode(end.said, type=Preparation)
        if not _KEY.fullmatch(made.key):
            return made.problem or "expected a key of 32 hexadecimal digits, got another"
        await asyncio.to_thread(self.folder.publish, release, made.key)
        return ""

    def _room(self, release: Sha256, release_dir: Path) -> tuple[Path, int]:
        """Where the graph goes, and how large it may become."""
        size = (release_dir / MODEL).stat().st_size
        return self.folder.begin(release).absolute(), _GROWTH * size + _SLACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparingProbe:
    """See `ports.Probe`: what passes is prepared, before anybody asks for it to be loaded."""

    probe: Probe
    preparer: GraphPreparer

    async def examine(self, release_dir: Path) -> ProbeVerdict:
        verdict = await self.probe.examine(release_dir)
        if verdict.ok:
            _tell(release_dir.name, await self.preparer.prepare(release_dir))
        return verdict


class Caretaker:
    """Prepares what is served from its original: after a change of runtime or processor, or of a bad disk.

    The serving process takes it up when it loads the release again.
    """

    def __init__(
        self, preparer: GraphPreparer, releases: Path, state: Callable[[], ServingState | None], *, clock: Clock
    ) -> None:
        self._preparer = preparer
        self._releases = releases
        self._state = state
        self._clock = clock
        self._tried: set[Sha256] = set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._clock.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Prepare what is missing, each release once in the life of this agent."""
        with suppress(OSError):
            await asyncio.to_thread(self._preparer.folder.collect, lambda name: (self._releases / name).is_dir())
        for version in wanting(self._state()):
            if version.sha256 not in self._tried and (self._releases / version.sha256).is_dir():
                self._tried.add(version.sha256)
                _tell(version.sha256, await self._preparer.prepare(self._releases / version.sha256))


def wanting(state: ServingState | None) -> list[LoadedVersion]:
    """The versions that were loaded from their original and could be prepared. Pure."""
    models = state.models.values() if state else ()
    return [each for model in models for each in model.loaded if each.graph_note in _WORTH_ANOTHER]


def _tell(release: str, problem: str) -> None:
    if problem:
        log.warning("release %s… has no prepared graph: %s", release[:12], problem)
    else:
        log.info("prepared the graph of release %s…", release[:12])
