"""What to try next after a run, as a command to paste: only what can help. Pure."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from edgeward_agent.bench.options import PLACEHOLDER
from edgeward_agent.bench.report import Advice, Report
from edgeward_agent.bench.targets import IN_PROCESS, TCP, UNIX
from edgeward_agent.bench.telling import UNDECIDED, overload
from edgeward_agent.bench.verdict import Outcome, Verdict, Why
from edgeward_agent.bench.words import digits, rounded_up

_FLAGS: Final = {"--json", "--quantize", "--force"}  # options without a value
_LENGTH: Final = frozenset({"--requests", "--duration"})
_ELSEWHERE: Final = frozenset({"--url", "--name", "--header"})
_MODES: Final = frozenset({"--compare", "--quantize", "--calibration", "--output", "--sweep", "--soak"})
_SWEPT: Final = frozenset({"--rate", "--arrivals", "--clients", "--through"})  # a sweep has its own ways
_FREE: Final = re.compile(r" \[\?[^\[]*$")  # the shape of an input whose first axis has any size
_SINGLE: Final = re.compile(r"=\s*1\s*(,|x|$)")  # NAME=1,3 of --shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """`flags` to add to the command, without the options that they take the place of; empty where none would help."""

    flags: str
    why: str
    instead_of: frozenset[str] = frozenset()


def advise(report: Report, command: tuple[str, ...], *, quantizable: bool) -> tuple[Advice, ...]:
    """What to try next, at most two things. `command` is the arguments as they were typed."""
    if report.verdict is None or report.interrupted:
        return ()
    if report.lost:
        return (Advice(command="", why=_after_a_loss(report)),)
    return tuple(
        Advice(command=_line(command, idea) if idea.flags else "", why=idea.why)
        for idea in _ideas(report, report.verdict, quantizable=quantizable, axes=_axes(report, command))
    )[:2]


def _axes(report: Report, command: tuple[str, ...]) -> str:
    """What a sweep could vary, as `--sweep` takes it; a batch is put together from requests of one case each."""
    inputs = report.model.inputs
    sized = [word for before, word in pairwise(("", *command)) if before == "--shape" or word.startswith("--shape=")]
    batch = inputs and all(map(_FREE.search, inputs)) and all(map(_SINGLE.search, sized))
    return ",".join(["threads"] * (report.machine.cores > 1) + ["batch"] * bool(batch))


def _ideas(report: Report, verdict: Verdict, *, quantizable: bool, axes: str) -> list[Idea]:
    if report.sweep:
        more = _longer(report, verdict, "more requests for each setting")
        return [more] if verdict.outcome is Outcome.INCONCLUSIVE else []
    if _unsure(report, verdict):
        return _when_unsure(report, verdict)
    if report.soak:
        return _after_a_long_run(report)
    if verdict.outcome is Outcome.OVER:
        return _when_over(report, verdict, quantizable=quantizable, axes=axes)
    if report.compared is not None:
        return _after_comparing(report)
    if not report.settings.rate:
        rate = sensible_rate(report.paths[-1].per_second)
        why = "how long it takes when requests come at their own time, not in turn"
        return [Idea(flags=f"--rate {rate}", why=why, instead_of=_LENGTH)]
    return [Idea(flags="--soak 10m", why="whether latency and memory stay as they are", instead_of=_LENGTH | _MODES)]


def _longer(report: Report, verdict: Verdict, why: str) -> Idea:
    times = max(2.0, verdict.needed_n / verdict.bounds.n)
    minutes = max(2, math.ceil(times * report.settings.duration_s / 60))
    return Idea(flags=f"{'--soak' if report.soak else '--duration'} {minutes}m", why=why, instead_of=_LENGTH)


def _swept(axes: str) -> list[Idea]:
    instead_of = _MODES | _SWEPT | _ELSEWHERE
    why = "whether another setting is quicker"
    return [Idea(flags=f"--sweep {axes}", why=why, instead_of=instead_of)] if axes else []


def _unsure(report: Report, verdict: Verdict) -> bool:
    """A soak says with its exit code what it comes to: what grew may be the machine's doing."""
    return report.exit_code == UNDECIDED if report.soak else verdict.outcome is Outcome.INCONCLUSIVE


def _when_unsure(report: Report, verdict: Verdict) -> list[Idea]:
    quieter = [Idea(flags="", why="Close other programs, plug the laptop in, and run it again: this machine is noisy.")]
    quieter = quieter if report.noise.noisy else []
    grown = report.soak is not None and any(each.too_much for each in report.soak.trends)
    if verdict.why is Why.TOO_NOISY or grown:
        return [*quieter, Idea(flags="--force", why="to judge all the same")]
    if verdict.needed_n and not report.soak:
        enough = f"--requests {rounded_up(verdict.needed_n)}"
        return [*quieter, Idea(flags=enough, why="enough to decide", instead_of=_LENGTH)]
    return [*quieter, _longer(report, verdict, "more requests; or choose a budget that is not the latency itself")]


def _when_over(report: Report, verdict: Verdict, *, quantizable: bool, axes: str) -> list[Idea]:
    if report.settings.rate and (overload(report) or _waits(report)):
        if carried := carried_rate(report):
            why = f"about what it can carry: it answered {digits(report.paths[-1].per_second)} a second"
            return [Idea(flags=f"--rate {carried:g}", why=why)]
        half = f"--rate {report.settings.rate / 2:g}"
        return [Idea(flags=half, why="half as many: requests wait for each other here")]
    if _makes_it(report, verdict, IN_PROCESS):
        return [_another_way(report, verdict)]
    if not report.model.path:  # there is no file that could be changed
        return []
    if report.compared is not None or not quantizable:
        return _swept(axes)
    why = "INT8 is often two to four times as fast; shows what it costs in accuracy"
    return [Idea(flags="--quantize", why=why, instead_of=_MODES | _ELSEWHERE), *_swept(axes)]


def _makes_it(report: Report, verdict: Verdict, place: str) -> bool:
    """Whether the judged model makes the budget in `place`; not where that was not measured."""
    _, comma, label = verdict.path.partition(", ")
    taken = (path.at_least(verdict.budget.share) for path in report.paths if path.name == place + comma + label)
    return next((us is not None and us <= verdict.budget.latency_us for us in taken), False)


def _another_way(report: Report, verdict: Verdict) -> Idea:
    """What to do where the model alone makes the budget: no other model would help."""
    name, comma, label = verdict.path.partition(", ")
    measured = UNIX + comma + label in {path.name for path in report.paths}
    if name == TCP and (not measured or _makes_it(report, verdict, UNIX)):
        return Idea(flags="--through unix", why="the model alone is quick enough; the unix socket adds less than TCP")
    return Idea(
        flags="", why="The model alone is quick enough, the way to it is not: send less, or choose a wider budget."
    )


def _after_comparing(report: Report) -> list[Idea]:
    assert report.compared is not None
    if report.compared.kind == "quantize" and not report.compared.written:
        return [Idea(flags="--output model-int8.onnx", why="keeps the quantised file")]
    return []


def _after_a_long_run(report: Report) -> list[Idea]:
    if report.settings.rate:
        return []
    why = "the same at the pace of a ward: an idle machine is slower than one in a hot loop"
    return [Idea(flags="--rate 20", why=why)]


def _waits(report: Report) -> bool:
    last = report.paths[-1]
    if last.from_sending is None or last.latency.p50_us is None or last.from_sending.p50_us is None:
        return False
    return last.latency.p50_us > 1.5 * last.from_sending.p50_us


def carried_rate(report: Report) -> float:
    """Two thirds of what was answered where more was asked, to two digits; 0 where nothing grew or nothing came."""
    return float(f"{report.paths[-1].per_second * 2 / 3:.2g}") if overload(report) else 0.0


def sensible_rate(per_second: float) -> int:
    """A round number, at most a third of what it can do, and at most what a busy ward asks."""
    most = min(100.0, per_second / 3)
    return next((rate for rate in (100, 50, 20, 10, 5, 2) if rate <= most), 1)


def _line(command: tuple[str, ...], idea: Idea) -> str:
    """The command with the flags added, without what they replace and what only says how a result is shown."""
    left_out = {idea.flags.split()[0], "--html", "--json"} | idea.instead_of
    return f"edgeward-agent bench {shlex.join(_without_secrets(_without(command, left_out)))} {idea.flags}"


def _without(command: tuple[str, ...], options: set[str]) -> list[str]:
    kept, skip = [], False
    for word in command:
        name, equals, _ = word.partition("=")
        if not skip and name not in options:
            kept.append(word)
        skip = word in options - _FLAGS and not equals
    return kept


def _without_secrets(words: list[str]) -> list[str]:
    """Headers carry tokens, and what is shown gets mailed and pasted. An address with one is refused."""
    told = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "--header":
            word = _name_alone(word)
        elif word.startswith("--header="):
            word = f"--header={_name_alone(word.removeprefix('--header='))}"
        told.append(word)
    return told


def _name_alone(header: str) -> str:
    return f"{header.partition(':')[0].strip()}: {PLACEHOLDER}"


def _after_a_loss(report: Report) -> str:
    if report.server is None:
        return "See the server's own log; then start it and measure it again."
    return f"Run `edgeward-agent serve {shlex.quote(report.model.path)}` by itself, and see what it says at its end."
