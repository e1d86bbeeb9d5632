"""The ports of the control process: what the update machine and the outbox need of the world.

Adapters are in `link/`, `serving_control.py`, `supervisor.py` and `update/probe.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from edgeward_contract.artifact import ArtifactRef, ModelName, Sha256
from edgeward_contract.chunks import ChunkIndex, StoredChunk
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState
from edgeward_contract.traffic import Traffic


class Link(Protocol):
    """The way to the fleet. At least once: what is sent may arrive twice, so receivers deduplicate.

    Every method raises LinkLost when a retry is worth it and LinkRefused when it is not, nothing else.
    """

    @property
    def max_batch_bytes(self) -> int:
        """How large a batch may be, as far as it is known now; a larger one is refused with the status 413."""

    async def next_desired(self, after: int) -> DesiredState:
        """Wait until the fleet wants a generation above `after`, for as long as it takes."""

    async def report(self, reported: ReportedState) -> None:
        """Return once the fleet has taken the report."""

    async def deliver(self, batch: Batch) -> Acknowledgement:
        """Return the fleet's own acknowledgement, sent after its commit; a transport's is never enough."""

    async def aclose(self) -> None:
        """Give back what is held. Calls under way end with LinkLost."""


class ReleaseSource(Protocol):
    """Where releases come from: the fleet over HTTPS, whatever the link. Raises LinkLost and LinkRefused alone.

    Bytes are as the far side sent them: the caller checks every digest.
    """

    async def manifest(self, sha256: Sha256) -> bytes: ...

    async def chunk_index(self, artifact: ArtifactRef) -> ChunkIndex: ...

    async def chunk(self, stored: StoredChunk) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedVersion:
    """A version in the memory of the serving process.

    `fallback` says why it does not run on the execution provider that it wants, `graph_note` in a word why its graph
    is not a prepared one; both are empty when all is as it should be.
    """

    version: int
    sha256: Sha256
    providers: tuple[str, ...] = ()
    fallback: str = ""
    graph_note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model as the serving process has it; `traffic` counts since the live version went live."""

    live: LoadedVersion | None
    loaded: tuple[LoadedVersion, ...]
    traffic: Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingState:
    """A new `started_us` (Unix time) means that the process crashed or was restarted."""

    pid: int
    started_us: int
    models: Mapping[ModelName, ServedModel] = field(default_factory=dict)
    capture_dropped: int = 0
    draining: int = 0  # versions that are on their way out


class Serving(Protocol):
    """Commands to the serving process. Raises ServingUnavailable (worth a retry) and ServingRefused (not)."""

    async def state(self) -> ServingState: ...

    async def load(self, model: ModelName, *, sha256: Sha256, version: int, path: Path) -> None:
        """Load and warm a release beside the one that answers. Idempotent."""

    async def activate(self, model: ModelName, sha256: Sha256) -> None:
        """Let a loaded version answer from now on; the old one drains and is released. Idempotent."""

    async def unload(self, model: ModelName, sha256: Sha256 | None) -> None:
        """Free one version, or with None the whole model. Idempotent."""


class ProbeReason(StrEnum):
    """Why a candidate was refused, as reported."""

    OK = "ok"
    GOLDEN_MISMATCH = "golden_mismatch"
    LOAD_FAILED = "load_failed"
    POLICY = "policy"
    MANIFEST_MISMATCH = "manifest_mismatch"
    CRASHED = "crashed"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"  # out of time, or ended from outside: no fault of the model's that is known, so it is retried


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeVerdict:
    """What the probe saw. `detail` is one sentence; latencies are of a batch of one, in µs."""

    reason: ProbeReason
    detail: str = ""
    cases: int = 0
    p50_us: int = 0
    p99_us: int = 0
    peak_memory_bytes: int = 0

    @property
    def ok(self) -> bool:
        return self.reason is ProbeReason.OK


class Probe(Protocol):
    """Runs a candidate's golden set in a process of its own. A bad model is a verdict, never an exception."""

    async def examine(self, release_dir: Path) -> ProbeVerdict:
        """May take minutes. Cancelled, it ends the process before it returns."""
