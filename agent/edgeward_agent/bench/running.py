"""Chooses the mode and says at the end what to try next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeward_agent.bench import comparing, plain, quantizing, soaking, sweeping
from edgeward_agent.bench.advising import advise
from edgeward_agent.bench.graph import quantizable
from edgeward_agent.bench.measuring import Progress
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.report import Report
from edgeward_agent.bench.subject import file_of


def bench(options: Options, command: tuple[str, ...], progress: Progress) -> Report:
    """Measure as asked. `command` is the arguments as they were typed. Raises CannotMeasure, ServerLost."""
    report = _measured(options, progress)
    path = report.model.path
    return replace(report, next=advise(report, command, quantizable=bool(path) and quantizable(file_of(Path(path)))))


def _measured(options: Options, progress: Progress) -> Report:
    if options.sweep is not None:
        return sweeping.run(options, options.sweep, progress)
    if options.compare is not None:
        return comparing.run(options, options.compare, progress)
    if options.quantize:
        return quantizing.run(options, progress)
    if options.soak_s:
        return soaking.run(options, progress)
    return plain.run(options, progress)
