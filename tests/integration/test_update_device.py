"""The whole updater over a real journal and real folders, with the world behind its ports in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgeward_agent.errors import LinkRefused
from edgeward_agent.ports import ProbeReason
from edgeward_agent.update.chunks import ChunkStore, decode
from edgeward_agent.update.journal import FILE, read_book
from edgeward_agent.update.machine import WORKING
from edgeward_agent.update.releases import DigestMismatch, write_boot_file
from edgeward_agent.update.slots import Slots
from edgeward_contract.artifact import ModelName, ReleaseRef, sha256_of
from edgeward_contract.chunks import Chunk, raw_index
from edgeward_contract.desired import DesiredState
from edgeward_contract.reported import UpdateState
from edgeward_contract.traffic import Traffic
from support.update import (
    MODEL,
    PLENTY,
    QUICK,
    Device,
    Release,
    desired,
    disk_full,
    first_committed,
    lost,
    make_release,
    names_in,
    verdict,
)
from support.waiting import eventually

OTHER = ModelName("other")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with closing(Device(tmp_path)) as device:
        yield device


@pytest.fixture
def one(device: Device) -> Release:
    return first_committed(device)


@pytest.fixture
def two(device: Device) -> Release:
    return device.source.add(make_release(2))


def boots(device: Device) -> list[str]:
    return [each["sha256"] for each in json.loads((device.state_dir / "boot.json").read_text())["models"]]


def offer(device: Device, generation: int, deployment: str, release: Release, *, until: UpdateState) -> None:
    device.offer(desired(generation, (deployment, release)))
    device.run_until(lambda: device.state() is until)


def test_a_release_travels_from_the_fleet_to_the_bedside(device: Device, one: Release, two: Release) -> None:
    device.deploy(2, "d2", two)
    reported = device.reported()
    assert reported.update and reported.live
    assert (reported.update.state, reported.update.deployment, reported.update.attempt) == ("COMMITTED", "d2", 1)
    assert (reported.live.release, reported.live.slot) == (ReleaseRef(MODEL, 2), "current")
    assert boots(device) == [two.sha256]
    assert device.updater.alarms == ()
    assert device.changes > 8


def test_during_probation_a_boot_would_start_the_old_release(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    live = device.reported().live
    assert live is None or live.slot in ("candidate", "current")
    assert device.live() == two.manifest.release
    assert boots(device) == [one.sha256]


def test_only_current_and_previous_stay_on_disk(device: Device, one: Release, two: Release) -> None:
    three = device.source.add(make_release(3))
    device.deploy(2, "d2", two)
    assert names_in(device.state_dir / "releases") == sorted([one.sha256, two.sha256])
    device.deploy(3, "d3", three)
    assert names_in(device.state_dir / "releases") == sorted([two.sha256, three.sha256])
    assert names_in(device.state_dir / "chunks") == []


def test_the_current_release_is_committed_at_once(device: Device, one: Release) -> None:
    fetched = len(device.source.calls)
    device.deploy(2, "d2", one)
    status = device.status()
    assert status and (status.deployment, status.state) == ("d2", UpdateState.COMMITTED)
    assert len(device.source.calls) == fetched


def test_the_previous_release_comes_back_without_a_download(device: Device, one: Release, two: Release) -> None:
    device.deploy(2, "d2", two)
    device.source.faults = [*[lost()] * 50]
    device.deploy(3, "d3", one)
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, one.manifest.release)
    assert len(device.source.faults) == 50
    assert device.probe.examined[-1] == one.sha256


def test_a_previous_release_that_has_rotted_is_fetched_again(device: Device, one: Release, two: Release) -> None:
    device.deploy(2, "d2", two)
    rotten = device.state_dir / "releases" / one.sha256 / "model.onnx"
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"!")
    device.deploy(3, "d3", one)
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, one.manifest.release)
    assert sha256_of(rotten.read_bytes()) == one.manifest.file.sha256


def test_an_older_generation_changes_nothing(device: Device, one: Release, two: Release) -> None:
    device.deploy(5, "d5", two)
    device.offer(desired(4, ("d4", one)))
    device.offer(desired(5, ("d4", one)))
    device.settle()
    assert (device.updater.generation, device.live()) == (5, two.manifest.release)


def test_a_wish_that_comes_while_another_is_stored_is_not_lost(
    device: Device, one: Release, two: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go_on = threading.Event(), threading.Event()
    take = device.journal.take

    def slow(wanted: DesiredState) -> None:
        storing.set()
        assert go_on.wait(10)
        take(wanted)

    async def run() -> None:
        device.offer(desired(2, ("d2", two)))
        step = asyncio.create_task(device.updater.step())
        assert await asyncio.to_thread(storing.wait, 10)
        device.offer(desired(3, ("d3", one)))
        go_on.set()
        await step

    monkeypatch.setattr(device.journal, "take", slow)
    device.runner.run(run())
    assert device.updater.generation == 3
    device.settle()
    stored = device.journal.load().desired
    assert stored is not None and stored.generation == 3


def test_the_generation_is_known_before_the_first_step(device: Device, one: Release) -> None:
    device.restart()
    assert device.updater.generation == 1
    device.offer(desired(1, ("d9", make_release(9))))
    device.settle()
    assert device.live() == one.manifest.release


@pytest.mark.parametrize("state", ["OFFERED", "ACCEPTED", "DOWNLOADING", "VERIFYING", "PROBING"])
def test_a_newer_deployment_supersedes_before_activation(
    device: Device, one: Release, two: Release, state: str
) -> None:
    three = device.source.add(make_release(3))
    offer(device, 2, "d2", two, until=UpdateState(state))
    device.deploy(3, "d3", three)
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, three.manifest.release)
    assert ("load", MODEL, two.sha256) not in device.serving.calls


@pytest.mark.parametrize("state", ["ACTIVATING", "PROBATION"])
def test_a_newer_deployment_takes_a_candidate_back_first(
    device: Device, one: Release, two: Release, state: str
) -> None:
    three = device.source.add(make_release(3))
    offer(device, 2, "d2", two, until=UpdateState(state))
    device.offer(desired(3, ("d3", three)))
    device.run_until(lambda: device.state() is UpdateState.ROLLING_BACK)
    device.settle()
    assert (device.state(), boots(device)) == (UpdateState.COMMITTED, [three.sha256])
    assert two.sha256 not in names_in(device.state_dir / "releases")


def test_going_back_while_on_trial_ends_at_the_old_release(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.deploy(3, "d3", one)
    status = device.status()
    assert status and (status.deployment, status.state) == ("d3", UpdateState.COMMITTED)
    assert device.live() == one.manifest.release


def test_a_model_that_is_not_wanted_leaves_the_device(device: Device, one: Release) -> None:
    device.offer(desired(2))
    device.settle()
    assert (device.live(), boots(device)) == (None, [])
    assert names_in(device.state_dir / "releases") == []
    assert device.updater.reported_models() == {}
    device.deploy(3, "d1", one)
    assert device.live() == one.manifest.release


def test_a_download_of_a_model_that_is_not_wanted_is_cancelled(device: Device, one: Release) -> None:
    other = device.source.add(make_release(1, name=OTHER))
    device.offer(desired(2, ("d1", one), ("d2", other)))
    device.run_until(lambda: device.state(OTHER) is UpdateState.DOWNLOADING)
    device.offer(desired(3, ("d1", one)))
    device.settle()
    assert device.state(OTHER) is UpdateState.CANCELLED
    assert names_in(device.state_dir / "releases") == [one.sha256]
    assert names_in(device.state_dir / "chunks") == []


def test_two_models_do_not_wait_for_each_other(device: Device, one: Release) -> None:
    other = device.source.add(make_release(1, name=OTHER))
    slow = device.source.add(make_release(2, size_bytes=20_000))
    device.offer(desired(2, ("d2", slow), ("d3", other)))
    device.run_until(lambda: device.state(OTHER) is UpdateState.PROBATION)
    assert device.state() is UpdateState.DOWNLOADING
    device.settle()
    assert (device.live(), device.live(OTHER)) == (slow.manifest.release, other.manifest.release)


def test_a_lost_link_keeps_what_has_come(device: Device, one: Release) -> None:
    big = device.source.add(make_release(2, size_bytes=8_000))
    offer(device, 2, "d2", big, until=UpdateState.DOWNLOADING)
    device.run_until(lambda: len(device.source.fetched("chunk")) > 10)
    device.source.faults = [*[lost()] * 30]
    device.run_until(lambda: device.state() is UpdateState.RETRY_WAIT)
    status = device.status()
    assert status and (status.reason, status.detail) == ("link_lost", "expected an answer, the network is gone")
    device.settle()
    assert device.state() is UpdateState.COMMITTED
    chunks = device.source.fetched("chunk")
    assert len(chunks) == len(set(chunks)), "a chunk was fetched twice"


def test_the_wait_grows_and_the_wish_of_the_fleet_is_honoured(device: Device, one: Release, two: Release) -> None:
    device.rand = lambda: 0.999
    device.source.faults = [*[lost()] * 12, lost(retry_after_s=1000.0)]
    began = device.clock.now
    device.deploy(2, "d2", two)
    assert device.state() is UpdateState.COMMITTED
    assert device.clock.now - began > 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256 + 3 * 290 + 1000


def test_progress_is_reported(device: Device, one: Release) -> None:
    big = device.source.add(make_release(2, size_bytes=8_000))
    device.offer(desired(2, ("d2", big)))
    seen: list[int] = []

    def look() -> bool:
        status = device.status()
        if status and status.deployment == "d2":
            seen.append(status.progress_percent)
        return device.state() is UpdateState.VERIFYING

    device.run_until(look)
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert (seen[0], seen[-1]) == (0, 100)


@pytest.mark.parametrize("part", ["manifest", "chunk"])
def test_wrong_bytes_are_fetched_again_and_then_given_up(device: Device, one: Release, two: Release, part: str) -> None:
    wrong = two.sha256 if part == "manifest" else sha256_of(two.files[0][:400])
    device.source.corrupt = {wrong}
    device.deploy(2, "d2", two)
    status = device.status()
    assert status and (status.state, status.reason, status.attempt) == (UpdateState.FAILED, "digest_mismatch", 4)
    assert "expected sha256" in status.detail
    assert len(device.source.fetched(part)) >= 4
    assert (device.live(), boots(device)) == (one.manifest.release, [one.sha256])
    device.source.corrupt = set()
    device.power_cut()
    device.settle()
    assert device.state() is UpdateState.FAILED, "a deployment that was given up is not tried again"
    device.deploy(3, "d3", two)
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, two.manifest.release)


def test_wrong_bytes_once_cost_one_chunk(device: Device, one: Release, two: Release) -> None:
    wrong = sha256_of(two.files[0][:400])
    device.source.corrupt = {wrong}
    offer(device, 2, "d2", two, until=UpdateState.RETRY_WAIT)
    device.source.corrupt = set()
    device.settle()
    assert device.state() is UpdateState.COMMITTED
    assert device.source.fetched("chunk").count(wrong) == 2


def test_an_index_that_lies_is_not_believed_for_ever(device: Device, one: Release, two: Release) -> None:
    """Each chunk is what the index says, and the whole is not what the manifest says."""
    device.source.lie(two, b"x" * len(two.files[0]))
    device.deploy(2, "d2", two)
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.FAILED, "digest_mismatch")
    assert "model.onnx" in status.detail
    assert names_in(device.state_dir / "releases") == [one.sha256], "pieces of a release that was given up take room"
    assert device.probe.examined == [one.sha256]


def test_a_chunk_that_rots_on_disk_is_fetched_again(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.VERIFYING)
    rotten = device.state_dir / "chunks" / sha256_of(two.files[0][:400])
    rotten.write_bytes(b"rot")
    device.settle()
    assert device.state() is UpdateState.COMMITTED
    assert device.source.fetched("chunk").count(sha256_of(two.files[0][:400])) == 2


def test_a_refusal_of_the_fleet_ends_after_a_few_tries(device: Device, one: Release, two: Release) -> None:
    device.source.faults = [LinkRefused("this device may not have it", status=403) for _ in range(10)]
    device.deploy(2, "d2", two)
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.FAILED, "refused")
    assert len(device.source.faults) == 6


def test_a_manifest_of_another_release_fails(device: Device, one: Release, two: Release) -> None:
    state = desired(2, ("d2", two))
    other = replace(state.models[MODEL], release=ReleaseRef(MODEL, 7))
    device.offer(replace(state, models={MODEL: other}))
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.FAILED, "manifest_mismatch")
    assert status.detail == "manifest: expected risk@7, got risk@2"


def test_a_manifest_of_a_newer_schema_is_rejected(device: Device, one: Release, two: Release) -> None:
    newer = two.manifest.canonical().replace(b'"schema":1', b'"schema":2')
    device.source.put(sha256_of(newer), newer)
    state = desired(2, ("d2", two))
    device.offer(replace(state, models={MODEL: replace(state.models[MODEL], sha256=sha256_of(newer))}))
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.REJECTED, "incompatible")


def test_a_model_larger_than_the_device_takes_is_rejected(tmp_path: Path) -> None:
    device = Device(tmp_path, msgspec.structs.replace(QUICK, max_model_bytes=999))
    device.deploy(1, "d1", device.source.add(make_release(1)))
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.REJECTED, "incompatible")
    assert device.source.fetched("chunk") == []
    device.close()


def test_without_room_the_download_waits(device: Device, one: Release, two: Release) -> None:
    device.free = device.settings.disk_reserve_bytes + 100
    offer(device, 2, "d2", two, until=UpdateState.DEFERRED)
    for _ in range(100):
        device.step()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.DEFERRED, "disk")
    assert "bytes free on the disk of the state folder" in status.detail
    assert set(device.source.fetched("chunk")) & {sha256_of(two.files[0][:400])} == set()
    device.free = PLENTY
    device.settle()
    assert device.state() is UpdateState.COMMITTED


def test_a_disk_that_fills_up_on_the_way_is_waited_for(
    device: Device, one: Release, two: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [True, True]
    put = ChunkStore.put

    def fails(store: ChunkStore, chunk: Chunk, data: bytes) -> None:
        if full and full.pop():
            raise disk_full()
        put(store, chunk, data)

    monkeypatch.setattr(ChunkStore, "put", fails)
    offer(device, 2, "d2", two, until=UpdateState.DEFERRED)
    device.settle()
    assert (device.state(), full) == (UpdateState.COMMITTED, [])


@pytest.mark.parametrize("reason", [each for each in ProbeReason if each not in (ProbeReason.OK, ProbeReason.TIMEOUT)])
def test_what_the_probe_refuses_is_never_loaded(
    device: Device, one: Release, two: Release, reason: ProbeReason
) -> None:
    device.probe.verdicts[two.sha256] = [verdict(reason)]
    device.deploy(2, "d2", two)
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.FAILED, reason.value)
    assert ("load", MODEL, two.sha256) not in device.serving.calls
    assert device.live() == one.manifest.release


def test_a_probe_out_of_time_is_repeated(device: Device, one: Release, two: Release) -> None:
    device.probe.verdicts[two.sha256] = [verdict(ProbeReason.TIMEOUT)]
    device.probe.faults = [OSError(11, "Resource temporarily unavailable")]
    device.deploy(2, "d2", two)
    assert device.state() is UpdateState.COMMITTED
    device.probe.verdicts[one.sha256] = [verdict(ProbeReason.TIMEOUT)] * 9
    device.deploy(3, "d3", one)
    status = device.status()
    assert status and (status.state, status.reason, status.attempt) == (UpdateState.FAILED, "timeout", 4)


def test_a_newer_deployment_does_not_wait_for_a_probe(device: Device, one: Release, two: Release) -> None:
    device.probe.endless = {two.sha256}
    offer(device, 2, "d2", two, until=UpdateState.PROBING)
    device.run_until(lambda: two.sha256 in device.probe.examined)
    device.deploy(3, "d3", one)
    assert device.state() is UpdateState.COMMITTED
    assert device.probe.ended == [two.sha256], "the probe goes on"
    assert device.probe.examined.count(two.sha256) == 1


def test_another_model_is_judged_while_one_is_probed(device: Device, one: Release, two: Release) -> None:
    device.probe.endless = {two.sha256}
    other = device.source.add(make_release(1, name=OTHER))
    offer(device, 2, "d2", two, until=UpdateState.PROBING)
    device.offer(desired(3, ("d2", two), ("o1", other)))
    device.run_until(lambda: device.state(OTHER) is UpdateState.COMMITTED, steps=400)
    assert device.state() is UpdateState.PROBING
    assert device.probe.examined.count(two.sha256) == 1


def test_no_probe_is_left_behind(device: Device, one: Release, two: Release) -> None:
    device.probe.endless = {two.sha256}
    offer(device, 2, "d2", two, until=UpdateState.PROBING)

    async def run() -> None:
        task = asyncio.create_task(device.updater.run())
        await eventually(lambda: two.sha256 in device.probe.examined, "a probe")
        task.cancel()
        await asyncio.wait({task})
        assert device.probe.ended == [two.sha256]

    device.runner.run(run())


def test_errors_under_load_roll_back(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.traffic[MODEL] = Traffic(requests=20, errors=6)
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.ROLLED_BACK, "errors")
    assert status.detail == "expected at most 2 % errors, got 6 of 20 requests"
    assert (device.live(), boots(device)) == (one.manifest.release, [one.sha256])
    device.power_cut()
    device.settle()
    assert device.state() is UpdateState.ROLLED_BACK, "a deployment that was taken back is not tried again"
    assert device.live() == one.manifest.release


def test_a_rolled_back_deployment_is_told_again_and_not_tried_again(device: Device, one: Release, two: Release) -> None:
    device.probe.verdicts[two.sha256] = [verdict(ProbeReason.GOLDEN_MISMATCH)]
    device.deploy(2, "d2", two)
    device.deploy(3, "d1", one)
    device.deploy(4, "d2", two)
    status = device.status()
    assert status and (status.deployment, status.state, status.reason) == ("d2", "FAILED", "golden_mismatch")
    device.deploy(5, "d5", two)
    assert device.state() is UpdateState.COMMITTED


def test_a_slow_candidate_rolls_back(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.traffic[MODEL] = Traffic(requests=200, p99_us=10_001)
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.ROLLED_BACK, "latency")


def test_one_crash_is_forgiven_and_the_trial_goes_on(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.boot()
    assert device.live() == one.manifest.release
    device.settle()
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, two.manifest.release)


def test_crashes_up_to_the_limit_roll_back(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.boot()
    device.run_until(lambda: device.live() == two.manifest.release)
    device.serving.boot()
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.ROLLED_BACK, "crashes")
    assert device.live() == one.manifest.release


def test_a_candidate_that_takes_the_server_down_when_it_loads(device: Device, one: Release, two: Release) -> None:
    device.serving.crashes_on_load = {two.sha256}
    device.deploy(2, "d2", two)
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.ROLLED_BACK, "crashes")
    assert device.serving.calls.count(("load", MODEL, two.sha256)) == 2
    assert device.live() == one.manifest.release


def test_crashes_are_remembered_over_restarts_of_the_agent(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.boot()
    device.run_until(lambda: device.live() == two.manifest.release)
    device.restart()
    device.step()
    device.run_until(lambda: device.journal.load().deployments[MODEL].trial.serving_started_us > 0)
    device.serving.boot()
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason, status.attempt) == (UpdateState.ROLLED_BACK, "crashes", 2)


def test_a_device_that_is_switched_off_each_night_still_commits(tmp_path: Path) -> None:
    device = Device(tmp_path, msgspec.structs.replace(QUICK, probation_s=60.0))
    device.deploy(1, "d1", device.source.add(make_release(1)))
    two = device.source.add(make_release(2))
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    for night in range(1, 5):
        for _ in range(40):
            device.step()
        device.power_cut()
        status = device.status()
        assert night == 1 or status is None or status.attempt <= night + 1
    device.settle()
    status = device.status()
    assert status and status.state is UpdateState.COMMITTED
    device.close()


def test_a_candidate_that_takes_the_machine_down_is_given_up(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    for _ in range(device.settings.max_attempts):
        device.power_cut()
        device.step()
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.ROLLED_BACK, "attempts")
    assert device.live() == one.manifest.release


def test_a_probe_that_takes_the_machine_down_is_given_up(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBING)
    for _ in range(device.settings.max_attempts):
        device.power_cut()
        device.step()
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.FAILED, "attempts")
    assert device.probe.examined == [one.sha256]


@pytest.mark.parametrize("state", WORKING)
@pytest.mark.parametrize("reboot", [Device.restart, Device.power_cut])
def test_every_working_state_survives_a_restart(
    device: Device, one: Release, two: Release, state: UpdateState, reboot: object
) -> None:
    if state is UpdateState.DEFERRED:
        device.free = 0
    if state is UpdateState.RETRY_WAIT:
        device.source.faults = [lost()]
    offer(device, 2, "d2", two, until=UpdateState.PROBATION if state is UpdateState.ROLLING_BACK else state)
    if state is UpdateState.ROLLING_BACK:
        device.serving.traffic[MODEL] = Traffic(requests=9, errors=9)
        device.run_until(lambda: device.state() is UpdateState.ROLLING_BACK)
    assert callable(reboot)
    reboot(device)
    assert device.live() in (one.manifest.release, two.manifest.release)
    device.free = PLENTY
    device.settle()
    ended = UpdateState.ROLLED_BACK if state is UpdateState.ROLLING_BACK else UpdateState.COMMITTED
    expected = one if state is UpdateState.ROLLING_BACK else two
    assert (device.state(), device.live()) == (ended, expected.manifest.release)
    assert boots(device) == [expected.sha256]
    chunks = device.source.fetched("chunk")
    assert len(chunks) == len(set(chunks)), "a restart costs no chunk"


def test_a_refused_candidate_rolls_back(device: Device, one: Release, two: Release) -> None:
    device.serving.refused = {two.sha256}
    device.deploy(2, "d2", two)
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.ROLLED_BACK, "load_refused")
    assert device.live() == one.manifest.release


def test_a_first_release_that_fails_leaves_no_model(device: Device) -> None:
    one = device.source.add(make_release(1))
    offer(device, 1, "d1", one, until=UpdateState.PROBATION)
    device.serving.traffic[MODEL] = Traffic(requests=9, errors=9)
    device.settle()
    assert (device.state(), device.live(), boots(device)) == (UpdateState.ROLLED_BACK, None, [])


def test_a_device_that_cannot_go_back_says_so_until_it_can(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.traffic[MODEL] = Traffic(requests=9, errors=9)
    device.serving.refused = {one.sha256}
    device.settle()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.STRANDED, "stranded")
    assert "errors" in status.detail and "does not load" in status.detail
    assert device.updater.alarms == (f"not-live:{MODEL}", f"stranded:{MODEL}")
    device.serving.refused = set()
    device.run_until(lambda: device.live() == one.manifest.release)
    device.settle()
    assert not device.updater.alarms


def test_a_model_that_its_deployment_brings_back_is_no_trouble_any_more(
    device: Device, one: Release, two: Release
) -> None:
    device.serving.refused = {one.sha256}
    device.serving.live.clear()
    device.serving.loaded.clear()
    device.run_until(lambda: device.updater.alarms == (f"not-live:{MODEL}",))
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.serving.refused = set()
    device.serving.traffic[MODEL] = Traffic(requests=9, errors=9)
    device.settle()
    assert (device.state(), device.live()) == (UpdateState.ROLLED_BACK, one.manifest.release)
    assert not device.updater.alarms


def test_the_serving_process_may_be_away_for_long(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.ACTIVATING)
    device.serving.unavailable = 200
    device.run_until(lambda: device.serving.unavailable == 0)
    device.settle()
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, two.manifest.release)


def test_the_current_release_is_brought_back_when_it_is_not_live(device: Device, one: Release) -> None:
    device.serving.live.clear()
    device.serving.loaded.clear()
    device.run_until(lambda: device.live() == one.manifest.release)
    device.settle()
    reported = device.reported().live
    assert reported and reported.slot == "current"


def test_a_boot_file_that_was_not_written_is_written_after_a_restart(device: Device, one: Release) -> None:
    (device.state_dir / "boot.json").unlink()
    device.restart()
    device.settle()
    assert boots(device) == [one.sha256]


def test_who_is_told_of_a_commit_finds_it_in_the_boot_file(
    device: Device, one: Release, two: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power may be cut as soon as somebody knows, and the new release answers after it."""
    told: list[UpdateState | None] = []

    def write(state_dir: Path, slots: Mapping[ModelName, Slots]) -> None:
        before = boots(device)
        write_boot_file(state_dir, slots)
        if boots(device) != before:
            told.append(device.state())

    monkeypatch.setattr("edgeward_agent.update.keeper.write_boot_file", write)
    offer(device, 2, "d2", two, until=UpdateState.PROBATION)
    device.run_until(lambda: device.state() is UpdateState.COMMITTED)
    assert (told, boots(device)) == ([UpdateState.PROBATION], [two.sha256])


def test_a_boot_file_that_cannot_be_written_is_tried_again(
    device: Device, one: Release, two: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = [True]

    def write(state_dir: Path, slots: Mapping[ModelName, Slots]) -> None:
        if fails:
            raise disk_full()
        write_boot_file(state_dir, slots)

    monkeypatch.setattr("edgeward_agent.update.keeper.write_boot_file", write)
    device.deploy(2, "d2", two)
    assert (device.state(), device.updater.alarms) == (UpdateState.COMMITTED, ("boot-file",))
    assert boots(device) == [one.sha256]
    fails.clear()
    device.run_until(lambda: boots(device) == [two.sha256])
    device.step()
    assert not device.updater.alarms


def test_a_chunk_is_what_its_index_says() -> None:
    chunk = raw_index(b"abcdef").chunks[0]
    assert decode(chunk, chunk.stored[0], b"abcdef") == b"abcdef"
    with pytest.raises(DigestMismatch, match="stored chunk at 0: expected sha256 bef57ec7f53a…, got "):
        decode(chunk, chunk.stored[0], b"abcdeg")


def test_a_damaged_journal_is_set_aside_and_the_model_stays(device: Device, one: Release, two: Release) -> None:
    device.kill()
    (device.state_dir / FILE).write_bytes(b"not a database, whatever it was " * 100)
    (device.state_dir / f"{FILE}-wal").unlink(missing_ok=True)
    device.start()
    device.run_until(lambda: device.reported().live is not None)
    assert device.live() == one.manifest.release
    assert [name for name in names_in(device.state_dir) if ".damaged-" in name]
    assert "journal-damaged" in device.updater.alarms
    assert all(what != "unload" for what, _, _ in device.serving.calls)
    device.deploy(2, "d2", two)
    assert (device.state(), device.live()) == (UpdateState.COMMITTED, two.manifest.release)


def test_a_step_that_cannot_be_stored_is_not_acted_on(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.DOWNLOADING)
    device.journal.refusals = 5

    async def run_for_a_while() -> None:
        task = asyncio.create_task(device.updater.run())
        while device.state() is not UpdateState.COMMITTED:
            assert not task.done() or task.result() is None
            await asyncio.sleep(0)
        task.cancel()

    device.runner.run(run_for_a_while())
    assert device.journal.refusals == 0
    assert device.live() == two.manifest.release
    assert device.updater.alarms == ()


def test_a_night_of_sleep_is_no_probation(tmp_path: Path) -> None:
    device = Device(tmp_path, msgspec.structs.replace(QUICK, probation_s=60.0))
    offer(device, 1, "d1", device.source.add(make_release(1)), until=UpdateState.PROBATION)
    for _ in range(10):
        device.step()
    device.clock.now += 8 * 3600  # the clock goes on while the machine is suspended
    for _ in range(10):
        device.step()
    assert device.state() is UpdateState.PROBATION
    device.settle()
    assert device.state() is UpdateState.COMMITTED
    device.close()


def test_a_candidate_that_was_loaded_and_never_live_is_unloaded(device: Device, one: Release, two: Release) -> None:
    offer(device, 2, "d2", two, until=UpdateState.ACTIVATING)
    device.serving.refuses_to_activate = True
    device.settle()
    assert device.state() is UpdateState.ROLLED_BACK
    assert [each.version for each in device.serving.loaded[MODEL]] == [1]


def test_a_serving_process_that_starts_late_is_seen_soon(device: Device, one: Release) -> None:
    device.restart()
    device.serving.unavailable = 1
    began = device.clock.now
    device.run_until(lambda: device.reported().live is not None)
    assert device.clock.now - began <= 2 * device.settings.poll_s < device.settings.watch_s


def test_damaged_bytes_never_reach_the_chunks(device: Device, one: Release, two: Release) -> None:
    device.source.corrupt = {sha256_of(two.files[0][:400])}
    offer(device, 2, "d2", two, until=UpdateState.RETRY_WAIT)
    assert device.source.corrupt & set(names_in(device.state_dir / "chunks")) == set()


def test_status_can_be_read_while_no_agent_runs(tmp_path: Path) -> None:
    assert read_book(tmp_path).slots == {}
    device = Device(tmp_path)
    release = device.source.add(make_release(1))
    device.deploy(1, "d1", release)
    device.close()
    book = read_book(tmp_path)
    current = book.slots[MODEL].current
    assert current and current.sha256 == release.sha256
    assert book.deployments[MODEL].state is UpdateState.COMMITTED
