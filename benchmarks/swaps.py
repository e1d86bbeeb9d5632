"""What a swap costs: the latency of one model while *another* is loaded, warmed, switched and released, again and
again; and what is left of each old version in the memory of the process.

The serving process alone, without fleet and download: `update_under_load` measures the whole. The other model is
`ecg-rhythm`, 4.6 MB and a real arena; it is asked once after each swap. A client in C asks `wdbc-risk` at fixed times.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.latency import native, wire
from benchmarks.latency.native import Load, Sample, Target
from benchmarks.report import Result, median_ratio
from edgeward_agent.client import Client
from edgeward_agent.serving.memory import serving_environment
from edgeward_agent.serving_control import ServingControl
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.manifest import Manifest

SWAPS: Final = 200
ROUNDS: Final = 7
STEADY_S: Final = 10.0
EVERY_US: Final = 2000
_MODELS: Final = Path(__file__).parent.parent / "models"
_ASKED: Final = ModelName("wdbc-risk")
_OTHER: Final = ModelName("ecg-rhythm")
_PATIENCE_S: Final = 60.0
_PERIOD_S: Final = 0.25  # from one swap to the next: far more often than ever, and time to breathe in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release folder."""

    version: int
    sha256: Sha256
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A serving process with two models, and two releases of the second one."""

    pid: int
    port: int
    control: Path
    releases: tuple[Release, Release]

    def swap(self, number: int) -> int:
        """Bring the other release in, ask it once, and see the old one out; the bytes that are resident then."""
        asyncio.run(self._swap(self.releases[number % 2]))
        with Client(f"http://127.0.0.1:{self.port}") as client:
            client.infer(_OTHER, {"ecg": np.zeros((1, 12, 5000), np.float32)}, deadline_us=0)
        asyncio.run(self._settled())
        return self.resident_bytes()

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def asking(self) -> native.Asking:
        features = np.random.default_rng(0).random((1, 30), np.float32)
        request = wire.request(wire.v2(_ASKED, wire.Form.V2_BINARY), {"features": features})
        what = Load(request=request, seconds=600, warm_up_s=0.5, every_us=EVERY_US)
        return native.Asking(Target(kind="tcp", where=str(self.port)), what)

    async def _swap(self, release: Release) -> None:
        control = ServingControl(self.control)
        await control.load(_OTHER, sha256=release.sha256, version=release.version, path=release.folder)
        await control.activate(_OTHER, release.sha256)

    async def _settled(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (await ServingControl(self.control).state()).draining:
            assert time.monotonic() < deadline, "expected the old version to be released"
            await asyncio.sleep(0.005)


@contextmanager
def scene() -> Iterator[Scene]:
    """A serving process that has swapped once already: the first swap makes room for two."""
    folder = Path(tempfile.mkdtemp(prefix="edgeward-swaps-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        asked = _release(_MODELS / _ASKED / "releases/2")
        releases = (_renumbered(1, folder), _renumbered(2, folder))
        boot = [_entry(_ASKED, asked), _entry(_OTHER, releases[0])]
        (folder / "boot.json").write_text(json.dumps({"models": boot}))
        process = _start(folder, listener)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        played = Scene(
            pid=process.pid, port=listener.getsockname()[1], control=folder / "control.sock", releases=releases
        )
        with Client(f"http://127.0.0.1:{played.port}") as client:
            assert client.ready()  # it listens already: the answer comes when everything is loaded
        played.swap(1)
        yield played


def measure(swaps: int = SWAPS, rounds: int = ROUNDS, steady_s: float = STEADY_S) -> Result:
    """Raises AssertionError, LoadFailed when a request failed: a fast wrong answer is not a result."""
    with scene() as played, native.drain(played.control.with_name("capture.sock")):
        resident, samples = [played.resident_bytes()], []
        for number in range(rounds):
            with played.asking() as steady:
                time.sleep(steady_s)
            with played.asking() as swapping:
                for each in range(swaps * number // rounds, swaps * (number + 1) // rounds):
                    began_s = time.monotonic()
                    resident.append(played.swap(each))
                    time.sleep(max(0.0, began_s + _PERIOD_S - time.monotonic()))
            samples.append((steady.sample, swapping.sample))
    return _result(resident, samples)


def _result(resident: list[int], samples: list[tuple[Sample, Sample]]) -> Result:
    rows = {
        name: _percentiles([each[index] for each in samples]) for index, name in enumerate(("steady", "during swaps"))
    }
    rows["ratio, median of the rounds"] = {
        f"p{share * 100:g}": median_ratio([(b.quantile_us(share), a.quantile_us(share)) for a, b in samples])
        for share in (0.5, 0.99, 0.999)
    }
    mib = [each / (1 << 20) for each in resident]
    rows["resident, MiB"] = {"first": mib[0], "last": mib[-1], "largest": max(mib), "last/first": mib[-1] / mib[0]}
    swaps = len(resident) - 1
    what = f"wdbc-risk over TCP, a request each {EVERY_US / 1e3:g} ms, during {swaps} swaps of ecg-rhythm; not pinned"
    return Result(what=what, rows=rows)


def _percentiles(samples: list[Sample]) -> dict[str, float]:
    every = Sample(latencies_ns=np.sort(np.concatenate([each.latencies_ns for each in samples])), per_s=0.0)
    found = {"requests": float(len(every.latencies_ns))}
    found |= {f"p{share * 100:g}_us": every.quantile_us(share) for share in (0.5, 0.99, 0.999)}
    return found | {"max_us": every.quantile_us(1.0)}


def _start(folder: Path, listener: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgeward_agent.serving", "--fd-http", str(listener.fileno())]
    for option, name in (("boot", "boot.json"), ("control", "control.sock"), ("capture", "capture.sock")):
        command += [f"--{option}", str(folder / name)]
    environment = serving_environment(os.environ)  # as the control process starts it
    return subprocess.Popen([*command, "--log-level", "error"], pass_fds=[listener.fileno()], env=environment)


def _release(folder: Path) -> Release:
    manifest = Manifest.parse((folder / "manifest.json").read_bytes())
    return Release(version=manifest.version, sha256=manifest.sha256(), folder=folder)


def _renumbered(version: int, folder: Path) -> Release:
    target = folder / f"other-{version}"
    shutil.copytree(_MODELS / _OTHER / "releases/1", target)
    manifest = Manifest.parse((target / "manifest.json").read_bytes())
    (target / "manifest.json").write_bytes(replace(manifest, version=version).canonical())
    return _release(target)


def _entry(name: ModelName, release: Release) -> dict[str, str | int]:
    return {"name": name, "version": release.version, "sha256": release.sha256, "path": str(release.folder)}
