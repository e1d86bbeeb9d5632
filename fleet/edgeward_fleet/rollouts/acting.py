"""What a decision does to devices: write their desired state, inside the transaction that stores the decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.desired import DesiredModel
from edgeward_fleet.rollouts import repository
from edgeward_fleet.rollouts.cohort import DeviceNow, Fleet, has_left
from edgeward_fleet.rollouts.model import Back, Former, Rollout, RolloutDevice, Standing
from edgeward_fleet.secrets import new_id
from edgeward_fleet.states import desired
from edgeward_fleet.states.desired import Change

_Act = Callable[[Session, Rollout, RolloutDevice, DeviceNow, datetime], RolloutDevice]


def offer(session: Session, rollout: Rollout, devices: Sequence[DeviceId], fleet: Fleet, now: datetime) -> Rollout:
    """Make the release the desired one of `devices`; one that runs it already is left alone."""
    return _each(session, rollout, devices, fleet, now, _offer)


def take_back(session: Session, rollout: Rollout, devices: Sequence[DeviceId], fleet: Fleet, now: datetime) -> Rollout:
    """Make the former release the desired one of `devices` again, under a deployment of its own."""
    return _each(session, rollout, devices, fleet, now, _take_back)


def _each(
    session: Session, rollout: Rollout, devices: Sequence[DeviceId], fleet: Fleet, now: datetime, act: _Act
) -> Rollout:
    chosen = frozenset(devices)
    acted = (
        act(session, rollout, device, fleet[device.device], now) if device.device in chosen else device
        for device in rollout.devices
    )
    return replace(rollout, devices=tuple(acted))


def _offer(
    session: Session, rollout: Rollout, device: RolloutDevice, current: DeviceNow, now: datetime
) -> RolloutDevice:
    if not device.offered and current.runs(rollout.release_sha256):
        return replace(device, standing=Standing.ALREADY)
    release = Former(release=rollout.spec.release, sha256=rollout.release_sha256)
    deployment = new_id("d-")
    change = _want(session, rollout, device.device, release, deployment, now)
    return replace(
        device,
        standing=Standing.UNKNOWN,
        deployment=deployment,
        # Of the first offer: a device that has fetched that one may have taken the release.
        generation=device.generation or change.state.generation,
        former=device.former if device.offered else _former(session, current),
        requests=0,
        errors=0,
        earlier_requests=0,
        earlier_errors=0,
    )


def _take_back(
    session: Session, rollout: Rollout, device: RolloutDevice, current: DeviceNow, now: datetime
) -> RolloutDevice:
    if has_left(device, current):
        return replace(device, back=Back.LEFT)
    deployment = new_id("d-") if device.former else None
    change = _want(session, rollout, device.device, device.former, deployment, now)
    never_took = change.fetched_generation < device.generation
    return replace(
        device,
        back=Back.NEVER_TOOK if never_took else Back.ASKED,
        back_deployment=deployment,
        back_generation=change.state.generation,
    )


def _want(
    session: Session, rollout: Rollout, device: DeviceId, release: Former | None, deployment: str | None, now: datetime
) -> Change:
    wanted = None
    if release is not None and deployment is not None:
        wanted = DesiredModel(release=release.release, sha256=release.sha256, deployment=deployment)
    return desired.set_model(session, device, rollout.model, wanted, now=now)


def _former(session: Session, current: DeviceNow) -> Former | None:
    """What the device is given back: the release it should run now, unless that is an offer it never proved.

    Its newest report counts, too: a rollout that is over hears of no proof that comes late.
    """
    if current.deployment is not None and not (current.desired and current.runs(current.desired.sha256)):
        unproven, before = repository.unproven_offer(session, current.device, current.deployment)
        if unproven:
            return before
    return current.desired
