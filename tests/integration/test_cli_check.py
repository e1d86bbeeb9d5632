"""From a file to a release that devices would take, with the program that devices run."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeward_contract.manifest import Manifest
from edgeward_fleet.cli.app import invoke
from support.models import wdbc_release
from support.onnx_files import risk_model, some_features


def test_a_good_release_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(("model", "check", str(wdbc_release(2)), "--json")) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["release"], verdict["verdict"], verdict["cases"]) == ("wdbc-risk@2", "ok", 24)


def test_swapped_columns_are_refused_with_the_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(("model", "check", str(wdbc_release(3)))) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: wdbc-risk@3: refused (golden_mismatch): golden case ")


def test_a_model_that_kills_its_process_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe itself dies of it: not its child, but the command that we run."""
    killer = executable(tmp_path / "python", "#!/bin/sh\nkill -SEGV $$\n")
    monkeypatch.setattr(sys, "executable", str(killer))
    assert invoke(("model", "check", str(wdbc_release(2)))) == 1
    assert "the device's check cannot run here: it ended with -11 and said nothing" in capsys.readouterr().err


def test_without_the_runtime_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "error: onnxruntime is not installed\\n  pip install 'edgeward[agent]'\\n"
    lacking = executable(tmp_path / "python", f'#!/bin/sh\nprintf "{words}" >&2\nexit 2\n')
    monkeypatch.setattr(sys, "executable", str(lacking))
    assert invoke(("model", "check", str(wdbc_release(2)))) == 1
    assert capsys.readouterr().err == (
        "error: the device's check cannot run here: onnxruntime is not installed\n  pip install 'edgeward[agent]'\n"
    )


def test_a_changed_file_never_reaches_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = shutil.copytree(wdbc_release(2), tmp_path / "release")
    (release / "model.onnx").write_bytes((wdbc_release(1) / "model.onnx").read_bytes())
    assert invoke(("model", "check", str(release))) == 1
    assert "model.onnx: expected sha256 " in capsys.readouterr().err


def test_what_is_packed_is_what_devices_accept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "inputs.npz", allow_pickle=False, features=some_features())
    model, out = risk_model(tmp_path / "m.onnx"), tmp_path / "release"
    options = ("--name", "tiny", "--version", "7", "--golden-inputs", str(tmp_path / "inputs.npz"), "--out", str(out))
    more = ("--budget", "5ms", "--capture", "durable", "--labels", "risk=probability", "--summary", "A tiny one.")
    assert invoke(("model", "pack", str(model), *options, *more)) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Packed tiny@7 into {out} (sha256 ")
    assert "features FP32[-1, 3] → risk FP32[-1, 1]" in told
    manifest = Manifest.parse((out / "manifest.json").read_bytes())
    assert (manifest.budget.latency_us, manifest.capture.mode.value) == (5000, "durable")
    assert (manifest.outputs[0].labels, manifest.summary) == (("probability",), "A tiny one.")
    assert invoke(("model", "check", str(out))) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "expected --golden or --golden-inputs, one of them"),
        (("--golden", "a", "--golden-inputs", "b"), "expected --golden or --golden-inputs, one of them"),
        (("--golden", "a.npz", "--budget", "10"), "expected a time with its unit"),
        (("--golden", "a.npz", "--labels", "risk"), "--labels: expected OUTPUT=A,B,…, got 'risk'"),
    ],
)
def test_a_pack_that_is_not_understood(
    tmp_path: Path, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(risk_model(tmp_path / "m.onnx"))
    assert (
        invoke(("model", "pack", model, "--name", "x", "--version", "1", "--out", str(tmp_path / "o"), *options)) == 2
    )
    assert words in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--name", "x", "--version", "1", "--golden", "none.npz", "--out", str(tmp_path / "o"))
    assert invoke(("model", "pack", "none.onnx", *options)) == 1
    assert capsys.readouterr().err.startswith("error: none.onnx: No such file or directory\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`edgeward … | head -0`: the pipe is closed before the first line."""
    shell = f"{sys.executable} -c 'from edgeward_fleet.cli import main; main()' model check {wdbc_release(2)} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
