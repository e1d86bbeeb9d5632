"""The kept result: every case with its figures over the rounds, every goal with its verdict, and the machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.latency import goals
from benchmarks.latency.goals import Goal, Rounds
from benchmarks.latency.plan import Case
from benchmarks.latency.statistics import estimate
from benchmarks.latency.store import Line
from benchmarks.report import FOLDER, machine, now

FILE: Final = FOLDER / "latency.json"
_WHAT: Final = (
    "Closed loop by a load generator in C, rounds in turn over all servers. Each figure is the median of the rounds;"
    " an interval is the two order statistics that hold the true median with at least 95 %, from six rounds on."
    " Goals are judged on ratios and differences within a round,"
    " those against a floor or the model alone within a pass."
)
_FIGURES: Final = ("p50_us", "p90_us", "p99_us", "p99.9_us", "per_s", "rss_mib", "pss_mib", "processes")
_WITH_INTERVAL: Final = ("p50_us", "p99_us", "per_s")


class CaseRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A case and its figures; `note` says why there are none. `answers` is over all rounds."""

    model: str
    server: str
    way: str
    placement: str
    connections: int
    figures: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    rounds: int = 0
    answers: int = 0
    note: str = ""


class GoalRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A goal, and what was found; none when it was not measured."""

    name: str
    limit: float
    unit: str
    verdict: str
    at_least: bool = False
    found: float | None = None
    low: float = 0.0
    high: float = 0.0
    rounds: int = 0


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What benchmarks/results/latency.json holds. `beside` is what is no case: starts, clients, metrics, an update."""

    what: str
    goals: list[GoalRow]
    beside: dict[str, dict[str, float]]
    cases: list[CaseRow]
    machine: dict[str, str | int]
    at: str


def kept(cases: Sequence[Case], lines: Iterable[Line]) -> Kept:
    """Everything that was found."""
    every = list(lines)
    rounds = Rounds(every)
    notes = {line.key: line.note for line in every if line.note}
    return Kept(
        what=_WHAT,
        goals=[_goal(goal) for goal in goals.goals(rounds)],
        beside=_beside(every, rounds),
        cases=[_case(case, rounds, notes.get(case.key, "not measured")) for case in cases],
        machine=machine(),
        at=now(),
    )


def write(found: Kept, path: Path = FILE) -> None:
    """Keep a result, a line for each case and goal: a new run is a diff that can be read."""
    parts = []
    for name in Kept.__struct_fields__:
        value = getattr(found, name)
        text = _lines(value) if isinstance(value, list) else _json(value)
        parts.append(f' "{name}": {text}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read(path: Path = FILE) -> Kept:
    """A result that was kept. Raises OSError, msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Kept)


def _lines(rows: Sequence[object]) -> str:
    return "[\n  " + ",\n  ".join(map(_json, rows)) + "\n ]"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _case(case: Case, rounds: Rounds, note: str) -> CaseRow:
    answers = rounds.of(case.key, "answers")
    return CaseRow(
        model=case.model,
        server=case.server,
        way=case.way,
        placement=str(case.placement),
        connections=case.connections,
        figures={name: _median(found) for name in _FIGURES if (found := rounds.of(case.key, name))},
        intervals={name: _interval(found) for name in _WITH_INTERVAL if (found := rounds.of(case.key, name))},
        rounds=len(answers),
        answers=int(sum(answers.values())),
        note="" if answers else note,
    )


def _median(found: Mapping[int, float]) -> float:
    return _short(statistics.median(found.values()))


def _interval(found: Mapping[int, float]) -> tuple[float, float]:
    bounds = estimate(list(found.values()))
    return _short(bounds.low), _short(bounds.high)


def _beside(lines: Sequence[Line], rounds: Rounds) -> dict[str, dict[str, float]]:
    keys = (goals.START_KEY, goals.CLIENT_KEY, goals.METRICS_KEY, goals.UPDATE_KEY)
    names = {key: dict.fromkeys(name for line in lines if line.key == key for name in line.figures) for key in keys}
    return {key: {name: _median(rounds.of(key, name)) for name in found} for key, found in names.items() if found}


def _goal(goal: Goal) -> GoalRow:
    row = GoalRow(name=goal.name, limit=goal.limit, unit=goal.unit, at_least=goal.at_least, verdict=str(goal.verdict))
    if goal.found is None:
        return row
    return msgspec.structs.replace(
        row,
        found=_short(goal.found.median),
        low=_short(goal.found.low),
        high=_short(goal.found.high),
        rounds=goal.found.rounds,
    )


def _short(value: float) -> float:
    """Four digits: more are noise."""
    return float(f"{value:.4g}")
