"""The probe port's adapter: one short-lived child process for each candidate."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.ports import ProbeReason, ProbeVerdict
from edgeward_agent.update.confinement import Limits

_CHILD: Final = "edgeward_agent.update.probe_child"
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "LANG", "LC_ALL", "TZ")
# What a hostile file makes the child say is never read whole.
_MAX_OUTPUT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProbe:
    """See `ports.Probe`. Raises OSError when the machine cannot start a process; that says nothing of the model."""

    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 300.0
    max_model_bytes: int = 1 << 30

    async def examine(self, release_dir: Path) -> ProbeVerdict:
        child = await asyncio.create_subprocess_exec(
            *self._command(release_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(os.environ),
            start_new_session=True,  # a Ctrl-C at a terminal is for the agent, which then ends the probe
        )
        try:
            async with asyncio.timeout(self.timeout_s):
                said, complained = await asyncio.gather(_head(child.stdout), _head(child.stderr))
                status = await child.wait()
        except TimeoutError:
            return ProbeVerdict(
                reason=ProbeReason.TIMEOUT, detail=f"expected a verdict within {self.timeout_s:g} s, got none"
            )
        finally:
            await _end(child)
        return read_verdict(status, said, complained)

    def _command(self, release_dir: Path) -> list[str]:
        limits = self.limits
        options = {"--parent": os.getpid(), "--cpu-s": limits.cpu_s, "--memory-bytes": limits.memory_bytes}
        options["--max-model-bytes"] = self.max_model_bytes
        flags = [text for option, value in options.items() for text in (option, str(value))]
        # -P: the folder we happen to be in is no place to import from; -B: nothing is written.
        return [sys.executable, "-BP", "-m", _CHILD, *flags, str(release_dir.absolute())]


def examine(release_dir: Path, probe: ChildProbe | None = None) -> ProbeVerdict:
    """Examine a release folder as a device would, for `edgeward-agent probe`. Call outside of an event loop."""
    return asyncio.run((probe or ChildProbe()).examine(release_dir))


def read_verdict(status: int, said: bytes, complained: bytes) -> ProbeVerdict:
    """What a child's end means: its own words, or the signal that it died of. `status` is negative for a signal."""
    if status == -signal.SIGXCPU:
        return ProbeVerdict(reason=ProbeReason.TIMEOUT, detail="expected a verdict within its processor time, got none")
    if status < 0:
        return ProbeVerdict(
            reason=ProbeReason.CRASHED, detail=f"expected an answer, the probe died of {_name(-status)}"
        )
    with suppress(msgspec.MsgspecError):
        if status == 0:
            return msgspec.json.decode(said, type=ProbeVerdict)
    last = complained.decode(errors="replace").strip().splitlines()[-1:]
    found = last[0][:300] if last else f"exit status {status} and no verdict"
    return ProbeVerdict(reason=ProbeReason.LOAD_FAILED, detail=f"expected a verdict from the probe, got: {found}")


async def _head(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end, keep the beginning."""
    assert stream is not None
    kept = b""
    while data := await stream.read(_MAX_OUTPUT_BYTES):
        kept += data[: _MAX_OUTPUT_BYTES - len(kept)]
    return kept


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """No secret of ours, and one thread for every library that would start more."""
    kept = {name: ours[name] for name in _PASSED_ON if name in ours}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
