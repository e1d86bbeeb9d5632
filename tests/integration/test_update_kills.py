"""`kill -9` and power cuts between every two things the updater does: each commit and each call of a port."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeward_contract.artifact import ReleaseRef
from edgeward_contract.reported import UpdateState
from edgeward_contract.traffic import Traffic
from support.update import MODEL, Device, PowerCut, Scissors, desired, make_release

Reboot = Callable[[Device], None]


ONE, TWO = make_release(1, size_bytes=500), make_release(2, size_bytes=500)


def prepared(folder: Path) -> Device:
    """Version 1 committed, version 2 offered."""
    device = Device(folder)
    device.source.add(TWO)
    device.deploy(1, "d1", device.source.add(ONE))
    device.offer(desired(2, ("d2", TWO)))
    return device


def run_to_the_end(device: Device, *, errors: bool) -> None:
    """With `errors` the candidate answers badly as soon as it is live."""

    def ended() -> bool:
        if errors and device.live() == ReleaseRef(MODEL, 2):
            device.serving.traffic[MODEL] = Traffic(requests=9, errors=9)
        status = device.status()
        return bool(status and status.deployment == "d2" and status.state in ("COMMITTED", "ROLLED_BACK"))

    device.run_until(ended)
    device.settle()


@pytest.mark.parametrize("errors", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("reboot", [Device.restart, Device.power_cut], ids=["kill", "power-cut"])
def test_a_cut_anywhere_ends_where_it_would_have_ended(tmp_path: Path, reboot: Reboot, errors: bool) -> None:
    places = _places(tmp_path / "whole", errors=errors)
    assert len(places) > 25
    assert {"before a commit", "after a commit", "before fetch chunk", "before examine", "before activate"} <= {*places}
    for cut_at in range(1, len(places) + 1):
        _cut_and_go_on(tmp_path / "cut", cut_at, reboot, errors=errors)
        shutil.rmtree(tmp_path / "cut")


def _places(folder: Path, *, errors: bool) -> list[str]:
    with closing(prepared(folder)) as device:
        device.journal.scissors = device.scissors = Scissors()
        run_to_the_end(device, errors=errors)
        return device.scissors.places


def _cut_and_go_on(folder: Path, cut_at: int, reboot: Reboot, *, errors: bool) -> None:
    with closing(prepared(folder)) as device:
        device.journal.scissors = device.scissors = Scissors(cut_at=cut_at)
        with pytest.raises(PowerCut) as cut:
            run_to_the_end(device, errors=errors)
        where = f"cut {cut.value} (point {cut_at})"
        reboot(device)
        assert device.live() in (ReleaseRef(MODEL, 1), ReleaseRef(MODEL, 2)), where
        if device.updater.generation < 2:  # it had not been stored, so the fleet is asked for it again
            device.offer(desired(2, ("d2", TWO)))
        run_to_the_end(device, errors=errors)
        expected = (UpdateState.ROLLED_BACK, 1) if errors else (UpdateState.COMMITTED, 2)
        assert (device.state(), device.live()) == (expected[0], ReleaseRef(MODEL, expected[1])), where
        current = device.journal.load().slots[MODEL].current
        assert current and current.version == expected[1], where
        device.power_cut()
        assert device.live() == ReleaseRef(MODEL, expected[1]), where
