"""The devices of a rollout held against the fleet as it is now: who left, who joined, who needs no offer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Back, Former, Rollout, RolloutDevice, Standing

_TAKES_JOINERS = frozenset({RolloutState.AWAITING_APPROVAL, RolloutState.SCHEDULED, RolloutState.PROGRESSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNow:
    """A device as the database has it, with regard to one model."""

    device: DeviceId
    site: str
    revoked: bool = False
    desired: Former | None = None
    deployment: str | None = None
    live_sha256: Sha256 | None = None
    live_slot: str | None = None

    def runs(self, sha256: Sha256) -> bool:
        """Whether the release is wanted, live and committed already."""
        wanted = self.desired is not None and self.desired.sha256 == sha256
        return wanted and self.live_sha256 == sha256 and self.live_slot == "current"


Fleet = Mapping[DeviceId, DeviceNow]


def reconcile(rollout: Rollout, fleet: Fleet, taken: frozenset[DeviceId] = frozenset()) -> Rollout:
    """`rollout` without those who left, and with those who joined; never one of `taken`, whom another one has."""
    present = tuple(_as_it_is(device, fleet.get(device.device)) for device in rollout.devices)
    return replace(rollout, devices=(*present, *_joiners(rollout, fleet, taken)))


def has_left(device: RolloutDevice, now: DeviceNow | None) -> bool:
    """Revoked, or given something else by a later rollout: nothing that it does is ours any more."""
    if now is None or now.revoked:
        return True
    expected = device.deployment if device.back is Back.NONE else device.back_deployment
    return device.offered and now.deployment != expected


def come_back(rollout: Rollout, fleet: Fleet, given_back: Collection[str]) -> Rollout:
    """`rollout` with those that a later one has taken and given its release back, under deployments of `given_back`."""
    return replace(rollout, devices=tuple(_come_back(rollout, each, fleet, given_back) for each in rollout.devices))


def candidates(rollout: Rollout, fleet: Fleet) -> Iterator[DeviceNow]:
    """Devices that match the target and may be given something."""
    for now in fleet.values():
        if not now.revoked and rollout.spec.target.matches(now.device, now.site):
            yield now


def _come_back(rollout: Rollout, device: RolloutDevice, fleet: Fleet, given_back: Collection[str]) -> RolloutDevice:
    now = fleet[device.device]
    if not device.holds_offer or device.back is not Back.NONE or now.deployment not in given_back:
        return device
    is_ours = now.desired is not None and now.desired.sha256 == rollout.release_sha256
    return replace(device, deployment=now.deployment) if is_ours else device


def _as_it_is(device: RolloutDevice, now: DeviceNow | None) -> RolloutDevice:
    if device.standing is Standing.LEFT or device.is_back or device.back is Back.LEFT:
        return device
    if not has_left(device, now):
        return device
    back = Back.LEFT if device.back is Back.ASKED else device.back
    standing = device.standing if device.standing is Standing.FAILED else Standing.LEFT
    asked = device.standing is not Standing.WAITING  # of who goes before that, nothing was lost
    return replace(device, standing=standing, back=back, counted=device.counted and asked)


def _joiners(rollout: Rollout, fleet: Fleet, taken: frozenset[DeviceId]) -> Iterator[RolloutDevice]:
    """Newcomers enter the last phase, never the canary; once it is open they are outside its frozen denominator."""
    if rollout.state not in _TAKES_JOINERS:
        return
    known = {device.device for device in rollout.devices}
    last = len(rollout.spec.phases) - 1
    is_open = rollout.state is RolloutState.PROGRESSING and rollout.phase == last
    for now in candidates(rollout, fleet):
        if now.device not in known and now.device not in taken:
            yield RolloutDevice(device=now.device, site=now.site, phase=last, counted=not is_open)
