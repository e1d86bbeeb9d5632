"""The report as one JSON document; `docs/bench.md` says what each member means, and a test holds it to that."""

from __future__ import annotations

import msgspec

from edgeward_agent.bench.report import Report


def document(report: Report) -> bytes:
    """Times in microseconds, sizes in bytes, shares from 0 to 1; null where there is no number."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
