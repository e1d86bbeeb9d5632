"""Holds the bedside's ledger against what the fleet has. Pure: two lists in, checks out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeward_contract.schema import Fields, JsonValue
from edgeward_fleet.demo.ledger import Entry

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must be so. `found` and `expected` are what a person compares."""

    name: str
    expected: str
    found: str
    ok: bool

    @classmethod
    def equal(cls, name: str, expected: int | str, found: int | str) -> Check:
        return cls(name=name, expected=str(expected), found=str(found), ok=expected == found)

    @classmethod
    def at_least(cls, name: str, least: int, found: int) -> Check:
        return cls(name=name, expected=f"at least {least}", found=str(found), ok=found >= least)

    def document(self) -> dict[str, JsonValue]:
        return {"name": self.name, "expected": self.expected, "found": self.found, "ok": self.ok}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A record as the fleet has it."""

    device: str
    request_id: str
    version: int
    risk: float | None

    @classmethod
    def read(cls, record: Fields) -> Kept:
        """Raises ContractError: no inference record. A risk that is not there is None and agrees with nothing."""
        body = record.object("body")
        return cls(
            device=record.text("device"),
            request_id=body.text("request_id", default=""),
            version=body.integer("version"),
            risk=_risk(body),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """What the comparison of ledger and fleet came to; all but `agreed` must be 0."""

    agreed: int
    lost: int  # answered at the bedside, unknown to the fleet
    twice: int  # more than one record of one request
    unasked: int  # in the fleet, and nobody at the bedside was given that answer
    different: int  # another version or another risk than the bedside was told


def reckon(ledger: Sequence[Entry], kept: Sequence[Kept]) -> Reckoning:
    """Compare request by request: device, request, version and risk."""
    answers = {(entry.device, entry.request_id): entry for entry in ledger if entry.answered}
    records = {(each.device, each.request_id): each for each in kept}
    common = answers.keys() & records.keys()
    different = sum(not _agree(answers[key], records[key]) for key in common)
    return Reckoning(
        agreed=len(common) - different,
        lost=len(answers.keys() - records.keys()),
        twice=sum(count - 1 for count in _counts(kept).values()),
        unasked=len(records.keys() - answers.keys()),
        different=different,
    )


def last_versions(ledger: Sequence[Entry]) -> Mapping[str, int]:
    """The version that each device answered with last."""
    return {entry.device: entry.version for entry in ledger if entry.answered}


def percentile_us(ledger: Sequence[Entry], percent: int) -> int:
    """What the slowest answer among the quickest `percent` percent took; 0 without any."""
    times = sorted(entry.took_us for entry in ledger if entry.answered)
    return times[math.ceil(len(times) * percent / 100) - 1] if times else 0


def _counts(kept: Sequence[Kept]) -> Counter[Key]:
    return Counter((each.device, each.request_id) for each in kept)


def _agree(answer: Entry, record: Kept) -> bool:
    if answer.risk is None or record.risk is None:
        return False
    return answer.version == record.version and math.isclose(answer.risk, record.risk, abs_tol=1e-6)


def _risk(body: Fields) -> float | None:
    match body.object("outputs").object("risk").raw("data"):
        case [float() | int() as risk]:
            return float(risk)
    return None
