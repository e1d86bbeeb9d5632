"""A fleet with something to look at: releases pushed, devices that report, rollouts that stand half way."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_contract.artifact import sha256_of
from edgeward_contract.reported import UpdateState
from edgeward_contract.schema import Fields, JsonValue, parse_json
from edgeward_fleet.accounts.model import Role
from support.fleet import Fleet
from support.models import wdbc_release
from support.pretend import PretendDevice

_DEADLINE_S: Final = 20.0
NAMES: Final = (
    *((f"north-bed-{number}", "north") for number in range(1, 8)),
    *((f"south-ward-{number}", "south") for number in range(1, 5)),
    ("icu-01", "icu"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A rollout that somebody has asked for."""

    id: str
    spec_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Twelve devices at three sites, and two in a laboratory.

    `half_way` is a rollout in its second phase, `waiting` one without approval, `stopped` one that a device refused.
    """

    devices: dict[str, PretendDevice]
    done: str
    half_way: str
    waiting: str
    stopped: str


def push(fleet: Fleet, version: int) -> None:
    """Register a committed release of wdbc-risk."""
    folder, client = wdbc_release(version), fleet.client(Role.OPERATOR)
    for name in ("model.onnx", "golden.npz"):
        data = (folder / name).read_bytes()
        assert client.put(f"/artifacts/{sha256_of(data)}", content=data).status_code in (200, 201)
    manifest = base64.b64encode((folder / "manifest.json").read_bytes()).decode()
    assert client.post("/releases", json={"manifest": manifest}).status_code in (200, 201)


def ask(fleet: Fleet, spec: Mapping[str, JsonValue], role: Role = Role.OPERATOR) -> Asked:
    answer = fleet.client(role).post("/rollouts", json=dict(spec))
    assert answer.status_code == 201, answer.text
    return Asked(id=answer.json()["id"], spec_sha256=answer.json()["spec_sha256"])


def start(fleet: Fleet, release: str, **spec: JsonValue) -> str:
    """Ask for a rollout as the operator and approve it as the approver."""
    asked = ask(fleet, {"release": release, **spec})
    answer = fleet.client(Role.APPROVER).post(f"/rollouts/{asked.id}/approve", json={"spec_sha256": asked.spec_sha256})
    assert answer.status_code == 200, answer.text
    return asked.id


def phase(name: str, percent: int, soak_s: int = 0) -> dict[str, JsonValue]:
    return {"name": name, "percent": percent, "soak_s": soak_s}


def until(fleet: Fleet, rollout: str, arrived: Callable[[Fields], bool]) -> Fields:
    """Wait for the rollout to be as it should; ends with what it was instead."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        found = parse_json(fleet.client(Role.VIEWER).get(f"/rollouts/{rollout}").content)
        if arrived(found):
            return found
        assert time.monotonic() < deadline, f"expected the rollout to move on, got {found.members()}"
        time.sleep(0.03)


def until_state(fleet: Fleet, rollout: str, state: str) -> Fields:
    return until(fleet, rollout, lambda found: found.text("state") == state)


def until_offered(fleet: Fleet, rollout: str, number: int) -> list[str]:
    """The devices of phase `number`, once all of them have been offered the release."""

    def offered(found: Fields) -> bool:
        return found.objects("phases")[number].object("evidence").integer("waiting") == 0

    devices = until(fleet, rollout, offered).objects("devices")
    return [device.text("device") for device in devices if device.integer("phase") == number]


def install(fleet: Fleet, devices: Sequence[PretendDevice], release: str) -> str:
    """Roll `release` out to every device at once; all take it."""
    rollout = start(fleet, release, phases=[phase("everyone", 100)])
    until_offered(fleet, rollout, 0)
    for device in devices:
        device.take_all()
    until_state(fleet, rollout, "SUCCEEDED")
    return rollout


def build(fleet: Fleet) -> Scene:
    """The whole scene, through the real ports."""
    devices = {name: PretendDevice.enrol(fleet, name, site) for name, site in NAMES}
    for version in (1, 2):
        push(fleet, version)
    for device in devices.values():
        device.report()
    done = install(fleet, list(devices.values()), "wdbc-risk@1")
    phases = [phase("canary", 25), phase("half", 60, 600), phase("everyone", 100)]
    target: dict[str, JsonValue] = {"sites": ["north", "south", "icu"]}  # who joins elsewhere is not drawn in
    half_way = start(fleet, "wdbc-risk@2", name="spring", phases=list(phases), target=target)
    for name in until_offered(fleet, half_way, 0):
        devices[name].take_all()
    first, second, unwell, *_ = until_offered(fleet, half_way, 1)
    devices[first].take_all()
    devices[second].step(UpdateState.DOWNLOADING, progress_percent=40)
    poorly = devices[unwell]
    alarms = f"disk_low {'w' * 120}"
    poorly.health = dataclasses.replace(poorly.health, alarms=alarms, outbox_records=812, outbox_oldest_s=7300)
    poorly.report()
    devices[first].deliver(latencies(), wall_us=int(time.time() * 1e6))
    waiting = ask(fleet, {"release": "wdbc-risk@1", "supersedes": half_way, "target": target})
    return Scene(devices=devices, done=done, half_way=half_way, waiting=waiting.id, stopped=_stopped(fleet))


def _stopped(fleet: Fleet) -> str:
    """One of two devices refuses the release; the rollout waits for a person. All names are as long as they may be."""
    names = ("lab-1", f"lab-{'2' * 60}")
    devices = {name: PretendDevice.enrol(fleet, name, "lab") for name in names}
    phases: list[JsonValue] = [phase("p" * 64, 50), phase("rest", 100)]
    spec: dict[str, JsonValue] = {"name": "t" * 100, "target": {"sites": ["lab"]}, "on_failure": "pause"}
    rollout = start(fleet, "wdbc-risk@2", phases=phases, **spec)
    for name in until_offered(fleet, rollout, 0):
        devices[name].step(
            UpdateState.REJECTED, reason="golden_mismatch", detail="golden case 3 of 24: risk differs by 0.41"
        )
    until_state(fleet, rollout, "PAUSED")
    return rollout


def latencies() -> list[int]:
    """What a device's answers look like: fast, a few slower, one beyond the budget."""
    return [260 + (number * 37) % 170 + (2400 if number % 41 == 0 else 0) for number in range(399)] + [12_400]
