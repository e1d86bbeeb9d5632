"""What a device's report means for the rollouts that it is part of."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.reported import ReportedState
from edgeward_fleet.rollouts import repository
from edgeward_fleet.rollouts.analysis import observe
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Back, RolloutDevice, RolloutId, Standing

OBSERVED: Final = frozenset(
    {
        RolloutState.PROGRESSING,
        RolloutState.PAUSED,
        RolloutState.ABORTING,
        RolloutState.ROLLING_BACK,
        RolloutState.ROLLBACK_INCOMPLETE,
    }
)
_NEWS: Final = frozenset({Standing.SUCCEEDED, Standing.FAILED})


def take_report(session: Session, device: DeviceId, reported: ReportedState, now: datetime) -> bool:
    """Let the rollouts of `device` know, in the transaction that stores the report; whether it was news to one."""
    is_news = False
    for rollout_id, model, sha256 in repository.of_device(session, device, OBSERVED):
        before = repository.device_of(session, rollout_id, device)
        after = observe(before, model, sha256, reported)
        if after == before:
            continue
        repository.save_devices(session, rollout_id, (after,))
        _tell(session, rollout_id, before, after, now)
        is_news = True
    return is_news


def _tell(session: Session, rollout_id: RolloutId, before: RolloutDevice, after: RolloutDevice, now: datetime) -> None:
    if after.standing is not before.standing and after.standing in _NEWS:
        words = " ".join(part for part in (after.standing.value, after.reason, after.detail) if part)
        repository.add_event(session, rollout_id, now, after.device, "device", words)
    if after.back is not before.back and after.back is Back.PROVEN:
        former = after.former.release if after.former else "no release, as before"
        repository.add_event(session, rollout_id, now, after.device, "device", f"back on {former}")
