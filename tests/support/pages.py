"""Values that pages are drawn from, for tests of the pure views."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from edgeward_contract.artifact import DeviceId, ReleaseRef, Sha256, model_name
from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutState
from edgeward_fleet.rollouts.model import PhaseSpec, Rollout, RolloutDevice, RolloutId, RolloutSpec, Standing
from edgeward_fleet.rollouts.repository import Authorship
from edgeward_fleet.rollouts.service import RolloutRecord

NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
SHA: Final = Sha256("a" * 64)
OTHER: Final = Sha256("b" * 64)
RISK: Final = model_name("risk", "name")


def person(role: Role, name: str = "ada") -> Principal:
    return Principal(username=name, role=role, token_id="t-1", address="192.0.2.1")


def rollout_of(
    *standings: Standing,
    state: RolloutState = RolloutState.PROGRESSING,
    reason: str = "",
    step: PhaseStep = PhaseStep.OFFERING,
    word: str = "",
) -> RolloutRecord:
    """A rollout of one phase with a device per standing; those that failed say `word`."""
    devices = tuple(
        RolloutDevice(
            device=DeviceId(f"bed-{number}"),
            site="north",
            phase=0,
            standing=standing,
            reason=word if standing is Standing.FAILED else "",
            deployment=None if standing is Standing.WAITING else f"d-{number}",
        )
        for number, standing in enumerate(standings)
    )
    spec = RolloutSpec(release=ReleaseRef(RISK, 2), phases=(PhaseSpec(name="canary", percent=100, soak_s=90),))
    rollout = Rollout(
        id=RolloutId("r-1"),
        spec=spec,
        release_sha256=SHA,
        state=state,
        reason=reason,
        step=step,
        created_at=NOW,
        since=NOW,
        phase_since=NOW,
        step_since=NOW,
        devices=devices,
    )
    return RolloutRecord(rollout=rollout, authorship=Authorship(created_by="olive", approved_by=None, approved_at=None))


def plain(text: str) -> str:
    """As one types it: numbers and their units are held together by a space of another kind."""
    return text.replace("\u00a0", " ").replace("\u202f", " ")
