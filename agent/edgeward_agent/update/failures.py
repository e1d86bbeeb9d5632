"""What a failure means to a deployment: wait, try again, or give up. Pure, and the only place that decides it."""

from __future__ import annotations

from edgeward_agent.errors import LinkLost, LinkRefused, UpdateError
from edgeward_agent.update.deployment import Deployment, Outcome
from edgeward_agent.update.files import is_full
from edgeward_agent.update.machine import TRANSITIONS, Event
from edgeward_agent.update.releases import WrongRelease
from edgeward_contract.schema import ContractError

Failure = LinkLost | LinkRefused | UpdateError | ContractError | OSError


def outcome_of(error: Failure, deployment: Deployment, *, max_retries: int) -> Outcome:
    """A lost link says nothing of the release and is waited out for as long as it takes; all else is counted."""
    detail = _words(error)
    if isinstance(error, LinkLost):
        return Outcome(event=Event.RETRY, reason="link_lost", detail=detail, retry_after_s=error.retry_after_s)
    if isinstance(error, OSError) and is_full(error) and (deployment.state, Event.DEFER) in TRANSITIONS:
        return Outcome(event=Event.DEFER, reason="disk", detail=detail)
    if isinstance(error, ContractError) and (deployment.state, Event.REJECT) in TRANSITIONS:
        return Outcome(event=Event.REJECT, reason="incompatible", detail=detail)
    if isinstance(error, WrongRelease):
        return Outcome(event=Event.FAIL, reason=error.reason, detail=detail)
    if deployment.retries >= max_retries:
        return Outcome(event=Event.FAIL, reason=_reason(error), detail=detail)
    return Outcome(event=Event.RETRY, reason=_reason(error), detail=detail, counted=True)


def _reason(error: Failure) -> str:
    if isinstance(error, UpdateError):
        return error.reason
    if isinstance(error, LinkRefused):
        return "refused"
    return "storage" if isinstance(error, OSError) else "incompatible"


def _words(error: Failure) -> str:
    if isinstance(error, OSError):
        return f"expected the disk to take the release, got: {error.strerror or error}"
    return str(error)
