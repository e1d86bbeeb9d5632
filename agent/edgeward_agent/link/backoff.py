"""How long to wait before the next try. Pure: the caller counts failures and brings the randomness.

Full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), because a site whose
network returns sends all its devices at the same moment.
"""

from __future__ import annotations

import math
from typing import Final

BASE_S: Final = 1.0
CAP_S: Final = 300.0
MAX_RETRY_AFTER_S: Final = 3600.0  # a fleet that asks for more than an hour is asked again after one


def delay_s(
    failures: int,
    unit: float,
    *,
    retry_after_s: float | None = None,
    base_s: float = BASE_S,
    cap_s: float = CAP_S,
) -> float:
    """Seconds to wait after `failures` failures in a row; `unit` is uniform in [0, 1).

    Between `base_s` and a ceiling that doubles with each failure up to `cap_s`. With `retry_after_s` the jitter comes
    on top of it: never earlier than the fleet wishes, and not all at that very moment.
    """
    # 32 doublings exceed every cap; more would overflow a float after a thousand failures.
    ceiling = min(cap_s, base_s * 2.0 ** min(max(failures, 1), 32))
    jittered = base_s + unit * (ceiling - base_s)
    return _wish(retry_after_s) + jittered if retry_after_s is not None else jittered


def _wish(retry_after_s: float) -> float:
    if math.isnan(retry_after_s):
        return 0.0
    return min(max(retry_after_s, 0.0), MAX_RETRY_AFTER_S)
