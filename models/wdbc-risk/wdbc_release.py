"""Writing a release folder: manifest, model and golden set, the same bytes each time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgeward_contract.artifact import ArtifactRef, ModelName, sha256_of
from edgeward_contract.manifest import (
    Budget,
    CaptureMode,
    CapturePolicy,
    Datatype,
    GoldenSet,
    Manifest,
    TensorSpec,
    Tolerance,
)

Arrays = Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]

# FP32 arithmetic moves the risk by about 1e-6; half a thousandth leaves room for other processors
# and is far below anything that could change a decision.
TOLERANCES: Final = {"risk": Tolerance(atol=5e-4, rtol=0.0), "label": Tolerance(atol=0.0, rtol=0.0)}

INTENDED_USE: Final = (
    "Demonstration of model delivery only, not for clinical use. Estimates from 30 measurements of a digitised "
    "fine-needle aspirate how likely a breast mass is malignant. Never validated outside the data set it was "
    "trained on; versions 3 to 6 carry planted faults."
)
ATTRIBUTION: Final = (
    "Trained on Breast Cancer Wisconsin (Diagnostic), W. Wolberg, O. Mangasarian, N. Street, W. Street (1993), "
    "UCI Machine Learning Repository, doi:10.24432/C5DW2B, CC BY 4.0."
)
_BEGINNING: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can carry


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version, ready to be written. `golden` holds `input:<name>` and `output:<name>`, cases first."""

    version: int
    summary: str
    model: bytes
    golden: Arrays


def write_release(release: Release, folder: Path, *, names: tuple[str, ...], units: tuple[str, ...]) -> None:
    """Write the three files of a release into `folder`. Raises OSError."""
    golden = deterministic_npz(release.golden)
    manifest = Manifest(
        name=ModelName("wdbc-risk"),
        version=release.version,
        summary=release.summary,
        intended_use=INTENDED_USE,
        file=_reference(release.model),
        golden=GoldenSet(
            file=_reference(golden), cases=len(release.golden["input:features"]), tolerances=dict(TOLERANCES)
        ),
        inputs=(
            TensorSpec(name="features", datatype=Datatype.FP32, shape=(-1, len(names)), labels=names, units=units),
        ),
        outputs=(
            TensorSpec(
                name="risk", datatype=Datatype.FP32, shape=(-1, 1), labels=("probability_of_malignancy",), units=("1",)
            ),
            TensorSpec(name="label", datatype=Datatype.INT64, shape=(-1,)),
        ),
        budget=Budget(latency_us=10_000, memory_bytes=64 << 20),
        capture=CapturePolicy(mode=CaptureMode.ASYNC, inputs=False, outputs=True),
        license="Apache-2.0",
        attribution=ATTRIBUTION,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(release.model)
    (folder / "golden.npz").write_bytes(golden)
    (folder / "manifest.json").write_bytes(manifest.canonical())


def deterministic_npz(arrays: Arrays) -> bytes:
    """An .npz that depends on the arrays alone: numpy's own writer stamps the time of day into it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as entries:
        for name, array in sorted(arrays.items()):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_BEGINNING)
            entry.create_system = 3  # or it would say on which kind of system it was made
            entries.writestr(entry, content.getvalue())
    return archive.getvalue()


def _reference(data: bytes) -> ArtifactRef:
    return ArtifactRef(sha256=sha256_of(data), size_bytes=len(data))
