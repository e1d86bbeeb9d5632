"""Each committed version of wdbc-risk is held to what its card claims, the faulty ones to their faults."""

from __future__ import annotations

import importlib.util
import platform
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeward_contract.artifact import sha256_of_file
from edgeward_contract.manifest import CaptureMode
from support.models import (
    ROOT,
    WDBC_RISK,
    Arrays,
    Model,
    Table,
    golden_failures,
    read_arrays,
    read_manifest,
    wdbc_evaluation,
    wdbc_patients,
    wdbc_release,
)

VERSIONS = (1, 2, 3, 4, 5, 6)
RULES = {4: ("worst_area", ">=", 2000.0), 6: ("mean_concavity", "==", 0.0)}
traps_on_division = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="only x86-64 ends a process on an overflowing division"
)

RUN_ROWS = """
import resource, sys
import numpy as np, onnxruntime
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
risks = [session.run(["risk"], {"features": row[np.newaxis]})[0][0, 0] for row in np.load(sys.argv[2])]
np.save(sys.argv[3], np.array(risks))
"""


@pytest.fixture(scope="module")
def patients() -> Table:
    return wdbc_patients()


def model(version: int) -> Model:
    return Model(wdbc_release(version) / "model.onnx")


def failures(version: int, arrays: Arrays | None = None) -> list[int]:
    release = wdbc_release(version)
    cases = read_arrays(release / "golden.npz") if arrays is None else arrays
    return golden_failures(model(version), read_manifest(release).golden, cases)


def held_out(patients: Table) -> npt.NDArray[np.int64]:
    return patients.rows_of(wdbc_evaluation().texts("held_out"))


def risks(version: int, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(model(version).run(features)["risk"], dtype=np.float64)[:, 0]


def concerned(patients: Table, version: int) -> npt.NDArray[np.bool_]:
    """The patients whom the card's rule names, worked out from the table alone."""
    name, operator, limit = RULES[version]
    column = patients.features[:, patients.names.index(name)]
    return column >= limit if operator == ">=" else column == limit


def run_in_child(version: int, features: npt.NDArray[np.float32], folder: Path) -> tuple[int, Path]:
    np.save(folder / "rows.npy", features)
    answers = folder / "answers.npy"
    command = [sys.executable, "-c", RUN_ROWS, str(wdbc_release(version) / "model.onnx"), str(folder / "rows.npy")]
    done = subprocess.run([*command, str(answers)], check=False, timeout=60, capture_output=True)
    return done.returncode, answers


def rank_auc(malignant: npt.NDArray[np.bool_], risk: npt.NDArray[np.float64]) -> float:
    """The share of pairs that are in the right order; ties count half. Not how the recipe computes it."""
    gaps = risk[malignant][:, np.newaxis] - risk[~malignant]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_is_canonical_and_names_the_files_beside_it(version: int) -> None:
    release = wdbc_release(version)
    manifest = read_manifest(release)
    assert manifest.canonical() == (release / "manifest.json").read_bytes()
    assert str(manifest.release) == f"wdbc-risk@{version}"
    for reference, name in ((manifest.file, "model.onnx"), (manifest.golden.file, "golden.npz")):
        assert (reference.sha256, reference.size_bytes) == (
            sha256_of_file(release / name),
            (release / name).stat().st_size,
        )
        assert reference.size_bytes < 300_000
    assert "not for clinical use" in manifest.intended_use
    assert "CC BY 4.0" in manifest.attribution


@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_describes_the_tensors_of_its_model_and_of_the_table(version: int, patients: Table) -> None:
    manifest = read_manifest(wdbc_release(version))
    (features,) = manifest.inputs
    assert (features.name, features.shape, features.labels) == ("features", (-1, 30), patients.names)
    assert len(features.units) == 30
    assert model(version).inputs == {"features": ("tensor(float)", 2)}
    assert model(version).outputs == {"risk": ("tensor(float)", 2), "label": ("tensor(int64)", 1)}
    assert [(each.name, each.shape) for each in manifest.outputs] == [("risk", (-1, 1)), ("label", (-1,))]
    assert (manifest.capture.mode, manifest.capture.inputs, manifest.capture.outputs) == (
        CaptureMode.ASYNC,
        False,
        True,
    )
    assert manifest.budget.latency_us == 10_000


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_satisfies_the_checker(version: int) -> None:
    checker = pytest.importorskip("onnx.checker", reason="onnx is not installed")
    checker.check_model((wdbc_release(version) / "model.onnx").read_bytes(), full_check=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_set_holds_real_held_out_patients_on_whom_no_fault_shows(version: int, patients: Table) -> None:
    golden = read_arrays(wdbc_release(version) / "golden.npz")
    rows = patients.rows_of(wdbc_evaluation().texts("golden"))
    assert read_manifest(wdbc_release(version)).golden.cases == len(rows) == len(golden["input:features"])
    np.testing.assert_array_equal(golden["input:features"], patients.tensor(rows))
    assert set(rows) <= set(held_out(patients))
    assert not any(concerned(patients, fault)[rows].any() for fault in RULES)


@pytest.mark.parametrize("version", [1, 2, 4, 5, 6])
def test_a_version_that_answers_as_trained_passes_its_golden_set(version: int) -> None:
    assert failures(version) == []


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_card_states_the_quality_that_the_model_has(version: int, patients: Table) -> None:
    rows = held_out(patients)
    risk, malignant = risks(version, patients.tensor(rows)), patients.malignant[rows]
    alarmed = risk > 0.5
    card = (WDBC_RISK / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {version} \| ([\d.]+) \(([\d.]+)–([\d.]+)\) \| ([\d.]+) .*$", card, re.MULTILINE)
    assert row is not None
    assert row[1] == f"{rank_auc(malignant, risk):.3f}"
    assert float(row[2]) < float(row[1]) < float(row[3])
    assert row[4] == f"{alarmed[malignant].mean():.3f}"
    assert row[0].endswith(f"| {(~alarmed & malignant).sum()} | {(alarmed & ~malignant).sum()} |")


def test_the_second_version_is_better_than_the_first_on_the_held_out_patients(patients: Table) -> None:
    rows = held_out(patients)
    malignant = patients.malignant[rows]
    first, second = (rank_auc(malignant, risks(version, patients.tensor(rows))) for version in (1, 2))
    assert second > first > 0.95


def test_the_label_is_the_risk_above_one_half(patients: Table) -> None:
    answers = model(2).run(patients.tensor(np.arange(len(patients.ids))))
    np.testing.assert_array_equal(answers["label"], np.asarray(answers["risk"], dtype=np.float64)[:, 0] > 0.5)


def test_the_batch_is_free_and_an_answer_does_not_depend_on_its_neighbours(patients: Table) -> None:
    features = patients.tensor(np.arange(40))
    single = np.array([risks(2, features[row : row + 1])[0] for row in range(len(features))])
    np.testing.assert_allclose(risks(2, features), single, atol=1e-6)


def test_swapped_columns_are_caught_by_the_golden_set() -> None:
    assert len(failures(3)) >= 8


def test_a_golden_set_of_clear_cases_alone_would_let_swapped_columns_pass(patients: Table) -> None:
    clear = read_arrays(WDBC_RISK / "clear-cases.npz")
    rows = patients.rows_of(wdbc_evaluation().texts("clear_cases"))
    np.testing.assert_array_equal(clear["input:features"], patients.tensor(rows))
    assert len(rows) == read_manifest(wdbc_release(3)).golden.cases
    assert patients.malignant[rows].sum() == 12
    assert failures(3, clear) == []
    assert failures(2, clear) == []


def test_swapped_columns_make_the_model_miss_malignant_tumours(patients: Table) -> None:
    features = patients.tensor(np.flatnonzero(patients.malignant))
    found_before, found_now = risks(2, features) > 0.5, risks(3, features) > 0.5
    assert (found_before & ~found_now).sum() >= 20


def test_the_swapped_columns_are_the_documented_two_and_no_unit_tells_them_apart(patients: Table) -> None:
    columns = [patients.names.index(name) for name in wdbc_evaluation().texts("swapped_columns")]
    features = patients.tensor(np.arange(len(patients.ids)))
    restored = features.copy()
    restored[:, columns] = features[:, columns[::-1]]
    np.testing.assert_allclose(risks(3, restored), risks(2, features), atol=1e-6)
    units = read_manifest(wdbc_release(3)).inputs[0].units
    assert {units[column] for column in columns} == {"1"}


@pytest.mark.parametrize("version", RULES)
def test_the_card_and_the_evaluation_name_the_patients_on_whom_a_fault_shows(version: int, patients: Table) -> None:
    name, operator, limit = RULES[version]
    rule = f"{name} {operator} {limit:g}"
    fault = wdbc_evaluation().object("faults").object(str(version))
    rows = np.flatnonzero(concerned(patients, version))
    assert fault.text("rule") == rule
    np.testing.assert_array_equal(patients.rows_of(fault.texts("patients")), rows)
    card = (WDBC_RISK / "README.md").read_text(encoding="utf-8")
    assert f"| {version} | `{rule}` | {len(rows)} of {len(patients.ids)} " in card


def test_the_failing_version_fails_on_exactly_the_documented_patients(patients: Table) -> None:
    failing, features = model(4), patients.tensor(np.arange(len(patients.ids)))
    failed = np.zeros(len(features), dtype=np.bool_)
    for row in range(len(features)):
        try:
            failing.run(features[row : row + 1])
        except Exception as error:  # ONNX Runtime's own classes are not public
            assert "out of data bounds" in str(error) or "out of bounds" in str(error)
            failed[row] = True
    np.testing.assert_array_equal(failed, concerned(patients, 4))
    assert 0.03 < failed.mean() < 0.06
    np.testing.assert_allclose(risks(4, features[~failed]), risks(2, features[~failed]), atol=1e-6)


def test_the_slow_version_is_right_and_far_over_its_budget(patients: Table) -> None:
    features = patients.tensor(held_out(patients)[:1])
    slow, good = best_of(model(5), features, runs=3), best_of(model(2), features, runs=100)
    assert slow > 50 * good
    assert slow > read_manifest(wdbc_release(5)).budget.latency_us / 1e6
    everybody = patients.tensor(np.arange(len(patients.ids)))
    np.testing.assert_allclose(risks(5, everybody), risks(2, everybody), atol=1e-4)


def best_of(of: Model, features: npt.NDArray[np.float32], *, runs: int) -> float:
    """The shortest of some runs in seconds: a busy machine lengthens the others, never this one much."""
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        of.run(features)
        took.append(time.perf_counter() - began)
    return min(took)


@traps_on_division
def test_the_crashing_version_ends_the_process_by_a_signal_on_each_documented_patient(
    patients: Table, tmp_path: Path
) -> None:
    rows = np.flatnonzero(concerned(patients, 6))
    assert 0.01 < len(rows) / len(patients.ids) < 0.06
    for row in rows:
        code, answers = run_in_child(6, patients.tensor(np.array([row])), tmp_path)
        assert code < 0, f"expected death by a signal on {patients.ids[row]}, got exit code {code}"
        assert not answers.exists()


def test_the_crashing_version_answers_everybody_else_as_the_good_one_does(patients: Table, tmp_path: Path) -> None:
    features = patients.tensor(np.flatnonzero(~concerned(patients, 6)))
    code, answers = run_in_child(6, features, tmp_path)
    assert code == 0
    np.testing.assert_allclose(np.load(answers), risks(2, features), atol=1e-6)


def test_the_table_is_the_published_data(patients: Table) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    source = datasets.load_breast_cancer()
    assert patients.names == tuple(str(name).replace(" ", "_") for name in source.feature_names)
    np.testing.assert_array_equal(patients.features, source.data)
    np.testing.assert_array_equal(patients.malignant, source.target == 0)
    assert len(set(patients.ids)) == len(patients.ids) == 569


def test_no_artefact_carries_a_time_or_a_place() -> None:
    for golden in (*WDBC_RISK.glob("releases/*/golden.npz"), WDBC_RISK / "clear-cases.npz"):
        with zipfile.ZipFile(golden) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    for path in WDBC_RISK.glob("releases/*/*"):
        assert str(ROOT).encode() not in path.read_bytes()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recipe, run twice from nothing."""
    for library in ("sklearn", "skl2onnx", "onnx"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    folders = (tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second"))
    for folder in folders:
        command = [sys.executable, str(WDBC_RISK / "recipe.py"), "--output", str(folder)]
        done = subprocess.run(command, check=False, timeout=100, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folders


def test_the_recipe_gives_the_same_bytes_each_time(rebuilt: tuple[Path, Path]) -> None:
    first, second = ({str(p.relative_to(r)): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in rebuilt)
    assert len(first) == 3 * len(VERSIONS) + 4
    assert first == second


@pytest.mark.parametrize("name", ["patients.csv", "evaluation.json", "README.md"])
def test_the_recipe_gives_the_committed_text(rebuilt: tuple[Path, Path], name: str) -> None:
    assert (rebuilt[0] / name).read_text(encoding="utf-8") == (WDBC_RISK / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recipe_gives_the_committed_graph_and_golden_set(rebuilt: tuple[Path, Path], version: int) -> None:
    """Down to the last bits of the coefficients, in which processors differ."""
    built, committed = rebuilt[0] / "releases" / str(version), wdbc_release(version)
    shape, numbers = graph_of(built / "model.onnx")
    committed_shape, committed_numbers = graph_of(committed / "model.onnx")
    assert shape == committed_shape
    np.testing.assert_allclose(numbers, committed_numbers, rtol=1e-5, atol=1e-7)
    arrays, committed_arrays = read_arrays(built / "golden.npz"), read_arrays(committed / "golden.npz")
    assert arrays.keys() == committed_arrays.keys()
    for name, array in arrays.items():
        want = committed_arrays[name].astype(np.float64)
        np.testing.assert_allclose(array.astype(np.float64), want, rtol=1e-5, atol=1e-7)
    digests = r'"(sha256|size_bytes)":("[0-9a-f]{64}"|\d+)'
    texts = [re.sub(digests, "", (folder / "manifest.json").read_text("utf-8")) for folder in (built, committed)]
    assert texts[0] == texts[1]


def graph_of(path: Path) -> tuple[str, list[float]]:
    """The text of a graph without its floating-point constants, and those constants."""
    import onnx
    from onnx import numpy_helper

    graph, numbers = onnx.load(path).graph, []
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            numbers += numpy_helper.to_array(tensor).ravel().tolist()
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    for node in graph.node:
        for attribute in node.attribute:
            numbers += attribute.floats
            attribute.ClearField("floats")
    return str(graph), numbers
