"""Two models side by side: how long they take, in turn, and how far their answers to the same cases lie apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from edgeward_agent.bench.cases import Cases
from edgeward_agent.bench.differing import golden_count, outputs_apart
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.measuring import Measured, Progress, measure, planned, warm_up
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.paired import LEAST_PAIRS, Difference, difference
from edgeward_agent.bench.paths import Opened, names, open_model
from edgeward_agent.bench.plain import asking, make_plan
from edgeward_agent.bench.preparing import (
    Prepared,
    check_something,
    facts,
    noise_of,
    notes,
    prepare,
    report_maker,
    server,
    slowdown,
    watch,
)
from edgeward_agent.bench.report import Added, Compared, GoldenCount, OutputDifference, Report, path_result
from edgeward_agent.bench.schedule import ROUNDS, Load, Plan
from edgeward_agent.bench.subject import Subject, check_same_inputs, load
from edgeward_agent.bench.targets import InProcess, Target
from edgeward_agent.bench.verdict import Verdict, judge
from edgeward_agent.bench.words import seconds
from edgeward_agent.errors import ServingError
from edgeward_agent.serving.session import Session
from edgeward_agent.wire.tensors import Array

_STARTS_S: Final = 10.0
_WARM: Final = Load(count=20, seconds=0.1)
Side = tuple[InProcess, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models and what is asked of both. `label` tells the second one's paths from the first one's."""

    first: Prepared
    second: Subject
    label: str
    kind: str
    cases: Cases  # for the difference of the answers; the time is measured with those of `first`
    warnings: tuple[str, ...] = ()


def run(options: Options, other: Path, progress: Progress) -> Report:
    """`--compare`: the verdict is on the first model. Raises CannotMeasure, ServerLost."""
    progress("loading both models", 0.0, 0.0)
    first, second = prepare(options), load(other)
    check_same_inputs(first.at_hand, second)
    pair = Pair(first=first, second=second, label=_label(first.at_hand, second), kind="compare", cases=first.cases)
    return measure_pair(pair, options, progress)


def measure_pair(pair: Pair, options: Options, progress: Progress) -> Report:
    """Ask both models on the same paths in turn."""
    apart, golden = answers_apart(pair)
    with ExitStack() as stack:
        opened = _open_both(stack, pair, options)
        targets = [*opened[0].targets, *opened[1].targets]
        progress("warming up", 0.0, 0.0)
        costs = warm_up(targets, asking(options))
        sides = in_process(opened, pair)
        plan, stay = plan_starts(costs, _reopen(sides), pair.first, options)
        watching = watch(*opened)
        loads = planned(plan, targets, options.seed)
        measured = measure(targets, plan.rounds, loads, progress, starts(sides, stay))
        opened = asked_pairs(opened, measured)
        targets = [*opened[0].targets, *opened[1].targets]
        check_something(measured)
        seen = watching.look()
        noise = noise_of(measured.probes, seen)
        verdicts = [_verdict(each, pair.first, measured, slowdown(noise, options)) for each in opened]
        report = report_maker(pair.first, options, measured, seen, noise)(verdicts[pair.kind == "quantize"])
        short = _too_short(options, measured, plan.rounds // stay, "starts" if sides else "rounds")
        compared = Compared(
            second=facts(replace(pair.first, subject=pair.second)),
            times=_times(opened, measured, 0.5, stay),
            tails=_times(opened, measured, 0.9, stay),
            outputs=apart,
            cases=pair.cases.source,
            golden=golden,
            verdict=verdicts[pair.kind != "quantize"],
            kind=pair.kind,
            warnings=pair.warnings,
        )
        return replace(
            report,
            notes=tuple(dict.fromkeys((*report.notes, *notes(pair.second, pair.cases), *short))),
            paths=tuple(path_result(name, measured.blocks[name], opened=bool(plan.rate)) for name in names(targets)),
            server=server(opened[0]),
            compared=compared,
        )


def asked_pairs(opened: tuple[Opened, Opened], measured: Measured) -> tuple[Opened, Opened]:
    """The ways on which both models were asked before Ctrl-C; all of them, unless that was in the first round."""
    if not measured.begun:
        return opened
    pairs = list(zip(opened[0].targets, opened[1].targets, strict=True))
    asked = [pair for pair in pairs if all(each.name in measured.begun for each in pair)]
    measured.keep_begun([each.name for pair in asked for each in pair])
    first, second = (replace(each, targets=tuple(pair[side] for pair in asked)) for side, each in enumerate(opened))
    return first, second


def in_process(opened: tuple[Opened, Opened], pair: Pair) -> list[Side]:
    """Whose sessions are ours, and what they are opened from."""
    return [
        (target, subject.path)
        for each, subject in zip(opened, (pair.first.at_hand, pair.second), strict=True)
        for target in each.targets
        if isinstance(target, InProcess)
    ]


def starts(sides: Sequence[Side], stay: int) -> Callable[[int], None]:
    """What opens the sessions anew, given the number of a round; they stay for as many.

    Where a session happens to lie in memory makes it some percent faster or slower for as long as it lives. Sessions
    that stayed for the whole run would make identical files differ, and surely so.
    """

    def before(number: int) -> None:
        start, since = divmod(number, stay)
        if since == 0:
            _reopen(sides if start % 2 else sides[::-1])

    return before


def plan_starts(costs: Mapping[str, float], start_s: float, first: Prepared, options: Options) -> tuple[Plan, int]:
    """A plan, and for how many of its rounds sessions stay that take `start_s` to open."""
    duration_s = options.wishes.duration_s
    most = most_starts(duration_s, start_s)
    left_s = max(duration_s / 2, duration_s - most * start_s)
    wishes = replace(options.wishes, duration_s=left_s, least_rounds=LEAST_PAIRS)
    return whole_starts(make_plan(costs, first, replace(options, wishes=wishes)), most)


def most_starts(duration_s: float, start_s: float) -> int:
    """As many as take half of the duration, or ten seconds; but always enough for an interval."""
    return max(LEAST_PAIRS, min(ROUNDS, int((duration_s / 2 or _STARTS_S) / max(start_s, 1e-9))))


def whole_starts(plan: Plan, most: int) -> tuple[Plan, int]:
    """The plan in as many rounds as that many starts come to, each with as many as any other; and with how many."""
    begun = min(plan.rounds, most)
    stay = plan.rounds // begun
    return plan.in_rounds(begun * stay), stay


def _too_short(options: Options, measured: Measured, begun: int, what: str) -> Iterator[str]:
    """A duration that gave way to the least of what an interval needs."""
    if begun == LEAST_PAIRS and 0 < 1.1 * options.wishes.duration_s < measured.seconds:
        asked, took = seconds(options.wishes.duration_s), seconds(measured.seconds)
        yield f"--duration {asked} became {took}: an interval needs {LEAST_PAIRS} {what} of both models"


def _reopen(sides: Sequence[Side]) -> float:
    """How many seconds that took."""
    began = time.monotonic()
    for target, path in sides:
        target.reopen(partial(_session, path))
        target.run(_WARM)
    return time.monotonic() - began


def _session(path: Path) -> Session:
    return load(path).session


def answers_apart(pair: Pair) -> tuple[tuple[OutputDifference, ...], GoldenCount | None]:
    """Run all cases on both. Raises CannotMeasure when the answers are not of one form."""
    subject = pair.first.at_hand
    first, second = _answers(subject, pair.cases), _answers(pair.second, pair.cases)
    tolerances = subject.manifest.golden.tolerances if subject.manifest else {}
    try:
        return outputs_apart(first, second), golden_count(first, second, pair.cases.wanted, tolerances)
    except ValueError as error:
        raise CannotMeasure(
            f"{pair.second.path}: {error}", "Compare models that give the same outputs; bench others one by one."
        ) from None


def _answers(subject: Subject, cases: Cases) -> Sequence[Mapping[str, Array]]:
    try:
        return [subject.answer(feeds) for feeds in cases.feeds]
    except ServingError as error:
        raise CannotMeasure(
            f"{subject.path}: {error}", "Give inputs that both models take: --input NAME=@FILE.npy, or another --shape."
        ) from None


def _open_both(stack: ExitStack, pair: Pair, options: Options) -> tuple[Opened, Opened]:
    """The session and TCP unless asked otherwise: two more sockets would only share the time among more rows.

    With several clients TCP alone, since the session has one caller.
    """
    through = ("process", "tcp") if options.wishes.clients == 1 else ("tcp",)
    chosen = options if options.through or options.wishes.rate else replace(options, through=through)
    first = open_model(stack, pair.first.at_hand, pair.first.cases, chosen)
    return first, open_model(stack, pair.second, pair.first.cases, chosen, suffix=f", {pair.label}")


def _verdict(opened: Opened, prepared: Prepared, measured: Measured, slowed: float) -> Verdict:
    return judge(opened.judged, measured.latencies(opened.judged), prepared.budget, slowdown=slowed)


def _times(opened: tuple[Opened, Opened], measured: Measured, share: float, rounds_per_start: int) -> tuple[Added, ...]:
    def apart(a: Target, b: Target) -> Difference:
        first, second = measured.latencies(a.name), measured.latencies(b.name)
        together = rounds_per_start if isinstance(a, InProcess) else 1
        return difference(first, second, share, rounds_per_start=together)

    pairs = zip(opened[0].targets, opened[1].targets, strict=True)
    return tuple(Added(path=b.name, over=a.name, difference=apart(a, b)) for a, b in pairs)


def _label(first: Subject, second: Subject) -> str:
    if second.title != first.title:
        return second.title
    return second.path.name if second.path.name != first.path.name else str(second.path)
