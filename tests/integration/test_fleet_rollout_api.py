"""Rollouts by REST over real TLS: who may do what, what is told, and a fleet that is killed in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeward_contract.schema import JsonValue
from edgeward_fleet.accounts.model import Role
from support.fleet import EnrolledDevice, Fleet, fleet_process, running_fleet
from support.fleet_https import detail, push, simulated, start_rollout
from support.rehearsal import Behaviour, SimulatedDevice
from support.waiting import until

QUICK: list[JsonValue] = [
    {"name": "canary", "devices": 1, "soak_s": 0},
    {"name": "everyone", "percent": 100, "soak_s": 0},
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        push(running, 1)
        push(running, 2)
        yield running


def show(fleet: Fleet, rollout: str) -> dict[str, Any]:
    found: dict[str, Any] = fleet.client(Role.VIEWER).get(f"/rollouts/{rollout}").json()
    return found


def play_until(fleet: Fleet, rollout: str, devices: list[SimulatedDevice], *states: str) -> dict[str, Any]:
    """Let the devices turn until the rollout is in one of `states`."""

    def decided() -> bool:
        for device in devices:
            asyncio.run(device.turn())
        return show(fleet, rollout)["state"] in states

    until(decided, f"the rollout to be {' or '.join(states)}")
    return show(fleet, rollout)


def site_with(fleet: Fleet, site: str, size: int = 3) -> list[SimulatedDevice]:
    """Devices of a site of their own that run version 1."""
    devices = [simulated(fleet, fleet.enrol(f"{site}-{number}", site)) for number in range(size)]
    rollout = start_rollout(
        fleet, "risk@1", target={"sites": [site]}, phases=[{"name": "all", "percent": 100, "soak_s": 0}]
    )
    play_until(fleet, rollout, devices, "SUCCEEDED")
    return devices


def test_a_rollout_from_the_request_to_its_end(fleet: Fleet) -> None:
    devices = site_with(fleet, "a")
    rollout = start_rollout(fleet, "risk@2", target={"sites": ["a"]}, phases=QUICK, name="spring")
    done = play_until(fleet, rollout, devices, "SUCCEEDED")
    assert (done["release"], done["name"], done["created_by"], done["approved_by"]) == (
        "risk@2",
        "spring",
        "operator",
        "approver",
    )
    assert (done["finished"], done["can"], done["step"]) == (True, ["roll_back"], None)
    assert [(phase["name"], phase["status"], phase["evidence"]["succeeded"]) for phase in done["phases"]] == [
        ("canary", "passed", 1),
        ("everyone", "passed", 2),
    ]
    assert done["phases"][1]["evidence"]["failure_bound_percent"] == pytest.approx(77.64, abs=0.01)
    assert done["counts"] == {"SUCCEEDED": 3}
    assert {device["former"] for device in done["devices"]} == {"risk@1"}
    release = fleet.client(Role.VIEWER).get("/releases/risk/2").json()
    assert release["devices"]["current"] == release["devices"]["desired"] == 3
    listed = fleet.client(Role.VIEWER).get("/rollouts", params={"model": "risk"}).json()["items"]
    assert listed[0]["id"] == rollout


def test_a_bad_release_goes_back_and_the_answer_says_why(fleet: Fleet) -> None:
    devices = site_with(fleet, "b")
    bad = push(fleet, 3)
    for device in devices:
        device.bad[bad.sha256] = Behaviour.REJECTS
    rollout = start_rollout(fleet, "risk@3", target={"sites": ["b"]}, phases=QUICK)
    done = play_until(fleet, rollout, devices, "ROLLED_BACK")
    assert done["reason"].startswith("1 of 1 device of phase 'canary' failed (golden_mismatch); at most 0 % may")
    assert done["phases"][0]["evidence"]["reasons"] == {"golden_mismatch": 1}
    assert sorted(device["standing"] for device in done["devices"]) == ["FAILED", "WAITING", "WAITING"]
    assert done["not_proven_back"] == []
    timeline = fleet.client(Role.VIEWER).get(f"/rollouts/{rollout}/events").json()["items"]
    assert [line["kind"] for line in timeline if line["actor"] == "system"][-3:] == [
        "failed_roll_back",
        "taken_back",
        "all_proven_back",
    ]
    events = fleet.client(Role.VIEWER).get(f"/devices/{done['devices'][0]['device']}").json()["events"]
    assert any(event["kind"] == "update" for event in events)


def test_commands_and_their_words(fleet: Fleet) -> None:
    devices = site_with(fleet, "c")
    operator = fleet.client(Role.OPERATOR)
    rollout = start_rollout(fleet, "risk@2", target={"sites": ["c"]}, phases=QUICK)
    until(lambda: show(fleet, rollout)["state"] == "PROGRESSING", "the start")
    paused = operator.post(f"/rollouts/{rollout}/pause", json={"reason": "lunch"}).json()
    assert (paused["state"], paused["reason"]) == ("PAUSED", "lunch")
    again = operator.post(f"/rollouts/{rollout}/pause")
    assert again.status_code == 409
    assert "expected a state in which 'pause' is possible, it is PAUSED" in detail(again)
    assert operator.post(f"/rollouts/{rollout}/resume").json()["state"] == "PROGRESSING"
    play_until(fleet, rollout, devices, "SUCCEEDED")
    operator.post(f"/rollouts/{rollout}/rollback", json={"reason": "second thoughts"})
    done = play_until(fleet, rollout, devices, "ROLLED_BACK")
    assert done["reason"] == "second thoughts; rolled back on 3 devices"
    assert {device.live[0].version for device in devices if device.live} == {1}
    actions = [
        (entry["actor"], entry["action"])
        for entry in fleet.client(Role.VIEWER).get("/audit?limit=1000").json()["items"]
        if entry["subject"] == rollout
    ]
    for expected in (
        ("operator", "rollout.create"),
        ("approver", "rollout.approve"),
        ("operator", "rollout.pause"),
        ("operator", "rollout.resume"),
        ("operator", "rollout.roll_back"),
        ("system", "rollout.all_proven_back"),
    ):
        assert expected in actions


def test_roles_and_four_eyes(fleet: Fleet) -> None:
    site_with(fleet, "d", 1)
    spec: dict[str, JsonValue] = {"release": "risk@2", "target": {"sites": ["d"]}}
    assert fleet.client(Role.VIEWER).post("/rollouts", json=spec).status_code == 403
    made = fleet.client(Role.ADMIN).post("/rollouts", json=spec).json()
    assert made["state"] == "AWAITING_APPROVAL"
    allowed = {"spec_sha256": made["spec_sha256"]}
    path = f"/rollouts/{made['id']}/approve"
    assert fleet.client(Role.OPERATOR).post(path, json=allowed).status_code == 403
    own = fleet.client(Role.ADMIN).post(path, json=allowed)
    assert own.status_code == 403
    assert "expected somebody other than its author to approve it, admin wrote it" in detail(own)
    assert fleet.client(Role.APPROVER).post(path, json={"spec_sha256": "0" * 64}).status_code == 409
    assert fleet.client(Role.APPROVER).post(path, json={}).status_code == 422
    assert fleet.client(Role.VIEWER).post(f"/rollouts/{made['id']}/abort").status_code == 403
    assert fleet.client(Role.OPERATOR).post(f"/rollouts/{made['id']}/abort").status_code == 200


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({"release": "risk@2", "target": {"sites": ["nowhere"]}}, 422, "target: matches no device (sites nowhere"),
        ({"release": "risk@99"}, 422, "release: expected a registered one, there is no risk@99"),
        ({"release": "risk@2", "pahses": []}, 400, "pahses: expected one of"),
        ({}, 400, "release: expected a value, got nothing"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(fleet: Fleet, spec: dict[str, JsonValue], status: int, words: str) -> None:
    answer = fleet.client(Role.OPERATOR).post("/rollouts", json=spec)
    assert answer.status_code == status
    assert words in detail(answer)


def test_an_unknown_rollout_is_not_found(fleet: Fleet) -> None:
    for path in ("/rollouts/r-nothing", "/rollouts/r-nothing/events"):
        assert fleet.client(Role.VIEWER).get(path).status_code == 404


def test_a_fleet_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with fleet_process(tmp_path) as (fleet, process):
        push(fleet, 1)
        push(fleet, 2)
        enrolled = [fleet.enrol(f"bed-{number}") for number in range(3)]
        devices = [simulated(fleet, each) for each in enrolled]
        first = start_rollout(fleet, "risk@1", phases=[{"name": "all", "percent": 100, "soak_s": 0}])
        play_until(fleet, first, devices, "SUCCEEDED")
        rollout = start_rollout(fleet, "risk@2", phases=QUICK)
        until(lambda: show(fleet, rollout)["step"] == "OFFERING", "the first offer")
        offered = {device["device"]: device["deployment"] for device in show(fleet, rollout)["devices"]}
        process.kill()
        process.wait(10)
    with fleet_process(tmp_path) as (fleet, _):
        assert {device["device"]: device["deployment"] for device in show(fleet, rollout)["devices"]} == offered
        devices = [again(fleet, *each) for each in zip(enrolled, devices, strict=True)]
        done = play_until(fleet, rollout, devices, "SUCCEEDED")
        assert done["counts"] == {"SUCCEEDED": 3}
        assert [len(device.fetched) for device in devices] == [1, 1, 1]


def again(fleet: Fleet, enrolled: EnrolledDevice, before: SimulatedDevice) -> SimulatedDevice:
    """The same device, as it was, towards the ports that the fleet has now."""
    device = simulated(fleet, enrolled)
    device.live, device.update = before.live, before.update
    device.generation, device.boot, device.sequence = before.generation, before.boot, before.sequence
    return device
