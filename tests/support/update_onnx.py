"""Release folders with real ONNX files, good and hostile, made here without any recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeward_contract.artifact import ArtifactRef, ModelName, sha256_of
from edgeward_contract.manifest import Budget, Datatype, GoldenSet, Manifest, TensorSpec, Tolerance
from edgeward_contract.serving_options import ServingOptions
from support.onnx_files import expected_risk, risk_model, some_features

Array = npt.NDArray[np.generic]
FEATURES = TensorSpec(name="features", datatype=Datatype.FP32, shape=(-1, 3))
RISK = TensorSpec(name="risk", datatype=Datatype.FP32, shape=(-1, 1))


def release(
    folder: Path,
    *,
    model: bytes | None = None,
    arrays: dict[str, Array] | None = None,
    inputs: tuple[TensorSpec, ...] = (FEATURES,),
    outputs: tuple[TensorSpec, ...] = (RISK,),
    budget: Budget | None = None,
    tolerance: float = 1e-5,
    serving: ServingOptions | None = None,
) -> Path:
    """A complete release folder of the small risk model, with any part of it replaced."""
    folder.mkdir()
    if model is None:
        risk_model(folder / "model.onnx")
    else:
        (folder / "model.onnx").write_bytes(model)
    cases = arrays if arrays is not None else golden()
    np.savez(folder / "golden.npz", **cases)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array
    manifest = Manifest(
        name=ModelName("risk"),
        version=1,
        summary="",
        intended_use="",
        file=_ref(folder / "model.onnx"),
        golden=GoldenSet(
            file=_ref(folder / "golden.npz"),
            cases=max([len(array) for array in cases.values() if array.ndim], default=1),
            tolerances={spec.name: Tolerance(atol=tolerance, rtol=0.0) for spec in outputs},
        ),
        inputs=inputs,
        outputs=outputs,
    )
    write_manifest(folder, replace(manifest, budget=budget or manifest.budget, serving=serving or manifest.serving))
    return folder


def golden() -> dict[str, Array]:
    features = some_features()
    return {"input:features": features, "output:risk": expected_risk(features)}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / "manifest.json").write_bytes(manifest.canonical())


def _ref(path: Path) -> ArtifactRef:
    data = path.read_bytes()
    return ArtifactRef(sha256=sha256_of(data), size_bytes=len(data))
