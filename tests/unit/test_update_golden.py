"""The comparison with the golden set, where a NaN that slips through would pass the worst model of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.update.golden import Golden, GoldenSetInvalid, difference
from edgeward_contract.manifest import Datatype, Manifest, TensorSpec, Tolerance
from support.update_onnx import RISK, golden, release

NAN, INF = float("nan"), float("inf")
LOOSE = Tolerance(atol=0.1, rtol=0.0)
EXACT = Tolerance(atol=0.0, rtol=0.0)


def compare(got: float, want: float, tolerance: Tolerance = LOOSE) -> bool:
    return difference("risk", np.array([[got]]), np.array([[want]]), tolerance) == ""


@pytest.mark.parametrize(("got", "want"), [(1.0, 1.05), (NAN, NAN), (INF, INF), (-INF, -INF), (0.0, -0.0)])
def test_equal(got: float, want: float) -> None:
    assert compare(got, want)


@pytest.mark.parametrize(
    ("got", "want"), [(1.0, 1.2), (NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, INF), (INF, -INF), (NAN, INF), (INF, NAN)]
)
def test_different(got: float, want: float) -> None:
    assert not compare(got, want)


@given(st.floats(width=32), st.floats(width=32))
def test_a_tolerance_of_any_size_lets_no_nan_through(got: float, want: float) -> None:
    assert compare(got, want, Tolerance(atol=1e308, rtol=1e308)) == (
        (np.isfinite(got) and np.isfinite(want)) or got == want or (np.isnan(got) and np.isnan(want))
    )


def test_the_relative_tolerance_is_of_what_was_wanted() -> None:
    assert compare(110.0, 100.0, Tolerance(atol=0.0, rtol=0.1))
    assert not compare(100.0, 110.1, Tolerance(atol=10.0, rtol=0.0))


def test_large_integers_are_compared_exactly() -> None:
    got, want = np.array([[2**53 + 1]]), np.array([[2**53]])
    assert difference("label", got, want, EXACT) == f"label[0, 0]: expected {2**53} (±0), got {2**53 + 1}"
    assert difference("label", got, want, Tolerance(atol=1.0, rtol=0.0)) == ""


def test_texts_are_compared_as_they_are() -> None:
    want = np.array([["benign"]], dtype=object)
    assert difference("label", np.array([["benign"]], dtype=object), want, LOOSE) == ""
    assert "expected benign" in difference("label", np.array([["malignant"]], dtype=object), want, LOOSE)


def test_another_shape_is_a_difference() -> None:
    found = difference("risk", np.zeros((1, 2)), np.zeros((1, 1)), LOOSE)
    assert found == "risk: expected shape [1, 1], got [1, 2]"


def test_cases_are_batches_of_one(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    cases = list(Golden(folder / "golden.npz", manifest_of(folder)).cases())
    assert [case.number for case in cases] == [0, 1, 2, 3, 4]
    assert {case.feeds["features"].shape for case in cases} == {(1, 3)}
    assert {case.wanted["risk"].shape for case in cases} == {(1, 1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output:risk": np.zeros((4, 1), np.float32)}, r"output:risk: expected 5 cases, got shape \[4, 1\]"),
        ({"output:risk": np.zeros((5, 1), np.float64)}, "output:risk: expected FP32, got float64"),
        ({"output:risk": np.float32(1.0)}, r"output:risk: expected 5 cases, got shape \[\]"),
        ({"output:more": np.zeros((5, 1))}, r"expected arrays of the manifest's tensors alone, got \['output:more'\]"),
        ({"input:features": None}, "expected an array 'input:features'"),
        ({"output:risk": np.array([[{}]] * 5, dtype=object)}, "expected an .npz of plain arrays"),
    ],
)
def test_a_golden_set_that_is_not_what_its_manifest_says(
    tmp_path: Path, change: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None], words: str
) -> None:
    arrays = {name: array for name, array in {**golden(), **change}.items() if array is not None}
    folder = release(tmp_path / "r", arrays={name: np.asarray(array) for name, array in arrays.items()})
    with pytest.raises(GoldenSetInvalid, match=words):
        Golden(folder / "golden.npz", manifest_of(folder, cases=5))


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    (folder / "golden.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(GoldenSetInvalid, match="expected an .npz of plain arrays"):
        Golden(folder / "golden.npz", manifest_of(folder))


def test_an_archive_that_unpacks_to_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeward_agent.update.golden.MAX_GOLDEN_BYTES", 100)
    folder = release(tmp_path / "r")
    with pytest.raises(GoldenSetInvalid, match="expected at most 100 bytes of arrays"):
        Golden(folder / "golden.npz", manifest_of(folder))


def test_texts_are_given_to_the_runtime_as_objects(tmp_path: Path) -> None:
    label = TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,))
    arrays = {**golden(), "output:label": np.array(["benign"] * 5)}
    folder = release(tmp_path / "r", arrays=arrays, outputs=(RISK, label))
    case = next(Golden(folder / "golden.npz", manifest_of(folder)).cases())
    assert case.wanted["label"].dtype == object


def manifest_of(folder: Path, *, cases: int | None = None) -> Manifest:
    manifest = Manifest.parse((folder / "manifest.json").read_bytes())
    return replace(manifest, golden=replace(manifest.golden, cases=cases)) if cases else manifest
