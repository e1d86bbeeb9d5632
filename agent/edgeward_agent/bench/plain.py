"""The mode without a name: how long does an answer take, and what does each way of asking add?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from edgeward_agent.bench.measuring import Measured, Progress, measure, planned, warm_up
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.paired import difference
from edgeward_agent.bench.paths import Opened, names, open_model, open_url
from edgeward_agent.bench.preparing import (
    Prepared,
    check_something,
    noise_of,
    prepare,
    report_maker,
    server,
    slowdown,
    watch,
)
from edgeward_agent.bench.report import Added, Report, path_result
from edgeward_agent.bench.schedule import Plan, plan_closed, plan_open
from edgeward_agent.bench.verdict import judge


def run(options: Options, progress: Progress) -> Report:
    """Measure one model on every path. Raises CannotMeasure, ServerLost."""
    progress("loading the model", 0.0, 0.0)
    prepared = prepare(options)
    with ExitStack() as stack:
        opened = open_either(stack, prepared, options)
        progress("warming up", 0.0, 0.0)
        costs = warm_up(opened.targets, asking(options))
        watching = watch(opened)
        plan = make_plan(costs, prepared, options)
        measured = measure(opened.targets, plan.rounds, planned(plan, opened.targets, options.seed), progress)
        asked = [name for name in names(opened.targets) if not measured.begun or name in measured.begun]
        judged = None if measured.begun else opened.judged
        if measured.begun:
            measured.keep_begun(asked)
        check_something(measured)
        seen = watching.look()
        noise = noise_of(measured.probes, seen)
        slowed = slowdown(noise, options)
        verdict = judge(judged, measured.latencies(judged), prepared.budget, slowdown=slowed) if judged else None
        report = report_maker(prepared, options, measured, seen, noise)(verdict)
        return replace(
            report,
            paths=tuple(path_result(name, measured.blocks[name], opened=bool(plan.rate)) for name in asked),
            added=added(asked, measured),
            server=server(opened),
        )


def open_either(stack: ExitStack, prepared: Prepared, options: Options) -> Opened:
    if options.url:
        return open_url(stack, prepared.subject, prepared.name, prepared.cases, options, prepared.specs)
    return open_model(stack, prepared.at_hand, prepared.cases, options)


def asking(options: Options) -> int:
    """How many ask at once in a closed loop; in an open one they come at their own time, and one alone is timed."""
    return 1 if options.wishes.rate else options.wishes.clients


def make_plan(costs_s: Mapping[str, float], prepared: Prepared, options: Options) -> Plan:
    costs = list(costs_s.values())
    wishes = replace(options.wishes, share=prepared.budget.share, patience_s=patience(costs_s, prepared))
    return plan_open(len(costs), wishes) if wishes.rate else plan_closed(costs, wishes)


def patience(costs_s: Mapping[str, float], prepared: Prepared) -> float:
    """From when on a request that was not sent is late for sure, and not only behind a slow one."""
    return max(prepared.budget.latency_us / 1e6, 2 * max(costs_s.values()))


def added(paths: Sequence[str], measured: Measured) -> tuple[Added, ...]:
    """What each path takes longer than the first."""
    base, *others = paths
    return tuple(
        Added(path=name, over=base, difference=difference(measured.latencies(base), measured.latencies(name)))
        for name in others
    )
