"""The committed reference models, as tests use them: with numpy and ONNX Runtime alone, never the recipe's code."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgeward_agent.ort import onnxruntime
from edgeward_contract.manifest import GoldenSet, Manifest
from edgeward_contract.schema import Fields

ROOT: Final = Path(__file__).resolve().parents[2]
MODELS: Final = ROOT / "models"
WDBC_RISK: Final = MODELS / "wdbc-risk"

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`patients.csv`: `features` is (patients, 30) in float64, `malignant` is (patients,) of booleans."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    features: npt.NDArray[np.float64]
    malignant: npt.NDArray[np.bool_]

    def rows_of(self, patients: tuple[str, ...]) -> npt.NDArray[np.int64]:
        number = {patient: row for row, patient in enumerate(self.ids)}
        return np.array([number[patient] for patient in patients], dtype=np.int64)

    def tensor(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.features[rows].astype(np.float32)


def wdbc_release(version: int) -> Path:
    """The folder of a committed release of wdbc-risk: manifest.json, model.onnx, golden.npz."""
    return WDBC_RISK / "releases" / str(version)


def read_manifest(release: Path) -> Manifest:
    return Manifest.parse((release / "manifest.json").read_bytes())


def wdbc_patients() -> Table:
    with (WDBC_RISK / "patients.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    return Table(
        ids=tuple(row[0] for row in rows),
        names=tuple(header[1:-1]),
        features=np.array([[float(cell) for cell in row[1:-1]] for row in rows]),
        malignant=np.array([row[-1] == "malignant" for row in rows]),
    )


def wdbc_evaluation() -> Fields:
    return Fields.of(json.loads((WDBC_RISK / "evaluation.json").read_bytes()), "")


def read_arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


class Model:
    """An ONNX Runtime session over one file, with a single thread as on a device."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # the failing version fails on purpose; its complaint is the exception
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    @property
    def inputs(self) -> dict[str, tuple[str, int]]:
        """Name → (element type, rank)."""
        return {each.name: (each.type, len(each.shape)) for each in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, tuple[str, int]]:
        return {each.name: (each.type, len(each.shape)) for each in self._session.get_outputs()}

    def run(self, features: npt.NDArray[np.float32]) -> Arrays:
        """Raises whatever ONNX Runtime raises."""
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, {"features": features}), strict=True))


def golden_failures(model: Model, golden: GoldenSet, arrays: Arrays) -> list[int]:
    """The cases, each run as a batch of one, whose outputs lie outside the tolerances."""
    inputs = arrays["input:features"]
    return [case for case in range(len(inputs)) if not _passes(model, golden, arrays, case)]


def _passes(model: Model, golden: GoldenSet, arrays: Arrays, case: int) -> bool:
    features = np.asarray(arrays["input:features"][case : case + 1], dtype=np.float32)
    got = model.run(features)
    return all(
        np.allclose(got[name], arrays[f"output:{name}"][case : case + 1], atol=limit.atol, rtol=limit.rtol)
        for name, limit in golden.tolerances.items()
    )
