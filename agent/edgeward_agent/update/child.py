"""A short-lived child for work with what is not trusted yet: its life, and the little that is read of what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from edgeward_agent.priority import go_last
from edgeward_agent.serving.cores import AT_START, STAND_IN

_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "LANG", "LC_ALL", "TZ")
# What a hostile file makes the child say is never read whole.
_MAX_OUTPUT_BYTES: Final = 64 * 1024


class ChildEnd(NamedTuple):
    """`status` is negative for a signal; `said` and `complained` are the beginnings of its two outputs."""

    status: int
    said: bytes
    complained: bytes

    @property
    def signal_name(self) -> str:
        """What it died of; empty when it ended by itself."""
        return _name(-self.status) if self.status < 0 else ""


async def run_child(module: str, options: Mapping[str, str | int], folder: Path, *, timeout_s: float) -> ChildEnd:
    """Run a module over a folder to its end. Cancelled, it ends the process before it returns.

    Raises:
        TimeoutError: it did not end in time, and was killed.
        OSError: the machine cannot start a process.
    """
    child = await asyncio.create_subprocess_exec(
        *_command(module, options, folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(os.environ),
        start_new_session=True,  # a Ctrl-C at a terminal is for the agent, which then ends the child
    )
    go_last(child.pid)  # to start Python takes a tenth of a second, in which it has not confined itself yet
    try:
        async with asyncio.timeout(timeout_s):
            said, complained = await asyncio.gather(_head(child.stdout), _head(child.stderr))
            return ChildEnd(await child.wait(), said, complained)
    finally:
        await _end(child)


def _command(module: str, options: Mapping[str, str | int], folder: Path) -> list[str]:
    flags = [text for option, value in options.items() for text in (option, str(value))]
    # -P: the folder we happen to be in is no place to import from; -B: nothing is written.
    return [sys.executable, "-BP", "-m", module, *flags, str(folder.absolute())]


def last_words(end: ChildEnd) -> str:
    """Why it ended without an answer, as far as it can be told."""
    if end.signal_name:
        return f"it died of {end.signal_name}"
    last = end.complained.decode(errors="replace").strip().splitlines()[-1:]
    return last[0][:300] if last else f"exit status {end.status} and no verdict"


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
    """No secret of ours, one thread for every library that would start more, and the cores that a session counts on."""
    kept = {name: ours[name] for name in _PASSED_ON if name in ours}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", STAND_IN: str(AT_START)}


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
