"""Prepared graphs: made by a real child in its box, published whole or not at all, taken up by the serving process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeward_agent.clock import SystemClock
from edgeward_agent.ports import LoadedVersion, ProbeReason, ProbeVerdict, ServedModel, ServingState
from edgeward_agent.serving.release import Loading, Version, load_release
from edgeward_agent.update.confinement import Limits
from edgeward_agent.update.graphs import Caretaker, GraphFolder, GraphPreparer, PreparingProbe, wanting
from edgeward_agent.update.probe import ChildProbe
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.manifest import Manifest
from edgeward_contract.serving_options import Batching, ServingOptions
from edgeward_contract.traffic import Traffic
from support.onnx_files import save
from support.update_onnx import golden, release

PLENTY = 1 << 40


@dataclass(kw_only=True)
class Scene:
    """The two folders of a state folder that matter here."""

    root: Path
    free: int = PLENTY
    limits: Limits = field(default_factory=Limits)

    @property
    def preparer(self) -> GraphPreparer:
        folder = GraphFolder(root=self.root / "graphs")
        return GraphPreparer(
            folder=folder, limits=self.limits, timeout_s=120, reserve_bytes=0, free_bytes=lambda _: self.free
        )

    def install(self, **parts: object) -> Path:
        """A release folder under its digest, as the updater keeps it."""
        (self.root / "releases").mkdir(exist_ok=True)
        made = release(self.root / "new", **parts)  # type: ignore[arg-type]
        manifest = Manifest.parse((made / "manifest.json").read_bytes())
        return made.rename(self.root / "releases" / manifest.sha256())

    def files(self, folder: Path) -> list[str]:
        return sorted(each.name for each in (self.root / "graphs" / folder.name).iterdir())

    def load(self, folder: Path) -> Version:
        return load_release(ModelName("risk"), Sha256(folder.name), 1, folder, Loading(graphs=self.root / "graphs"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(root=tmp_path)


def test_what_passes_the_probe_is_prepared_and_taken_up(scene: Scene) -> None:
    folder = scene.install(serving=ServingOptions(batching=Batching(max_rows=4)))
    probe = PreparingProbe(probe=ChildProbe(), preparer=scene.preparer)
    assert asyncio.run(probe.examine(folder)).ok
    assert [name.partition(".")[2] for name in scene.files(folder)] == ["onnx", "sha256"]
    assert scene.load(folder).graph_note == ""


def test_what_fails_the_probe_is_not_prepared(scene: Scene) -> None:
    folder = scene.install()
    (folder / "golden.npz").write_bytes(b"")
    probe = PreparingProbe(probe=ChildProbe(), preparer=scene.preparer)
    assert asyncio.run(probe.examine(folder)).reason is ProbeReason.MANIFEST_MISMATCH
    assert not (scene.root / "graphs").exists()


def test_a_graph_is_prepared_again_over_the_one_of_another_runtime(scene: Scene) -> None:
    folder = scene.install()
    old = scene.root / "graphs" / folder.name
    old.mkdir(parents=True)
    for name in ("0" * 32 + ".onnx", "0" * 32 + ".sha256", "partial"):
        (old / name).write_text("old")
    assert asyncio.run(scene.preparer.prepare(folder)) == ""
    assert len(scene.files(folder)) == 2
    assert "0" * 32 + ".onnx" not in scene.files(folder)


def _large_constant(path: Path) -> bytes:
    """A few bytes that constant folding would turn into 64 MiB."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [4096, 4096])
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["large"]),
            helper.make_node("MatMul", ["features", "large"], ["wide"]),
            helper.make_node("ReduceSum", ["wide"], ["risk"], keepdims=1),
        ],
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4096])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, [1, 1])],
        [shape],
    )
    return save(path, graph).read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scene, folder: setattr(scene, "free", 1), "bytes free on the disk of the state folder, got 1"),
        (lambda scene, folder: (folder / "model.onnx").write_text("x"), "expected the file that its manifest names"),
        (lambda scene, folder: (folder / "model.onnx").unlink(), "expected to write"),
        (lambda scene, folder: (folder / "golden.npz").unlink(), "golden.npz"),
        (lambda scene, folder: setattr(scene, "limits", Limits(cpu_s=0)), "it died of SIG"),
    ],
    ids=["no room", "another file", "no file", "no golden set", "no time"],
)
def test_what_cannot_be_prepared_leaves_nothing_and_says_why(
    scene: Scene, change: Callable[[Scene, Path], object], words: str
) -> None:
    folder = scene.install()
    change(scene, folder)
    assert words in asyncio.run(scene.preparer.prepare(folder))
    assert not (scene.root / "graphs" / folder.name).exists() or scene.files(folder) == []


def test_a_small_file_cannot_become_a_large_one(scene: Scene, tmp_path: Path) -> None:
    folder = scene.install(model=_large_constant(tmp_path / "m.onnx"))
    problem = asyncio.run(scene.preparer.prepare(folder))
    assert problem
    assert scene.files(folder) == []


def test_a_graph_that_answers_otherwise_is_not_kept(scene: Scene) -> None:
    arrays = golden()
    arrays["output:risk"] = arrays["output:risk"].astype(np.float32) + np.float32(0.1)
    folder = scene.install(arrays=arrays)
    problem = asyncio.run(scene.preparer.prepare(folder))
    assert problem.startswith("the optimised graph answers otherwise: golden case 0 of 5: risk[0, 0]: expected")
    assert scene.files(folder) == []


def test_a_provider_that_compiles_for_itself_needs_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scene.install(serving=ServingOptions(providers=("cpu", "xnnpack")))
    # Whether the installed runtime has it decides: without, the release runs on the CPU, whose graph can be kept.
    assert asyncio.run(scene.preparer.prepare(folder)) == ""
    assert scene.load(folder).session.providers.fallback


def test_a_cancelled_preparation_leaves_no_child(scene: Scene) -> None:
    folder, before = scene.install(), _children()

    async def main() -> None:
        task = asyncio.create_task(scene.preparer.prepare(folder))
        partial = scene.root / "graphs" / folder.name
        while not partial.exists():  # noqa: ASYNC110  # the system tells no one
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert _children() <= before
    assert scene.files(folder) == []


def _children() -> set[str]:
    """Of this process, those included that have ended and that nobody has waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


# -- the caretaker


def _state(release: Path, note: str) -> ServingState:
    version = LoadedVersion(version=1, sha256=Sha256(release.name), graph_note=note)
    served = ServedModel(live=version, loaded=(version,), traffic=Traffic())
    return ServingState(pid=1, started_us=1, models={ModelName("risk"): served})


def test_only_what_could_be_prepared_is_wanted(tmp_path: Path) -> None:
    assert wanting(None) == []
    found = {note: bool(wanting(_state(tmp_path, note))) for note in ("", "none", "missing", "damaged", "refused")}
    assert found == {"": False, "none": False, "missing": True, "damaged": True, "refused": True}


def test_a_release_that_is_served_from_its_original_is_prepared_once_and_old_graphs_go(scene: Scene) -> None:
    folder = scene.install()
    gone = scene.root / "graphs" / "gone"
    gone.mkdir(parents=True)
    caretaker = Caretaker(
        scene.preparer, scene.root / "releases", lambda: _state(folder, "missing"), clock=SystemClock()
    )
    asyncio.run(caretaker.look())
    assert scene.load(folder).graph_note == ""
    assert not gone.exists()
    for each in (scene.root / "graphs" / folder.name).iterdir():
        each.unlink()
    asyncio.run(caretaker.look())
    assert scene.files(folder) == []


def test_the_verdict_of_the_probe_is_what_counts(scene: Scene) -> None:
    folder = scene.install()
    scene.free = 0
    verdict = asyncio.run(PreparingProbe(probe=ChildProbe(), preparer=scene.preparer).examine(folder))
    assert isinstance(verdict, ProbeVerdict)
    assert verdict.ok
