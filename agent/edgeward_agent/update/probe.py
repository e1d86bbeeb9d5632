"""The probe port's adapter: one short-lived child process for each candidate."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.ports import ProbeReason, ProbeVerdict
from edgeward_agent.update.child import ChildEnd, last_words, run_child
from edgeward_agent.update.confinement import Limits

_CHILD: Final = "edgeward_agent.update.probe_child"
_FROM_OUTSIDE: Final = frozenset({-signal.SIGKILL, -signal.SIGTERM})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProbe:
    """See `ports.Probe`. Raises OSError when the machine cannot start a process; that says nothing of the model."""

    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 300.0
    max_model_bytes: int = 1 << 30

    async def examine(self, release_dir: Path) -> ProbeVerdict:
        options = {**self.limits.options(os.getpid()), "--max-model-bytes": self.max_model_bytes}
        try:
            return read_verdict(await run_child(_CHILD, options, release_dir, timeout_s=self.timeout_s))
        except TimeoutError:
            return ProbeVerdict(
                reason=ProbeReason.TIMEOUT, detail=f"expected a verdict within {self.timeout_s:g} s, got none"
            )


def examine(release_dir: Path, probe: ChildProbe | None = None) -> ProbeVerdict:
    """Examine a release folder as a device would, for `edgeward-agent probe`. Call outside of an event loop."""
    return asyncio.run((probe or ChildProbe()).examine(release_dir))


def read_verdict(end: ChildEnd) -> ProbeVerdict:
    """What a child's end means: its own words, or the signal that it died of. One that was ended from outside, as the
    kernel does where memory is short, says as little of the model as one that was out of time.
    """
    if end.status == -signal.SIGXCPU:
        return ProbeVerdict(reason=ProbeReason.TIMEOUT, detail="expected a verdict within its processor time, got none")
    if end.status in _FROM_OUTSIDE:
        return ProbeVerdict(
            reason=ProbeReason.TIMEOUT,
            detail=f"expected an answer, the probe was ended from outside by {end.signal_name}; see the kernel's log",
        )
    if end.status < 0:
        return ProbeVerdict(
            reason=ProbeReason.CRASHED, detail=f"expected an answer, the probe died of {end.signal_name}"
        )
    with suppress(msgspec.MsgspecError):
        if end.status == 0:
            return msgspec.json.decode(end.said, type=ProbeVerdict)
    return ProbeVerdict(
        reason=ProbeReason.LOAD_FAILED, detail=f"expected a verdict from the probe, got: {last_words(end)}"
    )
