"""Which setting is best: threads, execution provider and batch, one model, all in turn. In this process: a server's
own cost is the same on top of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from edgeward_agent.bench.block import Block
from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.cases import Cases, batched
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.machine import Watch, own_cpu_s
from edgeward_agent.bench.measuring import Loads, Measured, Progress, measure, warm_up
from edgeward_agent.bench.options import Axes, Options
from edgeward_agent.bench.preparing import check_something, noise_of, prepare, report_maker, slowdown
from edgeward_agent.bench.quantiles import CONFIDENCE, least_samples, quantile
from edgeward_agent.bench.report import Report, SweepRow, finite
from edgeward_agent.bench.schedule import MOST_REQUESTS, Load
from edgeward_agent.bench.subject import Subject
from edgeward_agent.bench.sweeping_settings import Setting, settings_of, short
from edgeward_agent.bench.sweeping_words import FASTEST, MOST, UNREACHED, setting_name
from edgeward_agent.bench.targets import InProcess
from edgeward_agent.bench.verdict import Outcome, Verdict, judge
from edgeward_agent.errors import ModelError
from edgeward_agent.serving.session import Session, Tuning
from edgeward_contract.serving_options import ServingOptions

_SECONDS: Final = 20.0
_LONGEST_S: Final = 60.0
_ROUNDS: Final = 10


def run(options: Options, axes: Axes, progress: Progress) -> Report:
    """`--sweep`: the verdict is on the best row. Raises CannotMeasure."""
    progress("loading the model", 0.0, 0.0)
    prepared = prepare(options)
    subject = prepared.at_hand
    settings, unswept = settings_of(axes, subject, prepared.cases)
    targets, failures = _open(subject, settings, prepared.cases)
    progress("warming up", 0.0, 0.0)
    costs = warm_up(targets)
    confidence = 1 - (1 - CONFIDENCE) / len(targets)
    watching = Watch(own_cpu_s)
    loads = _loads(costs, prepared.budget, confidence, options)
    measured = measure(targets, _ROUNDS, loads, progress)
    asked = {each.name for each in targets}
    if measured.begun:
        asked = set(measured.begun)
        measured.keep_begun(list(asked))
    check_something(measured)
    seen = watching.look()
    noise = noise_of(measured.probes, seen)
    slowed = slowdown(noise, options)
    verdicts = {
        each.name: judge(
            each.name, measured.latencies(each.name), prepared.budget, slowdown=slowed, confidence=confidence
        )
        for each in targets
        if each.name in asked
    }
    missed = [_failed(each, UNREACHED) for each in settings if each.name in {target.name for target in targets} - asked]
    rows = marked([_row(each, measured, verdicts[each.name]) for each in settings if each.name in asked])
    report = report_maker(prepared, options, measured, seen, noise)(verdicts[_best(rows)])
    return replace(report, notes=(*report.notes, *unswept), sweep=(*rows, *missed, *failures))


def _open(subject: Subject, settings: Sequence[Setting], cases: Cases) -> tuple[list[InProcess], list[SweepRow]]:
    """Sessions are shared by the batches. A provider that fails, or leaves all to the CPU, is a row that says so."""
    sessions: dict[tuple[int, str], Session | str] = {}
    targets, failures = [], []
    for each in settings:
        key = each.threads, each.provider
        if key not in sessions:
            sessions[key] = _session(subject, each)
        session = sessions[key]
        if isinstance(session, str):
            failures.append(_failed(each, session))
            continue
        feeds = cases.feeds if each.batch == 1 else batched(subject.inputs, cases.feeds, each.batch)
        targets.append(InProcess(each.name, session, feeds))
    if not targets:
        raise CannotMeasure(f"--sweep: expected a setting that loads, got: {failures[0].failure}", "Sweep ep=cpu.")
    return targets, failures


def _session(subject: Subject, setting: Setting) -> Session | str:
    try:
        session = Session(subject.file, _serving(subject, setting))
    except ModelError as error:
        return str(error)
    if session.provider != setting.provider:
        return f"not available here: the runtime fell back to {short(session.provider)}"
    return session


def _serving(subject: Subject, setting: Setting) -> ServingOptions:
    """What the model is served with, but for what is swept."""
    wanted = replace(subject.serving, threads=setting.threads)
    if setting.provider == subject.session.provider:
        return wanted
    return replace(wanted, providers=Tuning(provider=setting.provider).options().providers)


def _loads(costs: Mapping[str, float], budget: Budget, confidence: float, options: Options) -> Loads:
    """An equal share of the time for each row, and what a bound needs for those that might make the budget."""
    share_s = (options.wishes.duration_s or _SECONDS) / len(costs)
    need = 1.3 * least_samples(budget.share, confidence)
    seconds = {name: share_s for name in costs}
    if not options.wishes.duration_s:
        hopeful = {name: cost * need for name, cost in costs.items() if cost * 1e6 <= budget.latency_us}
        squeeze = min(1.0, _LONGEST_S / max(sum(hopeful.values()), 1e-9))
        seconds.update({name: max(share_s, each * squeeze) for name, each in hopeful.items()})
    most = options.wishes.requests or MOST_REQUESTS

    def loads(number: int) -> Mapping[str, Load]:
        count = math.ceil(most / _ROUNDS)
        return {name: Load(count=count, seconds=each / _ROUNDS, first=number * count) for name, each in seconds.items()}

    return loads


def _row(setting: Setting, measured: Measured, verdict: Verdict) -> SweepRow:
    blocks: list[Block] = measured.blocks[setting.name]
    ascending = np.sort(np.concatenate([block.latencies_us for block in blocks]))
    seconds = sum(block.seconds for block in blocks)
    return SweepRow(
        threads=setting.threads,
        provider=short(setting.provider),
        batch=setting.batch,
        n=len(ascending),
        p50_us=quantile(ascending, 0.5),
        p99_us=quantile(ascending, 0.99),
        p99_upper_us=finite(verdict.bounds.upper_us),
        cases_per_second=len(ascending) * setting.batch / seconds,
        outcome=verdict.outcome.value,
    )


def _failed(setting: Setting, words: str) -> SweepRow:
    return SweepRow(
        threads=setting.threads,
        provider=short(setting.provider),
        batch=setting.batch,
        n=0,
        p50_us=0.0,
        p99_us=0.0,
        p99_upper_us=None,
        cases_per_second=0.0,
        outcome=Outcome.INCONCLUSIVE.value,
        failure=words,
    )


def marked(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Mark the row with the fastest answer, and the one with the most cases per second that makes the budget."""
    passing = [row for row in rows if row.outcome == Outcome.PASS.value]
    fastest = min(rows, key=lambda row: row.p50_us)
    most = max(passing, key=lambda row: row.cases_per_second, default=None)
    return [
        replace(row, marks=tuple(mark for mark, best in ((FASTEST, fastest), (MOST, most)) if row is best))
        for row in rows
    ]


def _best(rows: Sequence[SweepRow]) -> str:
    chosen = next((row for row in rows if MOST in row.marks), None) or next(row for row in rows if FASTEST in row.marks)
    return setting_name(chosen.threads, chosen.provider, chosen.batch)
