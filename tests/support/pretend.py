"""Devices that are not there: they enrol, poll and report over the real ports with real certificates, and run nothing.

device = PretendDevice.enrol(fleet, "bed-1", "north")
device.take_all()        # what an agent does with a good release: every step reported, committed at the end
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from edgeward_contract import topics
from edgeward_contract.artifact import ModelName
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.record import Batch, Record, RecordClass
from edgeward_contract.reported import DeviceHealth, LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.traffic import Traffic
from support.fleet import Fleet

WELL = DeviceHealth(
    serving_ready=True, disk_free_bytes=12 << 30, certificate_days_left=29, outbox_records=3, outbox_oldest_s=4
)
STEPS = (
    UpdateState.ACCEPTED,
    UpdateState.DOWNLOADING,
    UpdateState.VERIFYING,
    UpdateState.PROBING,
    UpdateState.PROBATION,
    UpdateState.COMMITTED,
)


@dataclass(slots=True)
class PretendDevice:
    """Says what a test wants it to say."""

    name: str
    client: httpx.Client
    health: DeviceHealth = WELL
    traffic: Traffic = field(default_factory=lambda: Traffic(requests=1000, errors=0, p50_us=310, p99_us=1900))
    desired: DesiredState = field(default_factory=lambda: DesiredState(generation=0))
    models: dict[ModelName, ReportedModel] = field(default_factory=dict)
    boot: str = field(default_factory=lambda: uuid.uuid4().hex)
    _sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _record: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def enrol(cls, fleet: Fleet, name: str, site: str = "north") -> PretendDevice:
        return cls(name, fleet.device_client(fleet.enrol(name, site)))

    def poll(self) -> DesiredState:
        """What the fleet wants; the fleet knows from now on that the device has it."""
        answer = self.client.get(topics.desired_path(self.desired.generation, 0))
        assert answer.status_code in (200, 204), answer.text
        if answer.status_code == 200:
            self.desired = DesiredState.parse(answer.content)
        return self.desired

    def report(self) -> None:
        state = ReportedState(
            generation=self.desired.generation,
            boot=self.boot,
            sequence=next(self._sequence),
            agent_version="0.1.0",
            models=dict(self.models),
            health=self.health,
        )
        answer = self.client.post(topics.REPORTED, content=state.canonical())
        assert answer.status_code == 204, answer.text

    def step(self, state: UpdateState, *, reason: str = "", detail: str = "", progress_percent: int = 0) -> None:
        """Report that every desired release is in `state`; COMMITTED makes it live, PROBATION answers from it."""
        for name, wanted in self.poll().models.items():
            before = self.models.get(name, ReportedModel())
            update = UpdateStatus(
                deployment=wanted.deployment,
                release=wanted.release,
                state=state,
                reason=reason,
                detail=detail,
                attempt=1,
                progress_percent=progress_percent,
            )
            self.models[name] = ReportedModel(live=self._live(wanted, state, before.live), update=update)
        for name in set(self.models) - set(self.desired.models):
            del self.models[name]
        self.report()

    def take_all(self) -> None:
        """Take what is desired, one reported step after the other."""
        for state in STEPS:
            self.step(state)

    def deliver(self, latencies_us: list[int], *, model: str = "wdbc-risk", version: int = 1, wall_us: int = 0) -> None:
        """Send records of inferences, one per latency, a second apart."""
        records = tuple(
            Record(
                epoch=self.boot,
                sequence=next(self._record),
                record_class=RecordClass.RESULT,
                kind="inference",
                boot=self.boot,
                boot_us=number * 1_000_000,
                wall_us=wall_us + number * 1_000_000,
                clock_trusted=True,
                body={"model": model, "version": version, "outcome": "ok", "latency_us": latency_us},
            )
            for number, latency_us in enumerate(latencies_us)
        )
        batch = Batch(batch_id=uuid.uuid4().hex, records=records)
        answer = self.client.post(topics.RECORDS, content=batch.canonical())
        assert answer.status_code == 200, answer.text

    def _live(self, wanted: DesiredModel, state: UpdateState, before: LiveModel | None) -> LiveModel | None:
        if state not in (UpdateState.PROBATION, UpdateState.COMMITTED):
            return before
        slot = "current" if state is UpdateState.COMMITTED else "candidate"
        return LiveModel(release=wanted.release, sha256=wanted.sha256, slot=slot, traffic=self.traffic)
