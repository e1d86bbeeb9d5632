"""What an update costs the person who waits for an answer: latency of one model while its other version is
downloaded, checked in the probe, swapped in and put on probation, against the same without an update.

A real fleet, a real agent, real TLS; the release is padded to 32 MiB so that the download takes a while. One client
asks every 5 ms over one TCP connection and counts from the time at which it meant to ask.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from benchmarks.report import Result, median_ratio, quantile
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
STEADY_S: Final = 8.0
_PADDING_BYTES: Final = 32 << 20
_EVERY_S: Final = 0.005
_ROLLOUT_S: Final = 120.0
_RELEASES: Final = Path(__file__).parent.parent / "models/wdbc-risk/releases"


def measure(rounds: int = ROUNDS, steady_s: float = STEADY_S) -> Result:
    """Raises AssertionError when a request or a rollout failed: a fast wrong answer is not a result."""
    folder = Path(tempfile.mkdtemp(prefix="edgeward-bench-"))
    try:
        with ExitStack() as stack:
            cables = stack.enter_context(Cables())
            household = stack.enter_context(Household(folder))
            staff = open_fleet(folder, household, stack)
            (device,) = start_devices(1, folder, "https", staff.operator, cables, household)
            for version in (1, 2):
                _push(staff, _padded(version, folder))
            _roll_out(staff, 1)
            return _result([_round(staff, device, 2 - number % 2, steady_s) for number in range(rounds)])
    finally:
        shutil.rmtree(folder)


Latencies = list[float]


def _round(staff: Staff, device: Device, version: int, steady_s: float) -> tuple[Latencies, Latencies]:
    """Sorted latencies in µs: without an update, then during one."""
    with _asking(device) as steady:
        time.sleep(steady_s)
    with _asking(device) as updating:
        _roll_out(staff, version)
    return sorted(steady), sorted(updating)


def _result(rounds: list[tuple[Latencies, Latencies]]) -> Result:
    rows: dict[str, dict[str, float]] = {}
    for index, name in enumerate(("steady", "during an update")):
        every = sorted(value for each in rounds for value in each[index])
        rows[name] = {
            "requests": len(every),
            "p50_us": quantile(every, 0.5),
            "p99_us": quantile(every, 0.99),
            "p99.9_us": quantile(every, 0.999),
            "max_us": every[-1],
        }
    rows["ratio, median of the rounds"] = {
        f"p{share * 100:g}": median_ratio([(quantile(b, share), quantile(a, share)) for a, b in rounds])
        for share in (0.5, 0.99)
    }
    what = f"wdbc-risk over TCP, a request each {_EVERY_S * 1e3:g} ms, {len(rounds)} rounds; nothing pinned"
    return Result(what=what, rows=rows)


@contextmanager
def _asking(device: Device) -> Iterator[Latencies]:
    """Ask in a thread of its own until the block ends. Raises AssertionError when a request failed."""
    latencies: Latencies = []
    failed: list[bytes] = []
    done = threading.Event()
    host, port = device.address.removeprefix("http://").rsplit(":", 1)

    def ask() -> None:
        request = _request()
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            due = time.perf_counter()
            while not done.is_set():
                connection.sendall(request)
                answer = connection.recv(65536)  # an answer of this model is one segment
                now = time.perf_counter()
                latencies.append((now - due) * 1e6)
                if not answer.startswith(b"HTTP/1.1 200"):
                    failed.append(answer)
                due += _EVERY_S
                time.sleep(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=ask, name="bedside")
    thread.start()
    try:
        yield latencies
    finally:
        done.set()
        thread.join()
    assert not failed, f"{len(failed)} requests failed, the first with {failed[0]!r}"


def _request() -> bytes:
    features = np.random.default_rng(0).random((1, 30), np.float32).tobytes()
    tensor = {
        "name": "features",
        "shape": [1, 30],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(features)},
    }
    header = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode()
    lines = (
        "POST /v2/models/wdbc-risk/infer HTTP/1.1",
        "Host: localhost",
        f"Inference-Header-Content-Length: {len(header)}",
        f"Content-Length: {len(header) + len(features)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + header + features


def _padded(version: int, folder: Path) -> Path:
    """A copy of a release whose file carries 32 MiB that no node uses."""
    target = folder / f"padded-{version}"
    shutil.copytree(_RELEASES / str(version), target)
    model = onnx.load(target / "model.onnx")
    padding = np.frombuffer(secrets.token_bytes(_PADDING_BYTES), np.uint8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(padding, "padding"))
    onnx.save(model, target / "model.onnx")
    manifest = Manifest.parse((target / "manifest.json").read_bytes())
    file = target / "model.onnx"
    ref = ArtifactRef(sha256=sha256_of_file(file), size_bytes=file.stat().st_size)
    changed = json.loads(manifest.canonical()) | {"file": ref.document()}
    changed["budget"]["memory_bytes"] = 256 << 20
    (target / "manifest.json").write_bytes(Manifest.parse(json.dumps(changed).encode()).canonical())
    return target


def _push(staff: Staff, release: Path) -> None:
    push_release(staff.operator, read_release(release), lambda _: None)


def _roll_out(staff: Staff, version: int) -> None:
    """Raises AssertionError unless the rollout succeeds."""
    spec: dict[str, JsonValue] = {
        "release": f"wdbc-risk@{version}",
        "phases": [{"name": "all", "percent": 100, "soak_s": 0, "timeout_s": 110}],
    }
    made = staff.operator.post("/rollouts", spec)
    staff.approver.post(f"/rollouts/{made.text('id')}/approve", {"spec_sha256": made.text("spec_sha256")})
    deadline = time.monotonic() + _ROLLOUT_S
    while (found := staff.operator.get(f"/rollouts/{made.text('id')}")).text("state") != "SUCCEEDED":
        assert not found.boolean("finished") and time.monotonic() < deadline, found.text("reason", default="late")
        time.sleep(0.2)
