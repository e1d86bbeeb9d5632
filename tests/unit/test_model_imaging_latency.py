"""imaging-latency is built from its seed alone, and is the network that its card describes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeward_agent.ports import ProbeReason
from edgeward_agent.serving.session import Session
from edgeward_agent.update.probe import examine
from edgeward_contract.artifact import sha256_of_file
from edgeward_contract.manifest import CaptureMode
from support.models import MODELS, ROOT, read_arrays, read_manifest

FOLDER = MODELS / "imaging-latency"


def build(folder: Path) -> Path:
    command = [sys.executable, str(FOLDER / "recipe.py"), "--output", str(folder)]
    done = subprocess.run(command, check=False, timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "releases/1"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("imaging"))


@pytest.fixture(scope="module")
def session(release: Path) -> Session:
    return Session(release / "model.onnx")


def test_the_same_seed_gives_the_same_files_and_the_ones_that_the_card_names(release: Path, tmp_path: Path) -> None:
    stale = tmp_path / "releases/1"
    stale.mkdir(parents=True)
    (stale / "model.onnx").write_bytes(b"of another version")
    again = build(tmp_path)
    digests = [{path.name: sha256_of_file(path) for path in sorted(each.iterdir())} for each in (release, again)]
    assert digests[0].keys() == {"golden.npz", "manifest.json", "model.onnx"}
    assert digests[0] == digests[1]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^ +([0-9a-f]{64})  model\.onnx$", card, re.MULTILINE) == [digests[0]["model.onnx"]]


def test_it_has_the_parameters_of_a_mobilenet_v2(release: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    tensors = onnx.load(release / "model.onnx").graph.initializer
    parameters = sum(int(np.prod(each.dims)) for each in tensors if each.name.endswith((".weight", ".bias")))
    assert 3_400_000 < parameters < 3_500_000
    assert f"{parameters:,} parameters" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sum(each.name.endswith(".weight") for each in tensors) == 53  # 52 convolutions and the classifier


def test_the_graph_satisfies_the_checker(release: Path) -> None:
    checker = pytest.importorskip("onnx.checker", reason="onnx is not installed")
    checker.check_model((release / "model.onnx").read_bytes(), full_check=True)


def test_its_manifest_describes_its_tensors_and_claims_no_diagnosis(release: Path, session: Session) -> None:
    manifest = read_manifest(release)
    assert str(manifest.release) == "imaging-latency@1"
    assert [(each.name, each.shape) for each in manifest.inputs] == [("image", (-1, 3, 224, 224))]
    assert [(each.name, each.shape) for each in manifest.outputs] == [("scores", (-1, 1000))]
    assert tuple(session.interface.inputs.values()) == manifest.inputs
    assert tuple(session.interface.outputs.values()) == manifest.outputs
    assert "no diagnosis" in manifest.intended_use
    assert manifest.capture.mode is CaptureMode.OFF


def test_a_device_takes_it(release: Path) -> None:
    verdict = examine(release)
    assert (verdict.reason, verdict.cases) == (ProbeReason.OK, 4), verdict.detail


def test_the_golden_set_tells_its_images_apart(release: Path) -> None:
    """Or a graph that answers one thing to everybody would pass."""
    scores = read_arrays(release / "golden.npz")["output:scores"].astype(np.float64)
    atol = read_manifest(release).golden.tolerances["scores"].atol
    for first in range(len(scores)):
        for second in range(first):
            assert np.abs(scores[first] - scores[second]).max() > 100 * atol


def test_the_batch_is_free(session: Session) -> None:
    images = np.random.default_rng(0).random((2, 3, 224, 224), dtype=np.float32)
    (together,) = session.run(["scores"], {"image": images})
    (alone,) = session.run(["scores"], {"image": images[1:]})
    assert together.shape == (2, 1000)
    assert np.allclose(together[1:].astype(np.float64), alone.astype(np.float64), atol=1e-4)


def test_git_ignores_where_the_recipe_builds() -> None:
    assert 'parent / "build"' in (FOLDER / "imaging_build.py").read_text(encoding="utf-8")
    assert "build/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
