"""A fleet without ports and devices without hardware: the fleet's own services on an SQLite database in memory.

The devices speak through the in-memory link, so everything between a report and a decision is the real thing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final, Protocol, TypeVar

from sqlalchemy.orm import Session

from edgeward_contract.artifact import ArtifactRef, DeviceId, ModelName, ReleaseRef, Sha256, sha256_of
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.manifest import Datatype, GoldenSet, Manifest, TensorSpec, Tolerance
from edgeward_contract.reported import LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.schema import JsonValue, canonical_json
from edgeward_contract.traffic import Traffic
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.db.base import Base
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.schema import DeviceRow
from edgeward_fleet.link.inbound import Inbound
from edgeward_fleet.link.memory import MemoryLink
from edgeward_fleet.models.model import Release
from edgeward_fleet.models.service import Registry
from edgeward_fleet.records.service import Records
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Rollout, RolloutId
from edgeward_fleet.rollouts.service import RolloutRecord, Rollouts
from edgeward_fleet.settings import Settings
from edgeward_fleet.storage import ChunkStore
from edgeward_fleet.wakeups import Wakeups

T = TypeVar("T")
AUTHOR: Final = Actor(name="olive")
APPROVER: Final = Actor(name="ada")
NAMES = ("d1", "d2", "d3", "d4", "d5")
CANARY: JsonValue = [{"name": "canary", "devices": 1}, {"name": "everyone", "percent": 100}]
MODEL: Final = ModelName("risk")


@dataclass(slots=True)
class MovableClock:
    """Stands still until a test moves it."""

    now: datetime = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Rehearsal:
    """The services of a fleet, a clock that stands still, and shortcuts for what tests do all the time."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.clock = MovableClock()
        self.database = database
        self.wakeups = Wakeups(hears_all=database.is_sqlite)
        self.store = ChunkStore((folder / "artifacts").as_uri())
        self.registry = Registry(database, self.store, Settings(data_dir=folder), self.clock, self.wakeups)
        self.records = Records(database, self.clock)
        self.news = 0
        self._numbers = itertools.count(1)  # the cohorts follow from a rollout's id; chance would make failures flicker
        self.inbound = Inbound(database, self.clock, self.records, self._hear)
        self.rollouts = self.new_rollouts()

    def new_rollouts(self) -> Rollouts:
        """What a restart of the fleet makes: the same database, nothing in memory."""
        return Rollouts(self.database, self.clock, self.wakeups.notify, lambda: f"r-{next(self._numbers)}")

    def enrol(self, *names: str, site: str = "north") -> list[SimulatedDevice]:
        """Devices of `site`, as enrolment leaves them."""
        rows = [DeviceRow(device_id=name, site=site, enrolled_at=self.clock(), hardware={}) for name in names]
        self.database.run_sync(lambda session: session.add_all(rows))
        return [SimulatedDevice(MemoryLink(self.inbound, self.wakeups, DeviceId(name))) for name in names]

    def revoke(self, device: str) -> None:
        def work(session: Session) -> None:
            session.get_one(DeviceRow, device).revoked_at = self.clock()

        self.database.run_sync(work)

    async def register(self, version: int, *, name: ModelName = MODEL) -> Release:
        """A release with artifacts of its own."""
        data, golden = f"{name} {version}".encode() * 99, f"golden {name} {version}".encode()
        for artifact in (data, golden):
            await self.registry.put_artifact(AUTHOR, sha256_of(artifact), pieces(artifact))
        release, _ = await self.registry.add_release(AUTHOR, manifest(version, data, golden, name=name).canonical())
        return release

    async def start(self, release: str = "risk@1", **spec: JsonValue) -> RolloutId:
        """A rollout that was asked for and approved."""
        made = await self.rollouts.create(AUTHOR, canonical_json({"release": release, **spec}))
        await self.rollouts.approve(APPROVER, made.rollout.id, made.rollout.spec.sha256())
        return made.rollout.id

    async def show(self, rollout_id: RolloutId) -> Rollout:
        return (await self.rollouts.show(rollout_id)).rollout

    async def tick(self, *, after_s: float = 0.0) -> None:
        self.clock.pass_s(after_s)
        await self.rollouts.tick()

    async def settle(self, devices: list[SimulatedDevice], *, soak_s: float = 31.0) -> None:
        """Let everybody do what it does until a whole round of time, reports and ticks changes nothing."""
        before: list[RolloutRecord] = []
        for _ in range(50):
            await self.tick(after_s=soak_s)
            for device in devices:
                await device.turn()
            listed = await self.rollouts.page(model=None, before=None, limit=100)
            now = [await self.rollouts.show(each.rollout.id) for each in listed]
            if now == before:
                return
            before = now
        raise AssertionError("the rollouts did not come to rest in 50 rounds")

    def _hear(self) -> None:
        self.news += 1


class Behaviour(Enum):
    """What a simulated device does with a release that it does not run yet."""

    TAKES = "takes"
    REJECTS = "rejects"
    ROLLS_BACK = "rolls back"
    STALLS = "stalls"
    SILENT = "silent"


_ENDS: Final = {
    Behaviour.REJECTS: (UpdateState.REJECTED, "golden_mismatch"),
    Behaviour.ROLLS_BACK: (UpdateState.ROLLED_BACK, "error_rate"),
    Behaviour.STALLS: (UpdateState.DOWNLOADING, ""),
}


class DeviceLink(Protocol):
    """What a simulated device needs of a link."""

    @property
    def device(self) -> DeviceId: ...

    async def desired_now(self, after: int) -> DesiredState | None: ...
    async def report(self, reported: ReportedState) -> None: ...


@dataclass(slots=True)
class SimulatedDevice:
    """Does what an agent does, as far as the fleet can see it. `bad` are releases that it will not keep."""

    link: DeviceLink
    behaviour: Behaviour = Behaviour.TAKES
    bad: dict[Sha256, Behaviour] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    live: tuple[ReleaseRef, Sha256] | None = None
    update: UpdateStatus | None = None
    generation: int = 0
    boot: str = "boot-1"
    sequence: int = 0
    fetched: list[DesiredState] = field(default_factory=list)

    @property
    def id(self) -> DeviceId:
        return self.link.device

    async def turn(self) -> None:
        """Look for news, act on them, report; nothing of it when silent."""
        if self.behaviour is Behaviour.SILENT:
            return
        desired = await self.link.desired_now(self.generation)
        if desired is not None:
            self.fetched.append(desired)
            self.generation = desired.generation
            self._act(desired.models.get(MODEL))
        await self.link.report(self.state())

    def state(self) -> ReportedState:
        self.sequence += 1
        return self.as_of(self.sequence)

    def as_of(self, sequence: int) -> ReportedState:
        live = None
        if self.live is not None:
            live = LiveModel(release=self.live[0], sha256=self.live[1], slot="current", traffic=self.traffic)
        models = {MODEL: ReportedModel(live=live, update=self.update)} if live or self.update else {}
        return ReportedState(
            generation=self.generation, boot=self.boot, sequence=sequence, agent_version="1", models=models
        )

    def try_again(self) -> None:
        """What somebody who repairs the device makes it do: act on what it fetched last as if it were news."""
        if self.fetched:
            self._act(self.fetched[-1].models.get(MODEL))

    def _act(self, wanted: DesiredModel | None) -> None:
        if wanted is None:
            self.live = self.update = None
            return
        behaviour = self.bad.get(wanted.sha256, self.behaviour)
        if self.live is not None and self.live[1] == wanted.sha256:
            behaviour = Behaviour.TAKES
        state, reason = _ENDS.get(behaviour, (UpdateState.COMMITTED, ""))
        if state is UpdateState.COMMITTED:
            self.live = (wanted.release, wanted.sha256)
        self.update = UpdateStatus(deployment=wanted.deployment, release=wanted.release, state=state, reason=reason)


def manifest(version: int, data: bytes, golden: bytes, *, name: ModelName = MODEL) -> Manifest:
    """A manifest that names two artifacts; nothing here runs them."""
    return Manifest(
        name=name,
        version=version,
        summary=f"version {version}",
        intended_use="tests",
        file=_ref(data),
        golden=GoldenSet(file=_ref(golden), cases=1, tolerances={"y": Tolerance(atol=1e-4, rtol=1e-4)}),
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 3)),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, 1)),),
    )


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """As a request's body comes."""
    for offset in range(0, len(data), size):
        yield data[offset : offset + size]


@contextmanager
def rehearsal(folder: Path) -> Iterator[Rehearsal]:
    """A fleet that ends with the block."""
    database = Database("sqlite://")
    try:
        database.with_connection(lambda connection: Base.metadata.create_all(connection))
        yield Rehearsal(folder, database)
    finally:
        database.close()


def play(folder: Path, scenario: Callable[[Rehearsal], Coroutine[None, None, T]]) -> T:
    """Run `scenario` on a fresh fleet."""
    with rehearsal(folder) as fleet:
        return asyncio.run(scenario(fleet))


def _ref(data: bytes) -> ArtifactRef:
    return ArtifactRef(sha256=sha256_of(data), size_bytes=len(data))


async def on_version_1(fleet: Rehearsal, *names: str) -> list[SimulatedDevice]:
    """Devices that all run risk@1, and risk@2 registered."""
    devices = fleet.enrol(*(names or NAMES))
    await fleet.register(1)
    await fleet.register(2)
    rollout = await fleet.start("risk@1")
    await fleet.settle(devices)
    assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED
    return devices


def versions_of(devices: list[SimulatedDevice]) -> list[int]:
    return [device.live[0].version if device.live else 0 for device in devices]


async def canary_of(fleet: Rehearsal, rollout: RolloutId, devices: list[SimulatedDevice]) -> SimulatedDevice:
    name = next(each.device for each in (await fleet.show(rollout)).devices if each.phase == 0)
    return next(device for device in devices if device.id == name)


async def sha256_in(fleet: Rehearsal, rollout: RolloutId) -> Sha256:
    return (await fleet.show(rollout)).release_sha256
