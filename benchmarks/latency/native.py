"""The two C programs: built at the first use, and run on the cores that a measurement names.

A client in Python would be what is measured: it takes longer to write a request than the server to answer one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.latency.frames import Plan
from edgeward_agent.outbox.receiver import GREETING

SOURCES: Final = Path(__file__).parent
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgeward-bench"
_PATIENCE_S: Final = 60.0

Kind = Literal["tcp", "stream", "seqpacket"]
Cores = tuple[int, ...]
"""Cores that a process may run on; empty is all."""


class NoCompiler(Exception):
    """There is no C compiler, or it refuses our programs."""

    hint = "Install one (Debian: apt-get install gcc libc6-dev), or name it in CC."


class LoadFailed(Exception):
    """The server gave another answer than was expected, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a server listens: a port on loopback for tcp, else the path of a socket."""

    kind: Kind
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked. `every_us` other than 0 is an open loop of one connection, counted from the intended time; with a
    `plan` the tensors lie in memory that each connection shares with the server.
    """

    request: bytes
    connections: int = 1
    seconds: float = 1.0
    warm_up_s: float = 0.2
    every_us: int = 0
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Latencies in ns, sorted, and how many answers came in a second."""

    latencies_ns: npt.NDArray[np.uint64]
    per_s: float

    @classmethod
    def merged(cls, parts: Sequence[Sample]) -> Sample:
        """The rate is right for turns that were equally long."""
        latencies_ns = np.sort(np.concatenate([part.latencies_ns for part in parts]))
        return cls(latencies_ns=latencies_ns, per_s=sum(part.per_s for part in parts) / len(parts))

    def quantile_us(self, share: float) -> float:
        """The smallest latency that `share` of the answers do not exceed, in µs."""
        last = len(self.latencies_ns) - 1
        return float(self.latencies_ns[min(last, int(share * len(self.latencies_ns)))]) / 1e3


def program(name: Literal["echo", "load"]) -> Path:
    """Path of a built program.

    Raises:
        NoCompiler: it was never built, and cannot be now.
    """
    sources = [SOURCES / f"{name}.c", SOURCES / "common.h"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    built = CACHE / "bin" / f"{name}-{digest}"
    if not built.exists():
        _compile(sources[0], built)
    return built


def _compile(source: Path, built: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NoCompiler(f"expected a C compiler, found no {os.environ.get('CC', 'cc')}. {NoCompiler.hint}")
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        made = Path(folder) / built.name
        command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(source), "-pthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoCompiler(f"{compiler} refused {source.name}: {done.stderr.strip()}. {NoCompiler.hint}")
        made.replace(built)


def pinned(command: Sequence[str | Path], cores: Cores) -> list[str]:
    """The command, held to `cores` from its first instruction on."""
    words = [str(word) for word in command]
    return ["taskset", "-c", ",".join(map(str, cores)), *words] if cores else words


def load(target: Target, what: Load, *, cores: Cores = (), keep_answer: Path | None = None) -> Sample:
    """Ask until the time is over.

    Raises:
        LoadFailed: an answer was not what it should be; the text holds it.
    """
    with Asking(target, what, cores=cores, keep_answer=keep_answer) as asking:
        asking.wait()
    return asking.sample


class Asking:
    """A load that runs beside what the block does, and ends with it. Raises LoadFailed at the end of the block."""

    def __init__(self, target: Target, what: Load, *, cores: Cores = (), keep_answer: Path | None = None) -> None:
        self._target, self._what, self._cores, self._keep = target, what, cores, keep_answer
        self._sample: Sample | None = None

    @property
    def sample(self) -> Sample:
        """What was measured, once the block has ended."""
        assert self._sample is not None
        return self._sample

    def wait(self) -> None:
        """Until the time is over, or an answer is wrong."""
        self._process.wait(self._what.seconds + self._what.warm_up_s + 2 * _PATIENCE_S)

    def __enter__(self) -> Asking:
        self._folder = tempfile.TemporaryDirectory(prefix="edgeward-load-")
        request, self._latencies = (Path(self._folder.name) / name for name in ("request", "latencies"))
        request.write_bytes(self._what.request)
        command = [program("load"), self._target.kind, self._target.where, "--request", request]
        command += ["--latencies", self._latencies, *_options(self._what)]
        command += ["--keep-answer", self._keep] if self._keep else []
        command += self._sharing(self._what.plan) if self._what.plan else []
        self._process = subprocess.Popen(
            pinned(command, self._cores), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        return self

    def _sharing(self, plan: Plan) -> list[str | Path]:
        opening, inputs = (Path(self._folder.name) / name for name in ("open", "inputs"))
        opening.write_bytes(plan.packet)
        inputs.write_bytes(plan.inputs)
        return ["--open", opening, "--inputs", inputs, "--memory-bytes", str(plan.memory_bytes)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._folder:
            self._process.terminate()  # it writes what it has
            told, complaint = self._process.communicate(timeout=2 * _PATIENCE_S)
            if self._process.returncode != 0:
                raise LoadFailed(f"{self._target.kind} {self._target.where}: {complaint.strip()}")
            window = json.loads(told)
            if not window["answers"]:
                raise LoadFailed(f"{self._target.kind} {self._target.where}: no answer came in the measured time")
            self._sample = Sample(
                latencies_ns=np.sort(np.fromfile(self._latencies, np.uint64)),
                per_s=window["in_window"] / (window["window_ns"] / 1e9),
            )


def _options(what: Load) -> list[str]:
    options = {
        "--connections": what.connections,
        "--seconds": what.seconds,
        "--warm-up": what.warm_up_s,
        "--every-us": what.every_us,
    }
    return [word for name, value in options.items() for word in (name, str(value))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """A floor that runs."""

    target: Target
    pid: int


@contextmanager
def echo(kind: Kind, *, request_bytes: int, answer: bytes) -> Iterator[Echo]:
    """The floor: a server that answers each `request_bytes` with `answer`."""
    with tempfile.TemporaryDirectory(prefix="edgeward-echo-") as folder:
        file = Path(folder) / "answer"
        file.write_bytes(answer)
        where = "0" if kind == "tcp" else str(Path(folder) / "s")
        with _running([program("echo"), kind, where, str(request_bytes), file]) as (pid, told):
            yield Echo(target=Target(kind=kind, where=told), pid=pid)


@contextmanager
def drain(path: Path) -> Iterator[int]:
    """Somebody who takes records at `path` and forgets them; gives the number of the process."""
    with tempfile.TemporaryDirectory(prefix="edgeward-drain-") as folder:
        greeting = Path(folder) / "greeting"
        greeting.write_bytes(GREETING)
        with _running([program("echo"), "drain", path, greeting]) as (pid, _):
            yield pid


@contextmanager
def _running(command: Sequence[str | Path]) -> Iterator[tuple[int, str]]:
    """A program of ours until the block ends; gives its number and its first line, which says where it listens."""
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()  # it may stand still
