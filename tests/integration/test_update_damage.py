"""A current release whose files are not what they were: it is fetched again, and what still answers goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeward_agent.errors import LinkRefused
from edgeward_agent.update.inspector import Inspector
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_contract.artifact import Sha256
from edgeward_contract.reported import UpdateState
from support.update import MODEL, Device, FakeClock, Release, desired, first_committed, lost, names_in

FILES = ("golden.npz", "manifest.json", "model.onnx")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with closing(Device(tmp_path)) as device:
        yield device


@pytest.fixture
def one(device: Device) -> Release:
    return first_committed(device)


def folder(device: Device, release: Release) -> Path:
    return device.state_dir / "releases" / release.sha256


def truncate(device: Device, release: Release, name: str = "model.onnx") -> None:
    path = folder(device, release) / name
    path.write_bytes(path.read_bytes()[:100])


def flip(device: Device, release: Release, name: str = "model.onnx") -> None:
    path = folder(device, release) / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def alarms(device: Device) -> list[str]:
    return list(device.updater.alarms)


def good(device: Device, release: Release) -> bool:
    return ReleaseFolders(device.state_dir).problem(release.sha256) is None


@pytest.mark.parametrize("name", FILES)
def test_a_release_that_does_not_load_any_more_is_fetched_again(device: Device, one: Release, name: str) -> None:
    truncate(device, one, name)
    device.power_cut()
    device.run_until(lambda: device.state() is UpdateState.OFFERED)
    assert alarms(device) == [f"damaged:{MODEL}", f"not-live:{MODEL}"]
    device.settle()
    status = device.status()
    assert status and (status.deployment, status.state) == ("d1", UpdateState.COMMITTED)
    assert (device.live(), alarms(device), good(device, one)) == (one.manifest.release, [], True)
    assert names_in(device.state_dir / "releases") == [one.sha256]


def test_a_device_without_its_model_is_not_ready(device: Device, one: Release) -> None:
    assert device.updater.ready
    truncate(device, one)
    device.source.faults = [lost()] * 1000
    device.power_cut()
    device.run_until(lambda: device.updater.serving_state is not None)
    assert device.updater.ready is False
    device.source.faults = []
    device.run_until(lambda: device.updater.ready)
    assert device.live() == one.manifest.release


def test_a_file_that_is_gone_is_fetched_again(device: Device, one: Release) -> None:
    (folder(device, one) / "model.onnx").unlink()
    device.power_cut()
    device.run_until(lambda: device.live() == one.manifest.release)
    assert good(device, one)


def test_a_new_rollout_of_a_damaged_release_fetches_it(device: Device, one: Release) -> None:
    truncate(device, one)
    device.kill()
    device.serving.boot()
    device.start()
    device.deploy(2, "d2", one)
    status = device.status()
    assert status and (status.deployment, status.state) == ("d2", UpdateState.COMMITTED)
    assert (device.live(), good(device, one)) == (one.manifest.release, True)


def test_what_still_answers_from_its_graph_goes_on_while_the_link_is_lost(device: Device, one: Release) -> None:
    device.serving.graphs.add(one.sha256)
    flip(device, one)
    device.source.faults = [lost()] * 1000
    device.updater.suspect(one.sha256, "model.onnx: another digest")
    device.run_until(lambda: device.state() is UpdateState.DOWNLOADING)
    assert alarms(device) == [f"damaged:{MODEL}"]
    device.power_cut()
    assert device.live() == one.manifest.release
    device.source.faults = []
    device.settle()
    assert (device.state(), device.live(), good(device, one)) == (UpdateState.COMMITTED, one.manifest.release, True)
    assert alarms(device) == []


def test_a_kill_while_the_files_are_put_in_place_is_survived(
    device: Device, one: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(device, one)
    truncate(device, one, "golden.npz")
    replace = Path.replace

    def once(self: Path, target: Path) -> Path:
        if target.parent == folder(device, one):
            monkeypatch.undo()
            replace(self, target)
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", once)
    device.power_cut()
    with pytest.raises(KeyboardInterrupt):
        device.run_until(lambda: good(device, one))
    device.power_cut()
    device.settle()
    assert (device.live(), good(device, one)) == (one.manifest.release, True)


def test_a_release_that_the_fleet_has_no_more_stays_an_alarm(
    device: Device, one: Release, caplog: pytest.LogCaptureFixture
) -> None:
    truncate(device, one)
    device.source.faults = [LinkRefused("no", status=404)] * 10
    device.power_cut()
    with caplog.at_level(logging.ERROR):
        device.settle()
        for _ in range(60):
            device.step()
    status = device.status()
    assert status and (status.state, status.reason) == (UpdateState.FAILED, "refused")
    assert alarms(device) == [f"damaged:{MODEL}", f"not-live:{MODEL}"]
    assert [each.message for each in caplog.records] == [
        f"{MODEL}: {MODEL}@1: does not load",
        f"{MODEL}: the release on disk is damaged: {ReleaseFolders(device.state_dir).problem(one.sha256)}",
    ]
    device.source.faults = []
    device.deploy(2, "d2", one)
    assert (device.state(), device.live(), alarms(device)) == (
        UpdateState.COMMITTED,
        one.manifest.release,
        [],
    )


def test_what_loads_no_more_for_another_reason_is_not_fetched(device: Device, one: Release) -> None:
    fetched = len(device.source.calls)
    device.serving.refused.add(one.sha256)
    device.serving.live.clear()
    device.serving.loaded.clear()
    for _ in range(20):
        device.step()
    assert (device.state(), len(device.source.calls)) == (UpdateState.COMMITTED, fetched)
    assert alarms(device) == [f"not-live:{MODEL}"]


def test_a_current_release_that_fails_its_second_trial_stays(device: Device, one: Release) -> None:
    device.serving.graphs.add(one.sha256)
    truncate(device, one)
    device.offer(desired(2, ("d2", one)))
    device.run_until(lambda: device.state() is UpdateState.PROBATION)
    device.serving.bad.add(one.sha256)
    device.settle()
    assert (device.state(), device.live()) == (UpdateState.ROLLED_BACK, one.manifest.release)


class Found:
    """An inspector of one release, and what it told."""

    def __init__(self, device: Device, release: Release) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[Sha256, str]] = []
        self._device = device
        self._inspector = Inspector(
            device.state_dir / "releases",
            current=lambda: (release.sha256,),
            tell=lambda sha256, problem: self.told.append((sha256, problem)),
            clock=self.clock,
        )

    def look(self) -> list[tuple[Sha256, str]]:
        self._device.runner.run(self._inspector.look())
        return self.told


def test_a_file_of_another_size_is_found_at_the_first_look(device: Device, one: Release) -> None:
    found = Found(device, one)
    assert found.look() == []
    truncate(device, one)
    assert found.look() == [(one.sha256, "model.onnx: expected 1000 bytes, got 100")]


def test_a_flipped_bit_is_found_within_a_day(device: Device, one: Release) -> None:
    found = Found(device, one)
    flip(device, one, "golden.npz")
    assert found.look() == []
    found.clock.now += 86_400
    (sha256, problem), *rest = found.look()
    assert (sha256, rest) == (one.sha256, [])
    assert problem.startswith("golden.npz: expected sha256 ")


def test_a_release_is_read_no_more_than_once_a_day(device: Device, one: Release) -> None:
    found = Found(device, one)
    found.clock.now += 86_400
    found.look()
    flip(device, one)
    assert found.look() == []
