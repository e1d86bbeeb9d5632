"""A release is made only of a real model, a golden set that it agrees with, and a description without slips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeward_contract.manifest import CaptureMode, Datatype, Manifest, TensorSpec, Tolerance
from edgeward_fleet.packing.errors import FolderRefused, GoldenRefused, NotAModel, SheetRefused
from edgeward_fleet.packing.folder import read_release
from edgeward_fleet.packing.golden import Golden, read_inputs
from edgeward_fleet.packing.pack import GoldenSource, pack
from edgeward_fleet.packing.sheet import Sheet, read_sheet
from edgeward_fleet.packing.tensors import Signature, read_signature
from support.onnx_files import WEIGHTS, expected_risk, risk_model, save, some_features

SHEET = Sheet(name="risk", version=1)
FEATURES = TensorSpec(name="features", datatype=Datatype.FP32, shape=(-1, 3))


def complete_set(path: Path, **arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> GoldenSource:
    features = some_features()
    named = {"input:features": features, "output:risk": expected_risk(features), **arrays}
    np.savez(path, allow_pickle=False, **named)
    return GoldenSource(path=path, compute_outputs=False)


def inputs_alone(path: Path) -> GoldenSource:
    np.savez(path, allow_pickle=False, features=some_features())
    return GoldenSource(path=path, compute_outputs=True)


def test_names_types_and_shapes_come_from_the_file(tmp_path: Path) -> None:
    release = pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")
    (features,), (risk,) = release.manifest.inputs, release.manifest.outputs
    assert (features.name, features.datatype, features.shape) == ("features", Datatype.FP32, (-1, 3))
    assert (risk.name, risk.datatype, risk.shape) == ("risk", Datatype.FP32, (-1, 1))
    assert release.manifest.golden.cases == 5


def test_the_folder_is_a_release_that_reads_back(tmp_path: Path) -> None:
    made = pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")
    assert read_release(tmp_path / "out") == made
    assert Manifest.parse((tmp_path / "out/manifest.json").read_bytes()).canonical() == made.manifest_bytes


def test_a_complete_set_is_kept_byte_for_byte(tmp_path: Path) -> None:
    source = complete_set(tmp_path / "g.npz")
    pack(risk_model(tmp_path / "m.onnx"), source, SHEET, tmp_path / "out")
    assert (tmp_path / "out/golden.npz").read_bytes() == source.path.read_bytes()


def test_computed_outputs_are_the_models_own_and_the_archive_has_no_times(tmp_path: Path) -> None:
    model, source = risk_model(tmp_path / "m.onnx"), inputs_alone(tmp_path / "i.npz")
    first = pack(model, source, SHEET, tmp_path / "first")
    assert pack(model, source, SHEET, tmp_path / "second").manifest_bytes == first.manifest_bytes
    with np.load(tmp_path / "first/golden.npz") as golden:
        np.testing.assert_allclose(golden["output:risk"], expected_risk(some_features()), rtol=1e-5)


def test_a_golden_set_that_disagrees_is_refused_with_the_first_case(tmp_path: Path) -> None:
    wrong = expected_risk(some_features())
    wrong[3] += 0.1
    source = complete_set(tmp_path / "g.npz", **{"output:risk": wrong})
    with pytest.raises(GoldenRefused, match=r"output risk, case 3: expected 0\.\d+, the model gives .* \(1 of 5"):
        pack(risk_model(tmp_path / "m.onnx"), source, SHEET, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_swapped_columns_are_caught_by_the_set(tmp_path: Path) -> None:
    swapped = risk_model(tmp_path / "m.onnx", weights=WEIGHTS[[1, 0, 2]])
    with pytest.raises(GoldenRefused, match="the model gives"):
        pack(swapped, complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")


def test_a_tolerance_of_the_sheet_is_what_counts(tmp_path: Path) -> None:
    near = expected_risk(some_features()) + np.float32(0.01)
    source = complete_set(tmp_path / "g.npz", **{"output:risk": near})
    (tmp_path / "sheet.toml").write_text('name = "risk"\nversion = 1\n[outputs.risk]\natol = 0.02\n')
    made = pack(risk_model(tmp_path / "m.onnx"), source, read_sheet(tmp_path / "sheet.toml"), tmp_path / "out")
    assert made.manifest.golden.tolerances == {"risk": Tolerance(atol=0.02, rtol=0.0)}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04rest", "a zip archive (a PyTorch checkpoint?)"),
        (b"\x89HDF\r\n", "an HDF5 file (a Keras model?)"),
        (b"just some text\n", "15 bytes of something else"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(NotAModel) as caught:
        pack(tmp_path / "m.onnx", inputs_alone(tmp_path / "i.npz"), SHEET, tmp_path / "out")
    assert str(caught.value) == f"m.onnx: expected an ONNX model, found {found}"


def test_half_a_model_is_no_model(tmp_path: Path) -> None:
    data = risk_model(tmp_path / "m.onnx").read_bytes()
    for cut in range(1, len(data), 7):
        with pytest.raises(NotAModel):
            read_signature(data[:cut])


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    model = onnx.load(str(risk_model(tmp_path / "m.onnx", weights=np.ones((3, 1), dtype=np.float32))))
    onnx.save_model(
        model, str(tmp_path / "out.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(NotAModel, match="expected the weights inside the file"):
        read_signature((tmp_path / "out.onnx").read_bytes())


def test_a_constant_of_a_node_outside_the_file_is_refused(tmp_path: Path) -> None:
    """The runtime would read it here, and golden outputs would rest on a file that no device gets."""
    outside = TensorProto(data_type=TensorProto.FLOAT, dims=[3], name="c", data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="weights.bin")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=outside)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])],
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    (x, y) = (
        helper.make_tensor_value_info("x", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [3]),
    )
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]))
    with pytest.raises(NotAModel, match="expected the weights inside the file"):
        read_signature(model.SerializeToString())


@pytest.mark.parametrize(("name", "odd"), [(b"features", b"feat\xffres"), (b"MatMul", b"Mat\xfful")])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: bytes, odd: bytes) -> None:
    damaged = risk_model(tmp_path / "m.onnx").read_bytes().replace(name, odd)
    with pytest.raises(NotAModel, match="found a name in it that is not UTF-8"):
        read_signature(damaged)


def test_an_output_that_is_no_tensor_names_the_usual_cause(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])
    sequence = helper.make_tensor_sequence_value_info("scores", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["x"], ["scores"])], "g", [value], [sequence])
    with pytest.raises(NotAModel, match="output scores: expected a tensor") as caught:
        read_signature(save(tmp_path / "m.onnx", graph).read_bytes())
    assert "zipmap=False" in caught.value.hint


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input:features": some_features().astype(np.float64)}, "golden input features: expected FP32, found float64"),
        (
            {"input:features": some_features()[:, :2]},
            r"golden input features: expected shape \['cases', 3\], found \[5, 2\]",
        ),
        ({"input:features": some_features(4)}, "expected the same number of cases"),
        ({"output:rsik": some_features()}, "expected no other arrays, found output:rsik"),
    ],
)
def test_a_set_that_does_not_fit_the_model_says_where(
    tmp_path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], words: str
) -> None:
    with pytest.raises(GoldenRefused, match=words):
        pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz", **arrays), SHEET, tmp_path / "out")


def test_a_set_without_a_models_input_names_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", allow_pickle=False, **{"input:feature": some_features()})
    source = GoldenSource(path=tmp_path / "g.npz", compute_outputs=True)
    with pytest.raises(GoldenRefused, match=r"expected an array 'input:features' .*, found input:feature"):
        pack(risk_model(tmp_path / "m.onnx"), source, SHEET, tmp_path / "out")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", features=np.array([{"a": 1}], dtype=object))
    with pytest.raises(GoldenRefused, match=r"g\.npz: expected an \.npz archive of plain arrays"):
        pack(
            risk_model(tmp_path / "m.onnx"),
            GoldenSource(path=tmp_path / "g.npz", compute_outputs=True),
            SHEET,
            tmp_path / "out",
        )


@pytest.mark.parametrize(("after", "offset"), [(b".npy", 20), (b"PK\x01\x02", 6)], ids=["stream", "method"])
def test_a_damaged_set_is_one_line(tmp_path: Path, after: bytes, offset: int) -> None:
    file = tmp_path / "g.npz"
    np.savez_compressed(file, allow_pickle=False, features=some_features())
    data = bytearray(file.read_bytes())
    data[data.index(after) + len(after) + offset] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(GoldenRefused, match=r"g\.npz: expected an \.npz archive of plain arrays, found: "):
        read_inputs(file, Signature(inputs=(FEATURES,), outputs=()))


def test_a_set_that_no_device_could_check_is_not_made(tmp_path: Path) -> None:
    columns = helper.make_node("Transpose", ["features"], ["y"], perm=[1, 0])
    with pytest.raises(GoldenRefused, match="golden output y: expected a model whose first axis is the batch"):
        pack(_one_node(tmp_path, columns, [3, "N"]), inputs_alone(tmp_path / "i.npz"), SHEET, tmp_path / "out")
    with pytest.raises(GoldenRefused, match="expected the same number of cases"):
        pack(_one_node(tmp_path, columns, ["M", "N"]), inputs_alone(tmp_path / "i.npz"), SHEET, tmp_path / "out")


def test_a_model_that_answers_at_random_is_refused_here_and_not_on_every_device(tmp_path: Path) -> None:
    model = _one_node(tmp_path, helper.make_node("RandomNormalLike", ["features"], ["y"]), ["N", 3])
    with pytest.raises(GoldenRefused, match="output y, case 0: expected .*, the model gives "):
        pack(model, inputs_alone(tmp_path / "i.npz"), SHEET, tmp_path / "out")


def _one_node(folder: Path, node: onnx.NodeProto, shape: list[int | str]) -> Path:
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "g", [features], [y])
    return save(folder / "one.onnx", graph)


def test_a_model_without_a_batch_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GoldenRefused, match="first axis is the batch") as caught:
        pack(risk_model(tmp_path / "m.onnx", batch=7), complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")
    assert "free first axis" in caught.value.hint


def test_a_model_that_the_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    scalar = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])
    risk = helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["N", 1])
    node = helper.make_node("Reshape", ["features", "shape"], ["risk"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2, 2])
    model = save(tmp_path / "m.onnx", helper.make_graph([node], "g", [scalar], [risk], [shape]))
    with pytest.raises(GoldenRefused, match="the model does not run its golden cases: ") as caught:
        pack(model, complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('nmae = "x"', r"sheet.toml: nmae: expected one of .*name"),
        ('name = "x"\nversion = "1"', "version: expected a whole number, got '1'"),
        ("[capture]\nmode = 'sometimes'", "capture.mode: expected one of off, async, durable"),
        ("[budget]\nlatency_ms = 3", "budget.latency_ms: expected one of latency_us, memory_bytes"),
        ("[outputs.risk]\natol = -1", "outputs.risk.atol: expected at least 0"),
        ("[serving]\nthread = 2", "serving.thread: expected one of batching, .*threads"),
        ('[serving]\nproviders = ["opnvino"]', "serving.providers: expected some of acl, .*xnnpack, got opnvino"),
        ("[serving.batching]\nrows = 2", "serving.batching.rows: expected one of max_delay_us, max_rows"),
        ("name =", "sheet.toml: Invalid value"),
    ],
)
def test_a_sheet_with_a_slip_names_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sheet.toml").write_text(text)
    with pytest.raises(SheetRefused, match=words):
        read_sheet(tmp_path / "sheet.toml")


def test_a_sheet_says_all_that_the_file_cannot(tmp_path: Path) -> None:
    (tmp_path / "sheet.toml").write_text(
        'name = "risk"\nversion = 3\nsummary = "s"\nlicense = "CC0-1.0"\n[budget]\nlatency_us = 2000\n'
        '[capture]\nmode = "durable"\ninputs = true\n'
        '[inputs.features]\nlabels = ["a", "b", "c"]\nunits = ["mm", "mm", "1"]\n'
    )
    sheet = read_sheet(tmp_path / "sheet.toml")
    made = pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), sheet, tmp_path / "out").manifest
    assert made.inputs[0].labels == ("a", "b", "c")
    assert (made.capture.mode, made.capture.inputs) == (CaptureMode.DURABLE, True)
    assert (made.budget.latency_us, made.budget.memory_bytes) == (2000, 256 << 20)
    assert made.license == "CC0-1.0"


def test_a_sheet_says_how_the_model_is_served_and_pins_its_dimensions(tmp_path: Path) -> None:
    (tmp_path / "sheet.toml").write_text(
        'name = "risk"\nversion = 3\n[serving]\nthreads = 2\nproviders = ["openvino", "cpu"]\n'
        "shrink_arena = true\n[serving.dimensions]\nN = 1\n"
    )
    sheet = read_sheet(tmp_path / "sheet.toml")
    made = pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), sheet, tmp_path / "out").manifest
    options = made.serving
    assert (options.threads, options.providers, options.shrink_arena) == (2, ("openvino", "cpu"), True)
    assert (options.dimensions, made.inputs[0].shape, made.outputs[0].shape) == ({"N": 1}, (1, 3), (1, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serving.dimensions]\nM = 1", r"serving.dimensions: expected some of the model's free ones \(N\), got M"),
        ("[serving.denotations]\nN = 1", r"serving.denotations: expected .* free ones \(none\), got N"),
        (
            "[serving]\ndimensions = {N = 1}\nbatching = {max_rows = 4}",
            r"serving.batching: expected a free first axis in every tensor, got features \[1, 3\]",
        ),
    ],
)
def test_what_the_model_does_not_have_cannot_be_pinned_or_joined(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sheet.toml").write_text(f'name = "risk"\nversion = 1\n{text}\n')
    sheet = read_sheet(tmp_path / "sheet.toml")
    with pytest.raises(SheetRefused, match=words):
        pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), sheet, tmp_path / "out")


def test_rows_that_nobody_could_tell_apart_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "sheet.toml").write_text('name = "risk"\nversion = 1\n[serving]\nbatching = {max_rows = 4}\n')
    sheet = read_sheet(tmp_path / "sheet.toml")
    model = onnx.load(risk_model(tmp_path / "m.onnx"))
    axis = model.graph.output[0].type.tensor_type.shape.dim[0]
    axis.ClearField("dim_param")  # the graph tells it all the same
    onnx.save(model, tmp_path / "m.onnx")
    pack(tmp_path / "m.onnx", complete_set(tmp_path / "g.npz"), sheet, tmp_path / "one")
    axis.dim_param = "K"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SheetRefused, match=r"serving.batching: expected one name for the first axis .* got K, N:"):
        pack(tmp_path / "m.onnx", complete_set(tmp_path / "g.npz"), sheet, tmp_path / "two")


def test_labels_that_do_not_fit_or_name_nothing_are_refused(tmp_path: Path) -> None:
    model, golden = risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz")
    for text, words in (
        ('[inputs.features]\nlabels = ["a"]', r"input features: expected labels for the last axis of \[-1, 3\], got 1"),
        ('[outputs.rsik]\nlabels = ["a"]', "output rsik: expected one of the model's: risk"),
    ):
        (tmp_path / "sheet.toml").write_text(f'name = "risk"\nversion = 1\n{text}\n')
        with pytest.raises(SheetRefused, match=words):
            pack(model, golden, read_sheet(tmp_path / "sheet.toml"), tmp_path / "out")


def test_the_same_release_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    model, golden = risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz")
    first = pack(model, golden, SHEET, tmp_path / "out")
    assert pack(model, golden, SHEET, tmp_path / "out").manifest_bytes == first.manifest_bytes
    with pytest.raises(FolderRefused, match="expected a new or an empty folder"):
        pack(model, golden, Sheet(name="risk", version=2), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_changed_file_is_no_release_any_more(tmp_path: Path) -> None:
    pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")
    (tmp_path / "out/model.onnx").write_bytes(b"other")
    with pytest.raises(FolderRefused, match=r"model\.onnx: expected sha256 .*…, as the manifest says, found"):
        read_release(tmp_path / "out")
    (tmp_path / "out/model.onnx").unlink()
    with pytest.raises(FolderRefused, match=r"found no model\.onnx"):
        read_release(tmp_path / "out")


def test_an_empty_folder_is_filled_and_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody stands in it, or a container's volume is mounted there."""
    model, source = risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    made = pack(model, source, SHEET, Path())
    assert read_release(tmp_path / "out").manifest == made.manifest
    assert sorted(each.name for each in Path.cwd().iterdir()) == ["golden.npz", "manifest.json", "model.onnx"]


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        (replace(SHEET, summary="x" * 901), "summary: expected at most 900 characters, got 901"),
        (replace(SHEET, summary="a\udcff"), r"expected text in UTF-8, got .*\\udcff"),
        (replace(SHEET, version=10**18), "version: expected 1 to 999999999999999999, got 1000000000000000000"),
    ],
)
def test_what_nobody_could_read_again_is_not_written(tmp_path: Path, sheet: Sheet, words: str) -> None:
    with pytest.raises(SheetRefused, match=words):
        pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), sheet, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "Risk", "a/b", "../x", "a" * 65, "stats"])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SheetRefused, match="name"):
        pack(tmp_path / "none.onnx", inputs_alone(tmp_path / "i.npz"), Sheet(name=name, version=1), tmp_path / "out")


def test_strings_go_in_and_come_out(tmp_path: Path) -> None:
    text_in = helper.make_tensor_value_info("word", TensorProto.STRING, ["N"])
    text_out = helper.make_tensor_value_info("same", TensorProto.STRING, ["N"])
    graph = helper.make_graph([helper.make_node("Identity", ["word"], ["same"])], "g", [text_in], [text_out])
    model = save(tmp_path / "m.onnx", graph)
    np.savez(tmp_path / "i.npz", allow_pickle=False, word=np.array(["ä", "b"]))
    source = GoldenSource(path=tmp_path / "i.npz", compute_outputs=True)
    made = pack(model, source, Sheet(name="echo", version=1), tmp_path / "out")
    assert made.manifest.outputs[0].datatype is Datatype.BYTES
    with np.load(tmp_path / "out/golden.npz", allow_pickle=False) as golden:
        assert golden["output:same"].tolist() == ["ä", "b"]


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    pack(risk_model(tmp_path / "m.onnx"), complete_set(tmp_path / "g.npz"), SHEET, tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["golden"]["tolerances"]["risk"]["rtol"] == 1e-4


def test_an_archive_is_the_same_whatever_the_memory_order() -> None:
    features = some_features()
    straight = Golden(inputs={"x": features}, outputs={"y": expected_risk(features)})
    twisted = Golden(inputs={"x": np.asfortranarray(features)}, outputs={"y": expected_risk(features)})
    assert straight.archive() == twisted.archive()
