"""How our own serving process is started for a measurement, and the ways to ask it."""

from __future__ import annotations

import compileall
import json
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import benchmarks
import edgeward_agent
import edgeward_contract
from benchmarks.latency import frames, wire
from benchmarks.latency.native import Target, drain
from benchmarks.latency.way import Way
from benchmarks.latency.wire import Form
from benchmarks.latency.workload import Workload
from edgeward_agent.serving.memory import serving_environment
from edgeward_contract.artifact import sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a server is started and asked; `extra` is added to its environment.

    `recorder` is the process that takes its records, 0 when there is none. `scratch`: it runs in a folder of its own.
    """

    command: Sequence[str | Path]
    ways: Mapping[str, Way]
    recorder: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    scratch: bool = False


def compile_once() -> None:
    """As pip does when it installs us, and has done for the peers: a start in a checkout would compile it all anew."""
    for package in (benchmarks, edgeward_agent, edgeward_contract):
        compileall.compile_dir(package.__path__[0], quiet=2)


@contextmanager
def start(workload: Workload, folder: Path, *, bare: bool, more: tuple[str, ...] = ()) -> Iterator[Start]:
    """A serving process of ours, with somebody who takes its records for as long as the context lasts.

    Args:
        more: words for its command line.
    """
    http, unix, packets = f"127.0.0.1:{free_port()}", folder / "d.sock", folder / "f.sock"
    extra = serving_environment({})  # as the control process starts it
    listens: tuple[str | Path, ...] = ("--http", http, "--unix", unix, "--frames", packets, *more)
    ways = _ways(workload, http, unix, packets)
    if bare:
        words = (sys.executable, "-m", "benchmarks.latency.bare", workload.release, *listens)
        yield Start(command=words, ways=ways, extra=extra)
        return
    boot, capture = folder / "boot.json", folder / "r.sock"
    boot.write_text(json.dumps({"models": [_boot_entry(workload)]}))
    private = ("--boot", boot, "--control", folder / "c.sock", "--capture", capture)
    words = (sys.executable, "-m", "edgeward_agent.serving", *private, *listens)
    with drain(capture) as recorder:
        yield Start(command=words, ways=ways, recorder=recorder, extra=extra)


def _boot_entry(workload: Workload) -> dict[str, object]:
    digest = sha256_of((workload.release / "manifest.json").read_bytes())
    return {"name": workload.name, "version": workload.version, "sha256": digest, "path": str(workload.release)}


def _ways(workload: Workload, http: str, unix: Path, packets: Path) -> dict[str, Way]:
    endpoint = wire.v2(workload.name, Form.V2_BINARY)
    request = wire.request(endpoint, workload.inputs)
    tcp = Target(kind="tcp", where=http.rpartition(":")[2])
    return {
        "tcp": Way(target=tcp, request=request, endpoint=endpoint),
        "unix": Way(target=Target(kind="stream", where=str(unix)), request=request, endpoint=endpoint),
        "frames": Way(
            target=Target(kind="seqpacket", where=str(packets)),
            request=frames.RUN,
            plan=frames.plan(workload.name, workload.inputs, workload.outputs),
        ),
    }


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
