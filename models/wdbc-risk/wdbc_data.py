"""The patients: where they come from, how they are split, and which of them a planted fault concerns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SPLIT_SEED: Final = 0
HELD_OUT_SHARE: Final = 0.4

_UNITS: Final = {
    # The source gives no physical scale of its images, so no µm is claimed here.
    "radius": "image unit",
    "texture": "grey level",
    "perimeter": "image unit",
    "area": "image unit²",
}

LARGE_TUMOUR_AREA: Final = 2000.0
SIZE_BANDS: Final = 8
BAND_WIDTH: Final = LARGE_TUMOUR_AREA / SIZE_BANDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """All patients in the order of the source.

    `features` is (patients, 30) in float64, exactly as published; `malignant` is (patients,) of 0 and 1.
    """

    names: tuple[str, ...]
    features: Floats
    malignant: Indices

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"p{number:03d}" for number in range(1, len(self.features) + 1))

    @property
    def tensor(self) -> npt.NDArray[np.float32]:
        """What a client sends: (patients, 30), FP32."""
        return self.features.astype(np.float32)

    def column(self, name: str) -> Floats:
        """The values of one feature, rounded as the graph sees them."""
        column: Floats = self.tensor[:, self.names.index(name)].astype(np.float64)
        return column


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Row numbers for training and for judging; no row is in both."""

    train: Indices
    held_out: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """The patients on whom a planted fault shows, as a rule that a reader can check by hand."""

    version: int
    rule: str
    concerns: Callable[[Patients], npt.NDArray[np.bool_]]


TRIGGERS: Final = (
    Trigger(
        version=4,
        rule=f"worst_area >= {LARGE_TUMOUR_AREA:g}",
        concerns=lambda patients: patients.column("worst_area") >= LARGE_TUMOUR_AREA,
    ),
    Trigger(
        version=6,
        rule="mean_concavity == 0",
        concerns=lambda patients: patients.column("mean_concavity") == 0,
    ),
)


def load_patients() -> Patients:
    """Read the data that scikit-learn carries; no network is used."""
    source = load_breast_cancer()
    return Patients(
        names=tuple(str(name).replace(" ", "_") for name in source.feature_names),
        features=np.asarray(source.data, dtype=np.float64),
        # scikit-learn counts benign as 1; a risk of malignancy reads the other way round.
        malignant=(np.asarray(source.target) == 0).astype(np.int64),
    )


def split_patients(patients: Patients) -> Split:
    """Cut the patients, stratified by diagnosis, the same way each time."""
    train, held_out = train_test_split(
        np.arange(len(patients.features)),
        test_size=HELD_OUT_SHARE,
        random_state=SPLIT_SEED,
        stratify=patients.malignant,
    )
    return Split(train=np.sort(train), held_out=np.sort(held_out))


def untroubled(patients: Patients, rows: Indices) -> Indices:
    """Those of `rows` on whom no planted fault shows."""
    for trigger in TRIGGERS:
        rows = rows[~trigger.concerns(patients)[rows]]
    return rows


def units(names: tuple[str, ...]) -> tuple[str, ...]:
    """The unit of each feature; what is a ratio or an index has unit 1."""
    quantities = (name.removeprefix("mean_").removeprefix("worst_").removesuffix("_error") for name in names)
    return tuple(_UNITS.get(quantity, "1") for quantity in quantities)


def patients_csv(patients: Patients) -> bytes:
    """The table as a bedside client reads it. Numbers are written so that they read back to the same bits."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["patient", *patients.names, "diagnosis"])
    for patient, row, malignant in zip(patients.ids, patients.features, patients.malignant, strict=True):
        table.writerow([patient, *(repr(float(value)) for value in row), "malignant" if malignant else "benign"])
    return text.getvalue().encode()
