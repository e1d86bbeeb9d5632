"""The verdict in words: the first thing that anybody reads. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edgeward_agent.bench.noise import Surroundings
from edgeward_agent.bench.report import OutputDifference, Report, Trend
from edgeward_agent.bench.sweeping_words import setting_words
from edgeward_agent.bench.targets import IN_PROCESS, TCP, UNIX
from edgeward_agent.bench.verdict import Outcome, Verdict, Why
from edgeward_agent.bench.words import counted, digits, exact, latency, percent, rounded_up, seconds

PASS, OVER, UNSURE = "PASS", "OVER", "UNSURE"
UNDECIDED: Final = 3
_WORDS: Final = {0: PASS, 1: OVER, UNDECIDED: UNSURE}
_OUTCOMES: Final = {Outcome.PASS: PASS, Outcome.OVER: OVER, Outcome.INCONCLUSIVE: UNSURE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One word, one sentence, and how sure that is."""

    word: str
    sentence: str
    sure: str


def headline(report: Report) -> Headline | None:
    """None when nothing was judged."""
    verdict = report.verdict
    if verdict is None:
        return None
    if report.lost and (report.soak or verdict.outcome is not Outcome.OVER):
        word, sure = _WORDS.get(report.exit_code, UNSURE), _until_then(report, verdict)
        return Headline(word=word, sentence=f"the server of {subject(report)} went away", sure=sure)
    grown = [each for each in report.soak.trends if each.too_much] if report.soak else []
    word = _WORDS.get(report.exit_code, _OUTCOMES[verdict.outcome])
    if grown and verdict.outcome is Outcome.PASS:
        return Headline(word=word, sentence=f"{subject(report)} does not stay as it began", sure=growth(grown[0]))
    return Headline(word=word, sentence=_sentence(subject(report), verdict), sure=_sure(report, verdict))


def subject(report: Report) -> str:
    """What the verdict is on."""
    if report.compared is not None and report.compared.kind == "quantize":
        return report.compared.second.title
    return report.model.title


def goal(verdict: Verdict) -> str:
    """`10 ms at p99`."""
    return f"{exact(verdict.budget.latency_us)} at {verdict.budget.quantile}"


def where(path: str) -> str:
    """`over TCP`, `in process`, `at http://…`."""
    name, comma, label = path.partition(", ")
    place = {IN_PROCESS: IN_PROCESS, UNIX: "over the unix socket", TCP: "over TCP"}.get(name)
    if place is None:
        place = f"at {name}" if "://" in name or name.startswith("unix:") else f"with {setting_words(name)}"
    return place + (f" ({label})" if comma else "")


def growth(trend: Trend) -> str:
    if trend.growth == 0:
        return f"{trend.of} did not change."
    sign = "grew" if trend.growth > 0 else "shrank"
    return f"{trend.of} {sign} by {percent(abs(trend.growth))} (99 %: {trend.lower:+.1%} to {trend.upper:+.1%})."


def uncompared(found: OutputDifference) -> str:
    """Which elements say nothing of how far two models lie apart; empty when all do."""
    if not found.not_finite:
        return ""
    if found.not_finite == found.elements:
        return f"no element of {found.name} is finite in both models: nothing was compared."
    return f"{found.not_finite:,} of {found.elements:,} elements of {found.name} are not finite, and were not compared."


def overload(report: Report) -> str:
    """What an open loop shows when more is asked than can be answered; empty when it is not."""
    rate = report.settings.rate
    if not rate or report.soak or report.lost or not report.paths or report.paths[-1].per_second > 0.95 * rate:
        return ""
    answered = digits(report.paths[-1].per_second)
    return f"{rate:g} requests a second were due and {answered} were answered: the queue grows while that lasts."


def _until_then(report: Report, verdict: Verdict) -> str:
    found, name = verdict.bounds, verdict.budget.quantile
    return (
        f"{name} {where(verdict.path)} is {latency(found.estimate_us)} of {found.n:,} requests, the lost ones included."
    )


def _sentence(title: str, verdict: Verdict) -> str:
    said = {"the manifest": ", from its manifest", "the default": ", the default"}.get(verdict.budget.said, "")
    if verdict.outcome is Outcome.PASS:
        return f"{title} makes its budget of {goal(verdict)}{said}"
    if verdict.outcome is Outcome.OVER:
        return f"{title} misses its budget of {goal(verdict)}{said}"
    if verdict.why is Why.TOO_NOISY:
        return f"this machine is too noisy to hold {title} to {goal(verdict)}"
    if verdict.why is Why.TOO_CLOSE:
        return f"{title} is too close to {goal(verdict)} to call"
    too_few = f"{counted(verdict.bounds.n, 'request')} {'is' if verdict.bounds.n == 1 else 'are'} too few"
    return f"{too_few} to hold {title} to {goal(verdict)}"


def _sure(report: Report, verdict: Verdict) -> str:
    bound, name = verdict.bounds, verdict.budget.quantile
    is_now = f"{name} {where(verdict.path)} is {latency(bound.estimate_us)}"
    if math.isinf(bound.estimate_us):
        is_now = f"at {name} {where(verdict.path)} there is no answer"
    if verdict.outcome is Outcome.PASS:
        return f"{is_now}; 95 % sure that it is below {latency(bound.upper_us)} (n {bound.n:,})."
    if verdict.outcome is Outcome.OVER:
        late = f"{percent(verdict.late_share)} of {bound.n:,} answers were late"
        sure = f"that it is above {latency(bound.lower_us)}" if math.isfinite(bound.lower_us) else "of that"
        return f"{is_now}; 95 % sure {sure}. {late}."
    if verdict.why is Why.TOO_NOISY:
        return f"{is_now}, but {report.noise.reasons[0]}."
    between = f"above {latency(bound.lower_us)}"
    if math.isfinite(bound.upper_us):
        between = f"between {latency(bound.lower_us)} and {latency(bound.upper_us)}"
    more = f" About {rounded_up(verdict.needed_n):,} requests would decide." if verdict.needed_n else ""
    return f"{is_now}; 95 % sure only that it is {between}.{more}"


def cut_short(report: Report) -> str:
    """Why there is less than was planned; empty when there is not."""
    used = report.settings
    done, of, spent = used.rounds, used.planned_rounds, seconds(used.duration_s)
    if report.interrupted:
        return f"interrupted in round {done} of {of}, {spent}: this is what was measured"
    if report.lost:
        return (
            f"the server went away in round {done} of {of}, after {spent} ({report.lost}): what it owed counts as late"
        )
    return ""


def machine(seen: Surroundings) -> str:
    cores = "1 core" if seen.cores == 1 else f"{seen.cores} cores"
    return f"{seen.processor}, {cores}, {seen.system}"
