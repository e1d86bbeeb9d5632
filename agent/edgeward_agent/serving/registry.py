"""Which versions are in memory and which of them answers. Load, switch, drain, release; no request fails meanwhile.

The switch is one assignment on the loop's thread, which is also the only thread that looks: a request has either
the old version or the new one, and keeps it to its end.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.errors import ModelError
from edgeward_agent.priority import interrupt_nobody
from edgeward_agent.serving.memory import give_back
from edgeward_agent.serving.plans import Plans
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.release import Loading, Version, load_release
from edgeward_agent.serving.session import RunFailed
from edgeward_agent.serving.traffic import TrafficMeter
from edgeward_contract.artifact import ModelName, Sha256

_log: Final = logging.getLogger(__name__)


class Model(msgspec.Struct):
    """All versions of a model that are in memory, in the order in which they came."""

    live: Version | None = None
    loaded: dict[Sha256, Version] = msgspec.field(default_factory=dict)


class Registry:
    """Touched on the loop's thread alone; only loading and releasing happen on another, and always on the same: each
    thread has a heap of its own, and what one frees does not serve the next.
    """

    def __init__(self, loading: Loading | None = None) -> None:
        self.loading = loading or Loading()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=interrupt_nobody)
        self.models: dict[str, Model] = {}
        self._expected: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._draining: set[asyncio.Task[None]] = set()

    def find(self, name: str, version: str | None) -> Version:
        """The version that answers now, or the one that was asked for.

        Raises:
            Refusal: 404 for what is not in memory.
        """
        model = self.models.get(name)
        if model is None or (version is None and model.live is None):
            raise Refusal(HTTPStatus.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        if version is None and model.live is not None:
            return model.live
        return self._find_version(name, model, version or "")

    @property
    def draining(self) -> int:
        """How many versions are on their way out: still answering somebody, or being released."""
        return len(self._draining)

    @property
    def ready(self) -> bool:
        """Every model that should answer can. One that is loaded for the first time is not asked for yet."""
        return all(self.models[name].live is not None for name in self._expected)

    def adopt(self, version: Version) -> None:
        """Let a version answer that was loaded elsewhere: at the start, before anybody asks."""
        for before in self._loaded(version.name).values():
            before.retired = True
        self.models[version.name] = Model(version, {version.sha256: version})
        self._expected.add(version.name)

    def expect(self, name: ModelName) -> None:
        """Count a model that should answer and cannot: this server is not ready until one of its versions is live."""
        self.models.setdefault(name, Model())
        self._expected.add(name)

    async def load(self, name: ModelName, *, sha256: Sha256, version: int, path: Path) -> None:
        """Load a release beside the live one. Idempotent.

        Raises:
            ModelError: it does not load, or is not what was named.
        """
        async with self._one_at_a_time:
            if sha256 in self._loaded(name):
                return
            work = partial(load_release, name, sha256, version, path, self.loading)
            loaded = await asyncio.get_running_loop().run_in_executor(self._loader, work)
            self.models.setdefault(name, Model()).loaded[sha256] = loaded

    def activate(self, name: ModelName, sha256: Sha256) -> None:
        """Let a loaded version answer from now on; the one before drains and is released. Idempotent.

        Raises:
            ModelError: the version is not loaded.
        """
        model = self.models.get(name)
        version = model.loaded.get(sha256) if model else None
        if model is None or version is None:
            raise ModelError(f"model {name}: expected a loaded version, got {sha256[:12]}…, which is not")
        if model.live is version:
            return
        old, model.live = model.live, version
        self._expected.add(name)
        version.traffic = TrafficMeter()
        if old is not None:
            self._retire(model, old)

    def unload(self, name: ModelName, sha256: Sha256 | None) -> None:
        """Free one version, or the whole model. Idempotent."""
        model = self.models.get(name)
        if model is None:
            return
        for version in tuple(model.loaded.values()):
            if sha256 in (None, version.sha256):
                self._retire(model, version)
        if sha256 is None or (not model.loaded and name not in self._expected):
            del self.models[name]
            self._expected.discard(name)

    async def shrink(self, name: ModelName) -> None:
        """Give back the memory that large requests to a model have left behind.

        Raises:
            ModelError: there is no such model, or it does not run on zeros, which this takes.
        """
        model = self.models.get(name)
        if model is None:
            raise ModelError(f"model {name}: expected a model that is in memory, it is not")
        for version in tuple(model.loaded.values()):
            if version.retired:  # while one before it was looked at
                continue
            version.begin()
            try:
                await asyncio.get_running_loop().run_in_executor(self._loader, _shrink, version)
            finally:
                version.end()

    async def close(self) -> None:
        for task in tuple(self._draining):
            await task
        self._loader.shutdown()

    def _loaded(self, name: str) -> dict[Sha256, Version]:
        model = self.models.get(name)
        return model.loaded if model else {}

    @staticmethod
    def _find_version(name: str, model: Model, version: str) -> Version:
        for loaded in (model.live, *reversed(model.loaded.values())):
            if loaded is not None and str(loaded.version) == version:
                return loaded
        raise Refusal(HTTPStatus.NOT_FOUND, f"Request for unknown model: '{name}' version {version[:20]} is not found")

    def _retire(self, model: Model, version: Version) -> None:
        del model.loaded[version.sha256]
        version.retired = True
        if model.live is version:
            model.live = None
        name = f"drain {version.name}@{version.version}"
        task = asyncio.get_running_loop().create_task(self._drain(version), name=name)
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _drain(self, version: Version) -> None:
        """Wait for the requests that began with a version, then free it where it was made: large ones take a while."""
        await version.drained()
        version.plans = Plans()  # they know the version: what was frozen at the start is never collected
        await asyncio.get_running_loop().run_in_executor(self._loader, _release, version)
        _log.info("released %s@%d", version.name, version.version)


def _shrink(version: Version) -> None:
    try:
        version.session.shrink()
    except RunFailed as error:
        raise ModelError(f"{version.name}@{version.version}: {error}") from None
    give_back()


def _release(version: Version) -> None:
    version.session.close()
    give_back()
