"""What else people serve ONNX with, each in an environment of its own, pinned in `peers/NAME/requirements.txt`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.latency import wire
from benchmarks.latency.native import CACHE, Target
from benchmarks.latency.ours import Start, free_port
from benchmarks.latency.way import Way
from benchmarks.latency.wire import Endpoint, Form
from benchmarks.latency.workload import Workload

NAMES: Final = ("fastapi", "mlserver", "litserve", "bentoml", "pytriton")
_FOLDER: Final = Path(__file__).parent / "peers"
_INSTALL_S: Final = 900.0
_SYSTEM_PYTHON: Final = Path("/usr/bin/python3")

ENVIRONMENT: Final = {"ORT_DISABLE_TELEMETRY": "1", "BENTOML_DO_NOT_TRACK": "True"}
"""Nobody is told what is measured here."""


class NotInstalled(Exception):
    """A peer's environment cannot be made on this machine. The text is the reason."""


def start(peer: str, workload: Workload) -> Start:
    """The command of a peer's server, and the way to ask it. Raises NotInstalled."""
    port = str(free_port())
    endpoint = _endpoint(peer, workload)
    way = Way(target=Target(kind="tcp", where=port), request=wire.request(endpoint, workload.inputs), endpoint=endpoint)
    command = (environment(peer), _FOLDER / peer / "serve.py", workload.model, workload.name, port)
    return Start(command=command, ways={"tcp": way}, extra=ENVIRONMENT, scratch=True)


def environment(peer: str) -> Path:
    """The Python of a peer's own environment, made at the first use. Raises NotInstalled."""
    wanted = _FOLDER / peer / "requirements.txt"
    folder = CACHE / "peers" / f"{peer}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not (folder / "ready").exists():
        print(f"  installing {peer} …", flush=True)
        _run(peer, _python(peer), "-m", "venv", "--clear", folder)
        _run(
            peer, folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted
        )
        (folder / "ready").touch()
    return folder / "bin/python"


def _endpoint(peer: str, workload: Workload) -> Endpoint:
    """The protocol that the users of a peer would use: bytes where it takes them, else JSON."""
    if peer == "pytriton":
        return wire.v2(workload.name, Form.V2_BINARY)
    if peer == "mlserver":
        return wire.v2(workload.name, Form.V2_JSON)
    return Endpoint(path="/predict", form=Form.OWN_JSON, argument="x" if peer == "bentoml" else "")


def _python(peer: str) -> Path:
    """nvidia-pytriton brings parts of a Python, which do not get on with the library of every 3.11."""
    return _SYSTEM_PYTHON if peer == "pytriton" and _SYSTEM_PYTHON.exists() else Path(sys.executable)


def _run(peer: str, *words: str | Path) -> None:
    command = [str(word) for word in words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{peer} could not be installed: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith("WARNING")]
        raise NotInstalled(f"{peer} could not be installed: {' '.join(lines[-2:])[:300]}")
