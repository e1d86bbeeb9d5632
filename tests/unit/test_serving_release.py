"""From a folder to a version in memory: everything that must agree, and what is said when it does not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeward_agent.errors import ModelError
from edgeward_agent.serving.boot import boot, read_boot
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.opening import providers
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import load_release
from edgeward_agent.serving.session import RunFailed, Session, Tuning
from edgeward_agent.wire.tensors import Array
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.manifest import Datatype, TensorSpec
from support.serving import (
    FEATURES,
    Release,
    constant_model,
    constant_release,
    failing_model,
    identity_model,
    manifest_for,
    sum_model,
    until,
    write_release,
)

TOY = ModelName("toy")


def _load(release: Release) -> None:
    load_release(release.name, release.sha256, release.version, release.folder)


def test_a_release_becomes_a_version(tmp_path: Path) -> None:
    release = constant_release(tmp_path, 7.0, version=3)
    version = load_release(release.name, release.sha256, 3, release.folder)
    assert (version.name, version.version, version.sha256) == ("toy", 3, release.sha256)
    assert version.session.run(["score"], {"features": np.zeros((2, FEATURES), np.float32)})[0].tolist() == [[7], [7]]


@pytest.mark.parametrize(
    "change",
    [{"name": ModelName("other")}, {"version": 9}, {"sha256": Sha256("0" * 64)}],
    ids=["name", "version", "sha"],
)
def test_a_folder_with_another_release_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    release = replace(constant_release(tmp_path, 7.0), **change)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="expected release .*, got toy@1"):
        _load(release)


def _flip_a_bit(folder: Path) -> None:
    model = folder / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "manifest.json").unlink(), "expected a manifest, got: No such file"),
    (lambda folder: (folder / "model.onnx").unlink(), "expected an ONNX file, got: No such file"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "expected JSON, got"),
    (_flip_a_bit, "expected the file that its manifest names"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[words for _, words in DAMAGES])
def test_a_damaged_release_never_answers(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    release = constant_release(tmp_path, 7.0)
    damage(release.folder)
    with pytest.raises(ModelError) as caught:
        _load(release)
    assert words in str(caught.value)


def _tensor(**changes: object) -> list[TensorSpec]:
    return [TensorSpec(**{"name": "features", "datatype": Datatype.FP32, "shape": (-1, FEATURES), **changes})]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (_tensor(name="x"), "expected inputs ['x'] as the manifest says, got ['features']"),
        (_tensor(datatype=Datatype.FP64), "input features: expected FP64, got FP32"),
        (_tensor(shape=(-1, 31)), "input features: expected shape [-1, 31], got [-1, 30]"),
        (_tensor(shape=(-1, -1)), "input features: expected shape [-1, -1], got [-1, 30]"),
        (_tensor(shape=(-1,)), "input features: expected shape [-1], got [-1, 30]"),
    ],
)
def test_a_manifest_that_disagrees_with_the_file_is_refused(
    tmp_path: Path, inputs: list[TensorSpec], words: str
) -> None:
    model = constant_model(tmp_path / "model.onnx", 1.0)
    with pytest.raises(ModelError) as caught:
        _load(write_release(tmp_path, manifest_for(model, "toy", inputs=inputs)))
    assert words in str(caught.value)


def test_a_manifest_may_promise_less_than_the_model_takes(tmp_path: Path) -> None:
    model = constant_model(tmp_path / "model.onnx", 1.0)
    outputs = [TensorSpec(name="score", datatype=Datatype.FP32, shape=(-1, -1))]
    _load(write_release(tmp_path, manifest_for(model, "toy", inputs=_tensor(shape=(1, FEATURES)), outputs=outputs)))


def test_an_output_that_the_model_does_not_give_is_refused(tmp_path: Path) -> None:
    model = constant_model(tmp_path / "model.onnx", 1.0)
    outputs = [TensorSpec(name="score", datatype=Datatype.FP32, shape=(-1, 2))]
    with pytest.raises(ModelError, match=r"output score: expected shape \[-1, 2\], got \[-1, 1\]"):
        _load(write_release(tmp_path, manifest_for(model, "toy", outputs=outputs)))


def test_what_is_not_onnx_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "note.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    for name in ("note.onnx", "empty.onnx"):
        with pytest.raises(ModelError, match=r"expected an ONNX model that loads, got: \S") as caught:
            Session(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="expected an ONNX file, found none"):
        Session(tmp_path)


def test_types_that_clients_cannot_send_are_refused(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["in"], ["out"])],
        "test",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [2])],
        [helper.make_value_info("out", kind)],
    )
    path = tmp_path / "sequence.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(ModelError, match=r"output out: expected a tensor of a type that clients can send, got seq\("):
        Session(path)


def test_bf16_runs_by_its_bits_in_any_shape(tmp_path: Path) -> None:
    for shape, bits in (([2], [0x3F80, 0xFFFF]), ([], 0x3F80), ([0, 3], np.zeros((0, 3)))):
        session = Session(identity_model(tmp_path / "bf16.onnx", TensorProto.BFLOAT16, shape))
        array = np.array(bits, np.uint16)
        (found,) = session.run(["out"], {"in": array})
        assert (found.dtype, found.shape, found.tolist()) == (array.dtype, array.shape, array.tolist())
        session.warm()
        session.close()


def test_a_classifier_with_zipmap_is_told_the_way_out(tmp_path: Path) -> None:
    zipmap = helper.make_node("ZipMap", ["p"], ["out"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        [zipmap],
        "test",
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2])],
        [helper.make_value_info("out", kind)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "zip.onnx")
    with pytest.raises(ModelError, match="export the classifier with zipmap off"):
        Session(tmp_path / "zip.onnx")


def test_a_failing_node_is_the_models_fault_and_a_shape_the_callers(tmp_path: Path) -> None:
    gather = Session(failing_model(tmp_path / "gather.onnx"))
    with pytest.raises(RunFailed, match="the model failed: .*out of data bounds"):
        gather.run(["item"], {"index": np.array([7])})
    adder = Session(sum_model(tmp_path / "sum.onnx"))
    with pytest.raises(Refusal, match="expected inputs that fit the model") as caught:
        adder.run(["sum"], {"a": np.zeros((1, 4), np.int32), "b": np.zeros(4, np.int32)})
    assert caught.value.status == 400


def test_a_tuned_session_answers_the_same_and_says_where_it_runs(tmp_path: Path) -> None:
    path = constant_model(tmp_path / "toy.onnx", 4.0)
    feeds: dict[str, Array] = {"features": np.ones((2, FEATURES), np.float32)}
    assert "CPUExecutionProvider" in providers() and not any("Azure" in each for each in providers())
    for tuning in (Tuning(), Tuning(threads=2)):
        session = Session(path, tuning)
        assert session.provider == "CPUExecutionProvider"
        assert session.run(["score"], feeds)[0].tolist() == [[4.0], [4.0]]


def test_external_data_outside_the_folder_does_not_load(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.zeros(4, np.float32).tobytes())
    folder = tmp_path / "release"
    folder.mkdir()
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../secret.bin")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "test",
        [value("x", TensorProto.FLOAT, [4])],
        [value("y", TensorProto.FLOAT, [4])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="expected an ONNX model that loads"):
        Session(folder / "model.onnx")


# -- what is loaded at start


def test_boot_loads_what_was_committed_and_goes_on_without_what_is_damaged(tmp_path: Path) -> None:
    good, bad = constant_release(tmp_path, 1.0), constant_release(tmp_path, 2.0, name="bad")
    (bad.folder / "model.onnx").write_text("gone")
    listed = {"models": [bad.boot_entry(), good.boot_entry()]}
    (tmp_path / "boot.json").write_text(json.dumps(listed))
    registry = Registry()
    boot(registry, tmp_path / "boot.json")
    assert registry.find("toy", None).sha256 == good.sha256
    assert not registry.ready
    with pytest.raises(Refusal, match="Request for unknown model: 'bad' is not found"):
        registry.find("bad", None)


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"models": 1}', b"\xff"])
def test_boot_does_without_a_list(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "boot.json").write_bytes(content)
    assert read_boot(tmp_path / "boot.json") == []


# -- versions in memory


def test_load_and_activate_are_idempotent_and_the_old_version_drains(tmp_path: Path) -> None:
    one, two = constant_release(tmp_path, 1.0), constant_release(tmp_path, 2.0, version=2)

    async def load(registry: Registry, release: Release) -> None:
        await registry.load(release.name, sha256=release.sha256, version=release.version, path=release.folder)

    async def main() -> None:
        registry = Registry()
        await asyncio.gather(load(registry, one), load(registry, one))
        assert registry.ready  # nobody was promised this model yet
        with pytest.raises(Refusal):
            registry.find("toy", None)
        registry.activate(TOY, one.sha256)
        registry.activate(TOY, one.sha256)
        old = registry.find("toy", None)
        await load(registry, two)
        assert registry.find("toy", None) is old
        assert registry.find("toy", "2").sha256 == two.sha256
        old.begin()
        registry.activate(TOY, two.sha256)
        assert registry.find("toy", None).sha256 == two.sha256
        with pytest.raises(Refusal, match="'toy' version 1 is not found"):
            registry.find("toy", "1")
        await asyncio.sleep(0)
        assert old.session.run(["score"], {"features": np.zeros((1, FEATURES), np.float32)})[0][0, 0] == 1
        old.end()
        await until(lambda: not registry._draining)
        with pytest.raises(ModelError, match="expected a loaded version"):
            registry.activate(TOY, one.sha256)
        registry.unload(TOY, None)
        registry.unload(TOY, None)
        assert registry.ready
        assert not registry.models
        await registry.close()

    asyncio.run(main())


def test_memory_is_given_back_by_those_that_are_still_there(tmp_path: Path) -> None:
    releases = [constant_release(tmp_path, 1.0), constant_release(tmp_path, 2.0, version=2)]

    async def main() -> None:
        registry = Registry()
        for each in releases:
            await registry.load(TOY, sha256=each.sha256, version=each.version, path=each.folder)
        gate = threading.Event()
        registry._loader.submit(gate.wait, 10)  # as a load would, before the first
        shrinking = asyncio.create_task(registry.shrink(TOY))
        await asyncio.sleep(0)
        registry.unload(TOY, releases[1].sha256)
        await until(lambda: not registry.models[TOY].loaded.get(releases[1].sha256))
        gate.set()
        await shrinking
        await registry.close()

    asyncio.run(main())


def test_a_load_that_fails_leaves_the_live_version_alone(tmp_path: Path) -> None:
    one, two = constant_release(tmp_path, 1.0), constant_release(tmp_path, 2.0, version=2)
    (two.folder / "model.onnx").write_text("damaged")

    async def main() -> None:
        registry = Registry()
        await registry.load(TOY, sha256=one.sha256, version=1, path=one.folder)
        registry.activate(TOY, one.sha256)
        with pytest.raises(ModelError):
            await registry.load(TOY, sha256=two.sha256, version=2, path=two.folder)
        assert list(registry.models[TOY].loaded) == [one.sha256]
        registry.unload(TOY, two.sha256)
        assert registry.find("toy", None).sha256 == one.sha256

    asyncio.run(main())


# -- a laptop's files


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is asked of the scheduler")
def test_a_load_interrupts_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        pytest.skip("this run has another policy")
    seen: list[int] = []

    def look(*_: object) -> None:
        seen.append(os.sched_getscheduler(0))
        raise ModelError("enough was seen")

    async def load() -> None:
        registry = Registry()
        with pytest.raises(ModelError, match="enough was seen"):
            await registry.load(TOY, sha256=Sha256("0" * 64), version=1, path=tmp_path)
        await registry.close()

    monkeypatch.setattr("edgeward_agent.serving.registry.load_release", look)
    asyncio.run(load())
    assert seen == [os.SCHED_BATCH]


def test_a_file_is_called_as_its_manifest_says_or_as_itself(tmp_path: Path) -> None:
    plain = constant_model(tmp_path / "my model.onnx", 1.0)
    assert load_file(plain).name == "my model"
    release = constant_release(tmp_path / "r", 2.0, name="named", version=4)
    for path in (release.folder, release.folder / "model.onnx"):
        version = load_file(path)
        assert (version.name, version.version) == ("named", 4)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.onnx: expected an ONNX file, found none"):
        load_file(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match=r"model.onnx: expected an ONNX file, found none"):
        load_file(tmp_path)
