"""What an update costs the person who waits for an answer: latency of one model while *another* is downloaded,
checked in the probe, swapped in and put on probation, against the same without an update.

A real fleet, a real agent, real TLS, and an outbox that commits every answer all the while; the other release is padded
to 32 MiB so that the download takes a while. One client in C asks at fixed times over one TCP connection, and counts
from the time at which it meant to ask. The fleet, its admins and the network would be elsewhere: here they have what
the agent's own background leaves of its cores, in both phases, and not the one that it keeps for answers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from benchmarks.latency import native, wire
from benchmarks.latency.native import Load, Sample, Target
from benchmarks.report import Result, median_ratio
from edgeward_agent.priority import LINUX, background_cores, go_last
from edgeward_contract.artifact import ArtifactRef, sha256_of_file
from edgeward_contract.manifest import Manifest
from edgeward_contract.schema import JsonValue
from edgeward_fleet.cli.push import push_release
from edgeward_fleet.demo.cables import Cables
from edgeward_fleet.demo.devices import Device, start_devices
from edgeward_fleet.demo.processes import Household
from edgeward_fleet.demo.staff import Staff, open_fleet
from edgeward_fleet.packing.folder import read_release

ROUNDS: Final = 7
PARTS: Final = 4
"""Of a round: one update takes a thousand requests, and their second largest is no p99.9."""
STEADY_S: Final = 5.0
EVERY_US: Final = 4000
_PADDING_BYTES: Final = 32 << 20
_ROLLOUT_S: Final = 120.0
_RELEASES: Final = Path(__file__).parent.parent / "models/wdbc-risk/releases"
_ASKED: Final = "wdbc-risk"
_OTHER: Final = "another-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A device that answers with one model, and a fleet that can send it another.

    `elsewhere` is the thread of its admins.
    """

    staff: Staff
    device: Device
    elsewhere: ThreadPoolExecutor

    def round(self, number: int, steady_s: float) -> tuple[Sample, Sample]:
        """Latencies without an update, and during updates. Raises AssertionError when a request or a rollout failed."""
        steady, updating = [], []
        for part in range(PARTS):
            with self._asking() as asking:
                time.sleep(steady_s)
            steady.append(asking.sample)
            with self._asking() as asking:
                release = f"{_OTHER}@{2 - (PARTS * number + part) % 2}"
                self.elsewhere.submit(_roll_out, self.staff, release).result()
            updating.append(asking.sample)
        return Sample.merged(steady), Sample.merged(updating)

    def _asking(self) -> native.Asking:
        request = wire.request(wire.v2(_ASKED, wire.Form.V2_BINARY), {"features": _features()})
        target = Target(kind="tcp", where=self.device.address.rpartition(":")[2])
        return native.Asking(target, Load(request=request, seconds=_ROLLOUT_S, warm_up_s=0.5, every_us=EVERY_US))


@contextmanager
def scene() -> Iterator[Scene]:
    """Everything that a round needs."""
    folder = Path(tempfile.mkdtemp(prefix="edgeward-bench-"))
    try:
        with ThreadPoolExecutor(1, initializer=_go_elsewhere) as elsewhere, ExitStack() as stack:
            cables = elsewhere.submit(stack.enter_context, Cables()).result()  # what a thread starts is as it is
            household = stack.enter_context(Household(folder))
            staff = elsewhere.submit(open_fleet, folder, household, stack).result()
            for pid in household.pids:
                go_last(pid)
            (device,) = start_devices(1, folder, "https", staff.operator, cables, household)
            _push(staff, _RELEASES / "2")
            for version in (1, 2):
                _push(staff, _padded(version, folder))
            _roll_out(staff, f"{_ASKED}@2")
            _roll_out(staff, f"{_OTHER}@1")
            yield Scene(staff=staff, device=device, elsewhere=elsewhere)
    finally:
        shutil.rmtree(folder)


def measure(rounds: int = ROUNDS, steady_s: float = STEADY_S) -> Result:
    """Raises AssertionError when a request or a rollout failed: a fast wrong answer is not a result."""
    with scene() as played:
        return _result([played.round(number, steady_s) for number in range(rounds)])


def figures(steady: Sample, updating: Sample) -> dict[str, float]:
    """A round in names and numbers."""
    found = {"requests": float(len(updating.latencies_ns))}
    for when, sample in (("steady", steady), ("update", updating)):
        found |= {f"{when} p{share * 100:g}_us": sample.quantile_us(share) for share in (0.5, 0.99, 0.999)}
    return found


def _result(rounds: list[tuple[Sample, Sample]]) -> Result:
    rows: dict[str, dict[str, float]] = {}
    for index, name in enumerate(("steady", "during an update")):
        every = Sample(latencies_ns=np.sort(np.concatenate([each[index].latencies_ns for each in rounds])), per_s=0.0)
        rows[name] = {"requests": float(len(every.latencies_ns))}
        rows[name] |= {f"p{share * 100:g}_us": every.quantile_us(share) for share in (0.5, 0.99, 0.999)}
        rows[name]["max_us"] = every.quantile_us(1.0)
    rows["ratio, median of the rounds"] = {
        f"p{share * 100:g}": median_ratio([(b.quantile_us(share), a.quantile_us(share)) for a, b in rounds])
        for share in (0.5, 0.99, 0.999)
    }
    what = f"wdbc-risk over TCP, a request each {EVERY_US / 1e3:g} ms, {len(rounds)} rounds; nothing pinned"
    return Result(what=what, rows=rows)


def _go_elsewhere() -> None:
    """Let this thread, and what it starts, run where the agent's background runs, and after it. Linux alone."""
    if LINUX:
        os.sched_setaffinity(0, background_cores(os.sched_getaffinity(0)))
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _features() -> np.typing.NDArray[np.float32]:
    return np.random.default_rng(0).random((1, 30), np.float32)


def _padded(version: int, folder: Path) -> Path:
    """A copy of a release under another name, whose file carries 32 MiB that no node uses."""
    target = folder / f"padded-{version}"
    shutil.copytree(_RELEASES / str(version), target)
    model = onnx.load(target / "model.onnx")
    padding = np.frombuffer(secrets.token_bytes(_PADDING_BYTES), np.uint8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(padding, "padding"))
    onnx.save(model, target / "model.onnx")
    manifest = Manifest.parse((target / "manifest.json").read_bytes())
    file = target / "model.onnx"
    ref = ArtifactRef(sha256=sha256_of_file(file), size_bytes=file.stat().st_size)
    changed = json.loads(manifest.canonical()) | {"file": ref.document(), "name": _OTHER}
    changed["budget"]["memory_bytes"] = 256 << 20
    (target / "manifest.json").write_bytes(Manifest.parse(json.dumps(changed).encode()).canonical())
    return target


def _push(staff: Staff, release: Path) -> None:
    push_release(staff.operator, read_release(release), lambda _: None)


def _roll_out(staff: Staff, release: str) -> None:
    """Raises AssertionError unless the rollout succeeds."""
    spec: dict[str, JsonValue] = {
        "release": release,
        "phases": [{"name": "all", "percent": 100, "soak_s": 0, "timeout_s": 110}],
    }
    made = staff.operator.post("/rollouts", spec)
    staff.approver.post(f"/rollouts/{made.text('id')}/approve", {"spec_sha256": made.text("spec_sha256")})
    deadline = time.monotonic() + _ROLLOUT_S
    while (found := staff.operator.get(f"/rollouts/{made.text('id')}")).text("state") != "SUCCEEDED":
        assert not found.boolean("finished") and time.monotonic() < deadline, found.text("reason", default="late")
        time.sleep(0.2)
