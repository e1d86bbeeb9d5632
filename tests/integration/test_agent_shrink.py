"""`edgeward-agent shrink`: memory comes back on command, and answers go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeward_agent.client import Client
from edgeward_agent.state_dir import StateDir
from support.agent import edgeward_agent
from support.serving import Device, constant_release, device, manifest_for, slow_model, wait_until, write_release

ROW = np.ones((1, 512), np.float32)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Device]:
    path = slow_model(tmp_path / "slow" / "model.onnx", 2)
    with device(tmp_path / "d") as made:
        made.commit(write_release(path.parent, manifest_for(path, "slow")), constant_release(tmp_path, 1.0))
        made.start("--deadlines", "off")
        with Client(f"unix:{made.unix_path}") as asking:
            wait_until(asking.ready)
        link = StateDir(tmp_path).control_socket
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(made.control_path)
        yield made


def _resident_mib(made: Device) -> float:
    assert made.process is not None
    return int(Path(f"/proc/{made.process.pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


def test_what_a_large_request_has_left_behind_comes_back(served: Device, tmp_path: Path) -> None:
    with Client(f"unix:{served.unix_path}", timeout_s=30) as client:
        for rows in (1, 16_000, 1):  # 31 MiB each for what goes in and what lies between
            client.infer("slow", {"in": np.repeat(ROW, rows, axis=0)})
        before = _resident_mib(served)
        done = edgeward_agent("shrink", "--json", "--state-dir", tmp_path)
        assert (done.returncode, json.loads(done.stdout)) == (0, {"shrunk": ["slow", "toy"]})
        assert _resident_mib(served) < before - 25
        assert np.array_equal(client.infer("slow", {"in": ROW})["out"], ROW)


def test_only_what_is_named_shrinks_and_what_is_not_there_is_said(served: Device, tmp_path: Path) -> None:
    done = edgeward_agent("shrink", "toy", "--state-dir", tmp_path)
    assert (done.returncode, done.stdout) == (0, "gave back what was left behind: toy\n")
    done = edgeward_agent("shrink", "toy", "other", "--state-dir", tmp_path)
    assert done.returncode != 0
    assert "expected models of ['slow', 'toy'], got 'other'" in done.stderr
    served.kill()
    done = edgeward_agent("shrink", "--state-dir", tmp_path)
    assert done.returncode != 0
    assert "serving process: expected an answer" in done.stderr and "Traceback" not in done.stderr
