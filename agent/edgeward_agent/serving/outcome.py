"""How a request to a model ends: the words of the counters, the log and the tests."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """One for each request that reached a model. All but the first two are answered with an error."""

    ANSWERED = "answered"
    LATE = "late"  # answered, after its deadline
    REFUSED = "refused"  # at once: it could not have made its deadline
    FULL = "full"  # at once: as many wait as may
    EXPIRED = "expired"  # its deadline passed while it waited; it was not run
    UNRECORDED = "unrecorded"  # it ran, and its result could not be recorded as durably as was asked
    FAILED = "failed"  # the model or the runtime
    INVALID = "invalid"  # the caller
    ABANDONED = "abandoned"  # nobody waits for the answer any more
