"""The smallest bedside application lives through a device that is killed and started again, over every way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeward_contract.artifact import sha256_of_file
from support.models import ROOT, wdbc_release
from support.serving import ask, device, wait_until


@pytest.mark.parametrize("way", ["tcp", "unix", "frames"])
def test_it_goes_on_when_the_device_comes_back(tmp_path: Path, way: str) -> None:
    folder = wdbc_release(2)
    entry = {"name": "wdbc-risk", "version": 2, "sha256": sha256_of_file(folder / "manifest.json"), "path": str(folder)}
    with device(tmp_path / "d", with_frames=True) as made:
        (made.folder / "boot.json").write_text(json.dumps({"models": [entry]}))
        made.start()
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        unix = f"unix:{made.unix_path}"
        address = {"tcp": f"http://127.0.0.1:{made.port}", "unix": unix, "frames": f"frames:{made.frames_path}"}[way]
        command = [sys.executable, str(ROOT / "examples/bedside_risk.py"), "--device", address]
        command += ["--http", unix] if way == "frames" else []
        command += ["--seconds", "100000", "--every", "0.02"]
        log = tmp_path / "log"
        with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as running:
            try:
                wait_until(lambda: log.read_text().count("risk 0.") + log.read_text().count("risk 1.") >= 3)
                made.kill()
                wait_until(lambda: "no answer" in log.read_text())
                made.start()
                seen = log.read_text().count("version 2")
                wait_until(lambda: log.read_text().count("version 2") >= seen + 3)
                assert running.poll() is None
            finally:
                running.kill()
    assert "Traceback" not in log.read_text()
