"""Time in which nobody watched counts for nothing: a fleet that was down, or without its database, heard no report.

A soak that went by meanwhile has shown nothing, and a phase that timed out meanwhile had nobody to answer to.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from edgeward_fleet.audit.model import SYSTEM
from edgeward_fleet.clock import rfc3339
from edgeward_fleet.db import turns
from edgeward_fleet.db.schema import SettingRow
from edgeward_fleet.db.turns import Turn
from edgeward_fleet.rollouts import repository
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Rollout

NOTED_EACH_S: Final = 30.0
LONGEST_GAP: Final = timedelta(seconds=4 * NOTED_EACH_S)
"""Up to here it is a restart. After a longer gap every device has as long to report, before time counts again."""
_KEY: Final = "rollouts_watched_at"


def watch(session: Session, now: datetime) -> None:
    """Note that rollouts are watched, and put off what has become due since that was noted last, too long ago."""
    turns.take(session, Turn.ROLLOUTS)
    row = session.get(SettingRow, _KEY)
    gap = now - datetime.fromisoformat(row.value) if row else timedelta()
    session.merge(SettingRow(key=_KEY, value=rfc3339(now)))
    if gap > LONGEST_GAP:
        for rollout_id in repository.in_states(session, (RolloutState.PROGRESSING,)):
            rollout = repository.load(session, rollout_id)
            repository.save(session, rollout, _put_off(rollout, gap + LONGEST_GAP, now))
            words = f"for {int(gap.total_seconds())} s, which count neither as soak nor against the time-out"
            repository.add_event(session, rollout_id, now, SYSTEM.name, "unwatched", words)


def _put_off(rollout: Rollout, by: timedelta, now: datetime) -> Rollout:
    phase_since, step_since = (min(each + by, now) for each in (rollout.phase_since, rollout.step_since))
    return replace(rollout, phase_since=phase_since, step_since=step_since)
