"""Whether a candidate on trial is well. Pure: the executor observes, this judges."""

from __future__ import annotations

from dataclasses import dataclass

from edgeward_agent.update.deployment import Deployment
from edgeward_agent.update.machine import Event
from edgeward_agent.update.settings import UpdateSettings
from edgeward_contract.traffic import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`event` is None while there is nothing to say yet."""

    event: Event | None = None
    reason: str = ""
    detail: str = ""


UNDECIDED = Judgement()


@dataclass(frozen=True, slots=True)
class ProbationJudge:
    """The gates of a trial. Bad news is looked for first, so that a late crash still beats the clock."""

    settings: UpdateSettings

    def judge(self, deployment: Deployment, traffic: Traffic, *, budget_us: int) -> Judgement:
        """`traffic` counts since the candidate last went live; what it answered before a crash is in the trial."""
        return (
            self.restarts(deployment)
            or self._errors(deployment, traffic)
            or self._latency(deployment, traffic, budget_us)
            or self._end(deployment, traffic)
            or UNDECIDED
        )

    def restarts(self, deployment: Deployment) -> Judgement | None:
        """What can be said without any traffic."""
        crashes, attempts = deployment.trial.crashes, deployment.attempts
        if crashes >= self.settings.crash_limit:
            detail = f"expected the serving process to stay up, it crashed {crashes} times with this release"
            return Judgement(event=Event.CRASH_LIMIT, reason="crashes", detail=detail)
        if attempts >= self.settings.max_attempts:
            detail = f"expected a verdict within {self.settings.max_attempts} starts of the agent, had {attempts}"
            return Judgement(event=Event.ATTEMPTS_USED, reason="attempts", detail=detail)
        return None

    def _errors(self, deployment: Deployment, traffic: Traffic) -> Judgement | None:
        errors = deployment.trial.earlier_errors + traffic.errors
        requests = max(deployment.trial.earlier_requests + traffic.requests, errors)
        if errors < self.settings.min_errors or 100 * errors <= self.settings.max_error_percent * requests:
            return None
        percent = self.settings.max_error_percent
        detail = f"expected at most {percent:g} % errors, got {errors} of {requests} requests"
        return Judgement(event=Event.UNHEALTHY, reason="errors", detail=detail)

    def _latency(self, deployment: Deployment, traffic: Traffic, budget_us: int) -> Judgement | None:
        """The budget of the manifest; on a device so busy that the release before was over it too, twice that one's."""
        limit_us = max(budget_us, 2 * deployment.trial.baseline_p99_us)
        if traffic.requests < self.settings.latency_min_requests or traffic.p99_us <= limit_us:
            return None
        detail = f"expected a p99 of at most {limit_us} µs, got {traffic.p99_us} µs over {traffic.requests} requests"
        return Judgement(event=Event.UNHEALTHY, reason="latency", detail=detail)

    def _end(self, deployment: Deployment, traffic: Traffic) -> Judgement | None:
        requests = deployment.trial.earlier_requests + traffic.requests
        if deployment.trial.elapsed_s < self.settings.probation_s or requests < self.settings.probation_min_requests:
            return None
        return Judgement(event=Event.HEALTHY)
