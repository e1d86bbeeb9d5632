"""A serving process of our own, started as a person would: `edgeward-agent serve`, on a free port and a unix socket."""

from __future__ import annotations

import queue
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from edgeward_agent.bench.errors import ServerLost
from edgeward_agent.bench.machine import process_cpu_s, resident_bytes
from edgeward_agent.bench.wire import Place
from edgeward_agent.listening import UnixPathTooLong, check_unix_path

_PREFIX: Final = "edgeward-bench-"
_SOCKET: Final = "serve.sock"
_READY_S: Final = 60.0
_END_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running one. `ready_s` is from its start to the first answer that it could give."""

    pid: int
    tcp: Place
    unix: Place | None
    ready_s: float

    def resident_bytes(self) -> int | None:
        return resident_bytes(self.pid)

    def cpu_s(self) -> float:
        return process_cpu_s(self.pid)


@contextmanager
def daemon(model: Path) -> Iterator[Daemon]:
    """Serve a model for as long as the context lasts. Raises ServerLost when it does not come up."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_place(), ignore_cleanup_errors=True) as folder:
        unix = Path(folder) / _SOCKET if hasattr(socket, "AF_UNIX") and sys.platform != "win32" else None
        with (Path(folder) / "log").open("w+") as log:
            process = _started(model, Path(folder), unix, log)
            try:
                yield _ready(process, unix, log)
            finally:
                _end(process)


def _place() -> str | None:
    """Where the system has temporary files, unless paths there are too long for a socket."""
    try:
        check_unix_path(Path(tempfile.gettempdir()) / f"{_PREFIX}12345678" / _SOCKET)
    except UnixPathTooLong:
        return "/tmp"  # noqa: S108  # the folder in it is ours alone
    return None


def _started(model: Path, folder: Path, unix: Path | None, log: IO[str]) -> subprocess.Popen[str]:
    """In a process group of its own, so that Ctrl-C reaches us alone and we may finish what we count."""
    served = [sys.executable, "-m", "edgeward_agent.bench.served", str(folder)]
    command = [*served, "serve", str(model), "--http", "127.0.0.1:0", *(["--unix", str(unix)] if unix else [])]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        process_group=None if sys.platform == "win32" else 0,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _ready(process: subprocess.Popen[str], unix: Path | None, log: IO[str]) -> Daemon:
    began = time.monotonic()
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, began + _READY_S - time.monotonic()))
        except queue.Empty:
            line = None
        if line is None:
            log.seek(0)
            words = " ".join(log.read().split())[:300] or f"nothing within {_READY_S:g} s"
            raise ServerLost(
                f"expected `edgeward-agent serve` to come up, got: {words}",
                "Run it by itself and see what it says; --through process measures without it.",
            )
        if found := re.search(r"serving on http://127\.0\.0\.1:(\d+)", line):
            tcp = Place(host="127.0.0.1", port=int(found[1]))
            return Daemon(
                pid=process.pid,
                tcp=tcp,
                unix=Place(unix=str(unix)) if unix else None,
                ready_s=time.monotonic() - began,
            )


def _read(stream: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    """Until the end: a pipe that nobody reads would stop the process."""
    assert stream is not None
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()  # what it waits for
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
