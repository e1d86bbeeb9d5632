"""Is the machine quiet enough to judge? Pure; `machine` does the looking.

The probe is a piece of work that always is the same. Where it takes longer, somebody else had the processor: another
program, another guest of the host, or a clock that was turned down. The same happens to the model, unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeward_agent.bench.quantiles import Floats, quantile
from edgeward_agent.bench.words import percent

MOST_RATIO: Final = 2.0
"""p99 over p50 of the probe. Quiet machines have 1.05 to 1.5, one with a busy neighbour 3 to 30."""
MOST_DRIFT: Final = 1.3
"""Slowest over fastest median of a round's probe: heat, a battery, or a governor that changes the clock."""
MOST_STOLEN: Final = 0.05
MOST_OTHERS: Final = 0.25
_ENOUGH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the system says; None where it does not.

    `others_share` and `stolen_share` are of all processors during the run: used by other programs, and taken by the
    host of a virtual machine. `load` is the average of the minute before it, over the number of processors.
    """

    processor: str
    cores: int
    system: str
    governor: str | None = None
    load: float | None = None
    others_share: float | None = None
    stolen_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What was seen. `reasons` are empty when the machine is quiet enough to judge; `remarks` are worth knowing.

    `slowdown` is how many times as long the slowest hundredth of the probe took as it does when nobody disturbs it.
    """

    probe_p50_us: float
    ratio: float
    drift: float
    slowdown: float
    reasons: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def noisy(self) -> bool:
        return bool(self.reasons)


def assess(rounds: Sequence[Floats], surroundings: Surroundings) -> Noise:
    """Judge the probe's times in µs, round by round (the first is from before the run)."""
    full = [each for each in rounds if len(each)]
    together = np.sort(np.concatenate(full))
    middle = quantile(together, 0.5)
    ratio = quantile(together, 0.99) / middle
    medians = [float(np.median(each)) for each in full]
    drift = max(medians) / min(medians)
    return Noise(
        probe_p50_us=middle,
        ratio=ratio,
        drift=drift,
        slowdown=max(1.0, ratio * middle / min(medians)),
        reasons=tuple(_reasons(ratio, drift, len(together), surroundings)),
        remarks=tuple(_remarks(surroundings)),
    )


def _reasons(ratio: float, drift: float, n: int, seen: Surroundings) -> list[str]:
    reasons = []
    if ratio > MOST_RATIO and n >= _ENOUGH:
        reasons.append(f"work that always is the same took {ratio:.1f} times as long at p99 as at p50")
    if drift > MOST_DRIFT:
        reasons.append(f"the processor's speed changed by {percent(drift - 1)} during the run")
    if seen.others_share is not None and seen.others_share > MOST_OTHERS:
        reasons.append(f"other programs used {percent(seen.others_share)} of the processors")
    if seen.stolen_share is not None and seen.stolen_share > MOST_STOLEN:
        reasons.append(f"the host took {percent(seen.stolen_share)} of the processors' time away")
    return reasons


def _remarks(seen: Surroundings) -> list[str]:
    remarks = []
    if seen.governor not in (None, "performance"):
        remarks.append(f"the frequency governor is '{seen.governor}': short requests may meet a slow clock")
    if seen.load is not None and seen.load > 0.5:
        remarks.append(f"the load before the run was {seen.load * seen.cores:.1f} on {seen.cores} processors")
    return remarks
