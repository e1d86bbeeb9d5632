"""A device as the fleet sees it: the agent's own polling and reporting, real downloads, and no model that runs.

What takes a device time without costing the fleet any, the probe and the probation, is waited for.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from benchmarks.fleet.wire import LoopWire
from edgeward_agent.clock import SystemClock
from edgeward_agent.config import LinkConfig, ReportConfig
from edgeward_agent.errors import LinkError
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.link.follow import follow_desired
from edgeward_agent.link.source import HttpsReleaseSource
from edgeward_agent.ports import Link
from edgeward_agent.reporter import Reporter, Rhythm, Snapshot
from edgeward_agent.update.settings import UpdateSettings
from edgeward_contract.artifact import ArtifactRef, ModelName, sha256_of
from edgeward_contract.chunks import Encoding
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.manifest import Manifest
from edgeward_contract.record import Acknowledgement, Batch, Record, RecordClass, VerdictStatus
from edgeward_contract.reported import DeviceHealth, LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.traffic import Traffic

T = TypeVar("T")
_CLOCK: Final = SystemClock()
_REPORT: Final = ReportConfig()
_RHYTHM: Final = Rhythm(heartbeat_s=_REPORT.heartbeat_s, min_interval_s=_REPORT.min_interval_s)
_HEALTH: Final = DeviceHealth(serving_ready=True, disk_free_bytes=8 << 30, certificate_days_left=29)
_REQUESTS_PER_S: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a device goes. Ours are the agent's defaults; the probe takes what it takes for a small model."""

    probe_s: float = 2.0
    probation_s: float = UpdateSettings().probation_s
    park_s: int = LinkConfig().wait_s
    records_every_s: float = 30.0
    records_in_a_batch: int = 12


@dataclass(slots=True)
class Times:
    """When the fleet had what, by `time.monotonic`: the first report since the start, and each deployment's ends."""

    told: float | None = None
    desired: dict[str, float] = field(default_factory=dict)
    committed: dict[str, float] = field(default_factory=dict)


class Device:
    """`run` is its life from one start to the next end; what it has and what it knows survives."""

    def __init__(
        self, name: str, wire: LoopWire, pace: Pace, at_work: asyncio.Event, connect: Callable[[], Link]
    ) -> None:
        self.name: Final = name
        self.times = Times()
        self._wire = wire
        self._connect = connect
        self._link: Link = connect()
        self._source = HttpsReleaseSource(wire)
        self._pace = pace
        self._at_work = at_work
        self._models: dict[ModelName, ReportedModel] = {}
        self._wanted: asyncio.Queue[DesiredModel] = asyncio.Queue()
        self._news = asyncio.Event()
        self._epoch = secrets.token_hex(8)
        self._records = 0
        self.generation = 0

    async def run(self) -> None:
        self._link = link = _Heard(self._connect(), self._told)
        reporter = Reporter(link, self._look, news=self._news, clock=_CLOCK, rhythm=_RHYTHM, draw=random.random)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow_desired(link, self, clock=_CLOCK, draw=random.random))
                tasks.create_task(reporter.run())
                tasks.create_task(self._keep_updated())
                tasks.create_task(self._keep_recording())
        finally:
            self.times.told = None
            await link.aclose()
            self._wire.close()

    def offer(self, desired: DesiredState) -> None:
        """See `follow.Follower`."""
        self.generation = desired.generation
        for wanted in desired.models.values():
            if wanted.deployment not in self.times.desired:
                self.times.desired[wanted.deployment] = time.monotonic()
                self._wanted.put_nowait(wanted)

    async def _look(self) -> Snapshot:
        return Snapshot(generation=self.generation, models=dict(self._models), health=_HEALTH)

    def _told(self, reported: ReportedState) -> None:
        now = time.monotonic()
        self.times.told = self.times.told or now
        for model in reported.models.values():
            if model.update is not None and model.update.state is UpdateState.COMMITTED:
                self.times.committed.setdefault(model.update.deployment, now)

    async def _keep_updated(self) -> None:
        while True:
            await self._update(await self._wanted.get())

    async def _update(self, wanted: DesiredModel) -> None:
        self._step(wanted, UpdateState.OFFERED)
        self._step(wanted, UpdateState.ACCEPTED)
        self._step(wanted, UpdateState.DOWNLOADING)
        await self._download(wanted)
        self._step(wanted, UpdateState.PROBING)
        await asyncio.sleep(self._pace.probe_s)
        self._step(wanted, UpdateState.PROBATION, slot="candidate")
        await asyncio.sleep(self._pace.probation_s)
        self._step(wanted, UpdateState.COMMITTED, slot="current")

    def _step(self, wanted: DesiredModel, state: UpdateState, slot: str | None = None) -> None:
        """Say where the update stands; the reporter joins steps that follow one another faster than it may report."""
        name = wanted.release.name
        before = self._models.get(name, ReportedModel())
        live = before.live if slot is None else _live(wanted, slot, self._pace)
        update = UpdateStatus(deployment=wanted.deployment, release=wanted.release, state=state, attempt=1)
        self._models[name] = ReportedModel(live=live, update=update)
        self._news.set()

    async def _download(self, wanted: DesiredModel) -> None:
        """Raises AssertionError when the fleet sends anything but what was named."""
        data = await _patiently(partial(self._source.manifest, wanted.sha256))
        assert sha256_of(data) == wanted.sha256, f"{self.name}: another manifest"
        manifest = Manifest.parse(data)
        for artifact in (manifest.file, manifest.golden.file):
            await self._fetch(artifact)

    async def _fetch(self, artifact: ArtifactRef) -> None:
        index = await _patiently(partial(self._source.chunk_index, artifact))
        pieces: list[bytes] = []
        for chunk in index.chunks:
            pieces.append(await _patiently(partial(self._source.chunk, chunk.best({Encoding.RAW}))))
            assert sha256_of(pieces[-1]) == chunk.sha256, f"{self.name}: another chunk"
        assert sha256_of(b"".join(pieces)) == artifact.sha256, f"{self.name}: another artifact"

    async def _keep_recording(self) -> None:
        """Raises AssertionError when the fleet does not accept a record."""
        while True:
            await self._at_work.wait()
            await asyncio.sleep(self._pace.records_every_s * random.random() * 2)  # noqa: S311 (when, not what)
            batch = self._batch()
            acknowledged = await _patiently(partial(self._link.deliver, batch))
            taken = {VerdictStatus.ACCEPTED, VerdictStatus.DUPLICATE}
            assert len(acknowledged.verdicts) == len(batch.records)
            assert {verdict.status for verdict in acknowledged.verdicts} <= taken, f"{self.name}: refused records"

    def _batch(self) -> Batch:
        first = self._records + 1
        self._records += self._pace.records_in_a_batch
        records = tuple(_record(self._epoch, sequence) for sequence in range(first, self._records + 1))
        return Batch(batch_id=secrets.token_hex(8), records=records)


class _Heard:
    """Says when the fleet has taken a report. A link."""

    def __init__(self, link: Link, heard: Callable[[ReportedState], None]) -> None:
        self._link = link
        self._told = heard

    @property
    def max_batch_bytes(self) -> int:
        return self._link.max_batch_bytes

    async def next_desired(self, after: int) -> DesiredState:
        return await self._link.next_desired(after)

    async def report(self, reported: ReportedState) -> None:
        await self._link.report(reported)
        self._told(reported)

    async def deliver(self, batch: Batch) -> Acknowledgement:
        return await self._link.deliver(batch)

    async def aclose(self) -> None:
        await self._link.aclose()


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Again until there is an answer, at the agent's own distance."""
    failures = 0
    while True:
        try:
            return await ask()
        except LinkError:
            failures += 1
            await asyncio.sleep(delay_s(failures, random.random()))  # noqa: S311 (spreads load)


def _live(wanted: DesiredModel, slot: str, pace: Pace) -> LiveModel:
    served = 0 if slot == "candidate" else round(_REQUESTS_PER_S * pace.probation_s)
    traffic = Traffic(requests=served, p50_us=430, p99_us=4200)
    return LiveModel(release=wanted.release, sha256=wanted.sha256, slot=slot, traffic=traffic)


def _record(epoch: str, sequence: int) -> Record:
    return Record(
        epoch=epoch,
        sequence=sequence,
        record_class=RecordClass.RESULT,
        kind="inference",
        boot="simulated",
        boot_us=time.monotonic_ns() // 1000,
        wall_us=time.time_ns() // 1000,
        clock_trusted=True,
        body={
            "model": "wdbc-risk",
            "version": 1,
            "request_id": f"r{sequence}",
            "outcome": "ok",
            "latency_us": 430,
            "outputs": {"risk": {"datatype": "FP32", "shape": [1], "data": [0.25]}},
        },
    )
