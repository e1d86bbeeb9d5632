"""The `[update]` section: how patient the update machine is. Every default is a device at a clinical site."""

from __future__ import annotations

import msgspec

from edgeward_agent.limits import Count, Interval, Percent, Positive, Seconds


class UpdateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds, sizes in bytes."""

    probation_s: Seconds = 60.0
    """How long a candidate must answer well before it is committed; only time in which it was live counts."""
    probation_min_requests: Count = 0
    """Requests it must have answered as well; above 0 an idle device stays in probation."""
    max_error_percent: Percent = 2.0
    min_errors: Positive = 5
    """Fewer errors than this never roll back: one bad request of three is not 33 %."""
    latency_min_requests: Positive = 100
    crash_limit: Positive = 2
    """Crashes of the serving process during one probation that roll back."""
    max_attempts: Positive = 10
    """Restarts of the agent or the machine while a candidate is probed or on trial, after which it is given up."""
    max_retries: Count = 5
    """Failures that a repetition may cure (wrong digest, refused by the fleet). A lost link is never counted."""
    max_stores: Positive = 500
    """Loop guard: transitions of one deployment between two waits."""
    fetch_timeout_s: Interval = 60.0
    defer_poll_s: Interval = 30.0
    poll_s: Interval = 1.0
    watch_s: Interval = 5.0
    """How often the serving process is looked at while nothing is under way."""
    disk_reserve_bytes: Count = 32 << 20
    """Left free for the outbox and the journal; a download that would use it waits."""
    max_model_bytes: Positive = 1 << 30
    probe_timeout_s: Interval = 300.0
    """Generous, because the probe runs at idle priority; the processor time is what limits the model."""
    probe_cpu_s: Positive = 60
    probe_memory_bytes: Positive = 2 << 30
