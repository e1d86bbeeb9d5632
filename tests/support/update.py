"""A device in memory around the real updater, journal and folders: only the ports and the clock are ours.

The ports hold the updater to "store, then act": each looks into the journal when it is called. They also are the
places where a test cuts the power.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgeward_agent.errors import LinkLost, LinkRefused, ServingRefused, ServingUnavailable
from edgeward_agent.ports import LoadedVersion, ProbeReason, ProbeVerdict, ServedModel, ServingState
from edgeward_agent.update.executor import Updater
from edgeward_agent.update.journal import FILE, Journal
from edgeward_agent.update.plan import plan
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_agent.update.settings import UpdateSettings
from edgeward_contract.artifact import ArtifactRef, ModelName, ReleaseRef, Sha256, sha256_of
from edgeward_contract.chunks import ChunkIndex, StoredChunk, raw_index
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.manifest import Datatype, GoldenSet, Manifest, TensorSpec, Tolerance
from edgeward_contract.reported import ReportedModel, UpdateState, UpdateStatus
from edgeward_contract.traffic import Traffic

MODEL: Final = ModelName("risk")
PLENTY: Final = 1 << 40
QUICK: Final = UpdateSettings(probation_s=3.0, poll_s=1.0, watch_s=5.0, max_retries=3, crash_limit=2)


class PowerCut(BaseException):
    """Nothing of ours may catch this."""


@dataclass(slots=True)
class Scissors:
    """Cuts the power at the n-th point that is reached; 0 never does."""

    cut_at: int = 0
    reached: int = 0
    places: list[str] = field(default_factory=list)

    def point(self, place: str) -> None:
        self.reached += 1
        self.places.append(place)
        if self.reached == self.cut_at:
            raise PowerCut(place)


@dataclass(frozen=True, slots=True)
class Release:
    """A made-up release: its files are not ONNX, since the probe here is not real."""

    manifest: Manifest
    files: tuple[bytes, bytes]

    @property
    def sha256(self) -> Sha256:
        return self.manifest.sha256()


def make_release(version: int, *, name: ModelName = MODEL, size_bytes: int = 1000, latency_us: int = 10_000) -> Release:
    model, golden = (f"{name} {version} {kind} ".encode() * size_bytes for kind in ("model", "golden"))
    files = (model[:size_bytes], golden[: size_bytes // 2])
    manifest = Manifest(
        name=name,
        version=version,
        summary="",
        intended_use="",
        file=_ref(files[0]),
        golden=GoldenSet(file=_ref(files[1]), cases=1, tolerances={"y": Tolerance(atol=0.0, rtol=0.0)}),
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 1)),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, 1)),),
    )
    return Release(replace(manifest, budget=replace(manifest.budget, latency_us=latency_us)), files)


def desired(generation: int, *wanted: tuple[str, Release]) -> DesiredState:
    """(deployment, release) for each model."""
    models = {
        release.manifest.name: DesiredModel(
            release=release.manifest.release, sha256=release.sha256, deployment=deployment
        )
        for deployment, release in wanted
    }
    return DesiredState(generation=generation, models=models)


class FakeClock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class FakeSource:
    """Releases in chunks. `faults` are raised, one for each call; `corrupt` bytes come as something else."""

    def __init__(self, device: Device, chunk_bytes: int = 400) -> None:
        self._device = device
        self._chunk_bytes = chunk_bytes
        self._blobs: dict[Sha256, bytes] = {}
        self._indexes: dict[Sha256, ChunkIndex] = {}
        self.faults: list[Exception] = []
        self.corrupt: set[Sha256] = set()
        self.calls: list[tuple[str, Sha256]] = []

    def add(self, release: Release) -> Release:
        self._blobs[release.sha256] = release.manifest.canonical()
        for data in release.files:
            index = raw_index(data, chunk_bytes=self._chunk_bytes)
            self._indexes[index.artifact.sha256] = index
            for chunk in index.chunks:
                self._blobs[chunk.sha256] = data[chunk.offset : chunk.offset + chunk.size_bytes]
        return release

    def put(self, sha256: Sha256, data: bytes) -> None:
        self._blobs[sha256] = data

    def lie(self, release: Release, data: bytes) -> None:
        """Serve other bytes for the model, under an index that fits them and claims to be the model's."""
        index = raw_index(data, chunk_bytes=self._chunk_bytes)
        self._indexes[release.manifest.file.sha256] = replace(index, artifact=release.manifest.file)
        for chunk in index.chunks:
            self._blobs[chunk.sha256] = data[chunk.offset : chunk.offset + chunk.size_bytes]

    async def manifest(self, sha256: Sha256) -> bytes:
        return self._get("manifest", sha256)

    async def chunk_index(self, artifact: ArtifactRef) -> ChunkIndex:
        self._called("index", artifact.sha256)
        return self._indexes[artifact.sha256]

    async def chunk(self, stored: StoredChunk) -> bytes:
        return self._get("chunk", stored.sha256)

    def fetched(self, kind: str) -> list[Sha256]:
        return [sha256 for what, sha256 in self.calls if what == kind]

    def _get(self, kind: str, sha256: Sha256) -> bytes:
        self._called(kind, sha256)
        if sha256 not in self._blobs:
            raise LinkRefused(f"{kind} {sha256[:12]}…: not found", status=404)
        data = self._blobs[sha256]
        return data[::-1] + b"?" if sha256 in self.corrupt else data

    def _called(self, kind: str, sha256: Sha256) -> None:
        self._device.expect_stored(f"fetch {kind}", None, {UpdateState.DOWNLOADING})
        if self.faults:
            raise self.faults.pop(0)
        self.calls.append((kind, sha256))


class FakeProbe:
    """Passes everything but what is told otherwise, by the digest of the release."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.verdicts: dict[Sha256, list[ProbeVerdict]] = {}
        self.faults: list[Exception] = []
        self.examined: list[Sha256] = []
        self.endless: set[Sha256] = set()
        self.ended: list[Sha256] = []

    async def examine(self, release_dir: Path) -> ProbeVerdict:
        sha256 = Sha256(release_dir.name)
        self._device.expect_stored("examine", sha256, {UpdateState.PROBING})
        if self.faults:
            raise self.faults.pop(0)
        self.examined.append(sha256)
        assert names_in(release_dir) == ["golden.npz", "manifest.json", "model.onnx"]
        if sha256 in self.endless:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.append(sha256)
        verdicts = self.verdicts.get(sha256, [])
        return verdicts.pop(0) if verdicts else ProbeVerdict(reason=ProbeReason.OK)


class FakeServing:
    """A serving process that keeps the promises of `ports.Serving`, and boots from boot.json like the real one."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.started_us = 1
        self.loaded: dict[ModelName, list[LoadedVersion]] = {}
        self.live: dict[ModelName, LoadedVersion] = {}
        self.traffic: dict[ModelName, Traffic] = {}
        self.refused: set[Sha256] = set()
        self.crashes_on_load: set[Sha256] = set()
        self.bad: set[Sha256] = set()
        self.refuses_to_activate = False
        self.unavailable = 0
        self.graphs: set[Sha256] = set()
        self.calls: list[tuple[str, ModelName, Sha256 | None]] = []

    def boot(self) -> None:
        """A new process: what was in memory is gone, what boot.json says is live."""
        self.started_us += 1
        self.loaded, self.live, self.traffic = {}, {}, {}
        boot = self._device.state_dir / "boot.json"
        for each in json.loads(boot.read_text())["models"] if boot.exists() else []:
            assert Path(each["path"]).is_dir(), "boot.json names a release that is not here"
            if not self._opens(Path(each["path"])):
                continue
            version = LoadedVersion(version=each["version"], sha256=Sha256(each["sha256"]))
            self.live[ModelName(each["name"])] = version
            self.loaded[ModelName(each["name"])] = [version]

    async def state(self) -> ServingState:
        self._answer()
        names = {*self.loaded, *self.live}
        models = {
            name: ServedModel(
                live=self.live.get(name),
                loaded=tuple(self.loaded.get(name, [])),
                traffic=self._traffic(name),
            )
            for name in names
        }
        return ServingState(pid=1, started_us=self.started_us, models=models)

    async def load(self, model: ModelName, *, sha256: Sha256, version: int, path: Path) -> None:
        self._answer()
        self._act("load", model, sha256)
        if sha256 in self.crashes_on_load:
            self.boot()
            raise ServingUnavailable("the serving process is gone")
        if sha256 in self.refused or not self._opens(path):
            raise ServingRefused(f"{model}@{version}: does not load")
        if sha256 not in {each.sha256 for each in self.loaded.get(model, [])}:
            self.loaded.setdefault(model, []).append(LoadedVersion(version=version, sha256=sha256))

    async def activate(self, model: ModelName, sha256: Sha256) -> None:
        self._answer()
        self._act("activate", model, sha256)
        found = [each for each in self.loaded.get(model, []) if each.sha256 == sha256]
        if not found or self.refuses_to_activate:
            raise ServingRefused(f"{model}: not loaded")
        if self.live.get(model) != found[0]:
            self.traffic[model] = Traffic()
        self.live[model], self.loaded[model] = found[0], found

    async def unload(self, model: ModelName, sha256: Sha256 | None) -> None:
        self._answer()
        self._act("unload", model, sha256)
        self.loaded[model] = [each for each in self.loaded.get(model, []) if sha256 and each.sha256 != sha256]
        if sha256 is None or self.live.get(model, LoadedVersion(version=0, sha256=Sha256(""))).sha256 == sha256:
            self.live.pop(model, None)

    def _opens(self, release: Path) -> bool:
        """As the real one: a prepared graph is enough, whatever has become of its original."""
        sha256 = Sha256(release.name)
        return sha256 in self.graphs or ReleaseFolders(release.parent.parent).problem(sha256) is None

    def _traffic(self, model: ModelName) -> Traffic:
        """A bad release answers ten requests between two looks, all of them wrongly."""
        live = self.live.get(model)
        return (
            Traffic(requests=10, errors=10) if live and live.sha256 in self.bad else self.traffic.get(model, Traffic())
        )

    def _answer(self) -> None:
        if self.unavailable:
            self.unavailable -= 1
            raise ServingUnavailable("expected the serving process to answer, it does not")

    def _act(self, what: str, model: ModelName, sha256: Sha256 | None) -> None:
        self.calls.append((what, model, sha256))
        self._device.expect_allowed(what, model, sha256)


class CutJournal(Journal):
    """The real journal with the power cut before or after a commit."""

    scissors: Scissors | None = None
    refusals = 0  # so many next commits find the disk full

    def _transact(self, statements: list[tuple[str, tuple[object, ...]]]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise _sqlite_full()
        if self.scissors:
            self.scissors.point("before a commit")
        super()._transact(statements)
        if self.scissors:
            self.scissors.point("after a commit")


class Device:
    """A state folder, a serving process, and an updater that can be killed and started again."""

    def __init__(self, state_dir: Path, settings: UpdateSettings = QUICK) -> None:
        state_dir.mkdir(exist_ok=True)
        self.state_dir = state_dir
        self.settings = settings
        self.clock = FakeClock()
        self.scissors = Scissors()
        self.source = FakeSource(self)
        self.serving = FakeServing(self)
        self.probe = FakeProbe(self)
        self.free = PLENTY
        self.changes = 0
        self.rand: Callable[[], float] = lambda: 0.5
        self.runner = asyncio.Runner()
        self.journal: CutJournal
        self.updater: Updater
        self.start()

    def start(self) -> None:
        self.journal = CutJournal(self.state_dir / FILE)
        self.journal.scissors = self.scissors
        self.updater = Updater(
            state_dir=self.state_dir,
            journal=self.journal,
            source=self.source,
            serving=self.serving,
            probe=self.probe,
            clock=self.clock,
            settings=self.settings,
            rand=lambda: self.rand(),
            on_change=self._changed,
            free_bytes=lambda folder: self.free,
        )

    def kill(self) -> None:
        """End the control process without a word; the serving process lives on."""
        self.updater.close()
        self.journal.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def power_cut(self) -> None:
        self.kill()
        self.clock.now += 3600
        self.serving.boot()
        self.start()

    def close(self) -> None:
        self.kill()
        self.runner.close()

    def step(self) -> bool:
        """One step; when there is nothing to do, a second passes."""
        busy = self.runner.run(self.updater.step())
        if not busy:
            self.clock.now += 1.0
        return busy

    def run_until(self, reached: Callable[[], bool], *, steps: int = 4000) -> None:
        for _ in range(steps):
            if reached():
                return
            self.step()
        raise AssertionError(f"not reached; the deployment is {self.status()}, {self.serving.live} is live")

    def settle(self) -> None:
        """Run until the fleet has its answers, nothing is under way and everything is tidied up."""
        self.run_until(self._settled)
        for _ in range(12):  # long enough for one look at the serving process
            self.step()

    def offer(self, state: DesiredState) -> None:
        self.updater.offer(state)

    def deploy(self, generation: int, deployment: str, release: Release) -> None:
        """Offer one release and wait for the end of it."""
        self.offer(desired(generation, (deployment, release)))
        self.settle()

    def status(self, model: ModelName = MODEL) -> UpdateStatus | None:
        return self.reported(model).update

    def state(self, model: ModelName = MODEL) -> UpdateState | None:
        status = self.status(model)
        return status.state if status else None

    def reported(self, model: ModelName = MODEL) -> ReportedModel:
        return self.updater.reported_models().get(model, ReportedModel())

    def live(self, model: ModelName = MODEL) -> ReleaseRef | None:
        version = self.serving.live.get(model)
        return ReleaseRef(model, version.version) if version else None

    def expect_stored(self, what: str, sha256: Sha256 | None, states: set[UpdateState]) -> None:
        """An action of a port: the journal must say already that it would be done."""
        self.scissors.point(f"before {what}")
        stored = [each for each in self.journal.load().deployments.values() if sha256 in (None, each.sha256)]
        assert any(each.state in states for each in stored), f"{what}: journal says {[each.state for each in stored]}"

    def expect_allowed(self, what: str, model: ModelName, sha256: Sha256 | None) -> None:
        """Only a candidate on trial or the current release may be loaded; nothing current is unloaded."""
        self.scissors.point(f"before {what}")
        book = self.journal.load()
        slots, newest = book.slots.get(model), book.deployments.get(model)
        current = slots.current if slots else None
        if what == "unload":
            assert sha256 is not None or current is None, "unloads a model that is in its slots"
            assert current is None or sha256 != current.sha256, "unloads the current release"
        elif current is None or sha256 != current.sha256:
            assert newest is not None and newest.sha256 == sha256, f"{what} of a release that nobody wants"
            assert newest.state in (UpdateState.ACTIVATING, UpdateState.PROBATION), f"{what} in {newest.state}"

    def _settled(self) -> bool:
        book = self.journal.load()
        taken = book.desired.generation if book.desired else 0
        resting = not any(each.working for each in book.deployments.values())
        return taken == self.updater.generation and resting and not plan(book)

    def _changed(self) -> None:
        self.changes += 1


def first_committed(device: Device) -> Release:
    """Version 1, deployed by `d1`."""
    release = device.source.add(make_release(1))
    device.deploy(1, "d1", release)
    assert device.state() is UpdateState.COMMITTED
    return release


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lost(retry_after_s: float | None = None) -> LinkLost:
    return LinkLost("expected an answer, the network is gone", retry_after_s=retry_after_s)


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def verdict(reason: ProbeReason) -> ProbeVerdict:
    return ProbeVerdict(reason=reason, detail=f"the probe says {reason}")


def _sqlite_full() -> sqlite3.OperationalError:
    """The error as SQLite makes it: a file that may not grow."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute("CREATE TABLE t (x)")
    except sqlite3.OperationalError as error:
        return error
    finally:
        connection.close()
    raise AssertionError("expected SQLITE_FULL")


def _ref(data: bytes) -> ArtifactRef:
    return ArtifactRef(sha256=sha256_of(data), size_bytes=len(data))
