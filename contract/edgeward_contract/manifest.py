"""The model manifest: what a release says of itself, and what a device holds it to.

The manifest's bytes are canonical JSON; their SHA-256 is the identity of the release. It names the ONNX
file and the golden set by digest, so nothing else of a release needs a signature of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import ArtifactRef, ModelName, ReleaseRef, Sha256, model_name, sha256_of
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, check_schema, parse_json
from edgeward_contract.serving_options import ServingOptions

SCHEMA: Final = 1
MAX_MANIFEST_BYTES: Final = 256 * 1024
MAX_TENSORS: Final = 64


class Datatype(StrEnum):
    """Tensor element types, by their names in the Open Inference Protocol v2."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


class CaptureMode(StrEnum):
    """Whether an answer leaves a record: not at all, after the answer, or committed before the answer."""

    OFF = "off"
    ASYNC = "async"
    DURABLE = "durable"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output. `shape` uses -1 for a free dimension; `labels` and `units` name the last axis."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> TensorSpec:
        shape = fields.integers("shape", minimum=-1)
        labels, units = fields.texts("labels"), fields.texts("units")
        for key, names in (("labels", labels), ("units", units)):
            if names and (not shape or shape[-1] not in (-1, len(names))):
                raise ContractError(
                    fields.at(key), f"expected one for each of the last axis of {list(shape)}, got {len(names)}"
                )
        return cls(
            name=fields.text("name"),
            datatype=fields.choice("datatype", Datatype),
            shape=shape,
            labels=labels,
            units=units,
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "datatype": self.datatype.value,
            "shape": list(self.shape),
            "labels": list(self.labels),
            "units": list(self.units),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far an output may lie from the golden one: |got - want| <= atol + rtol * |want|, as in numpy.allclose."""

    atol: float
    rtol: float

    @classmethod
    def read(cls, fields: Fields) -> Tolerance:
        return cls(atol=fields.number("atol", minimum=0), rtol=fields.number("rtol", minimum=0))

    def document(self) -> dict[str, JsonValue]:
        return {"atol": self.atol, "rtol": self.rtol}


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """Inputs with the outputs that they must give, as an .npz of arrays `input:<name>` and `output:<name>`.

    The first axis counts the cases: each is run on its own, as a batch of one.
    """

    file: ArtifactRef
    cases: int
    tolerances: Mapping[str, Tolerance]

    @classmethod
    def read(cls, fields: Fields) -> GoldenSet:
        return cls(
            file=ArtifactRef.read(fields),
            cases=fields.integer("cases", minimum=1),
            tolerances=fields.mapping("tolerances", Tolerance.read),
        )

    def document(self) -> dict[str, JsonValue]:
        tolerances: dict[str, JsonValue] = {name: each.document() for name, each in self.tolerances.items()}
        return {**self.file.document(), "cases": self.cases, "tolerances": tolerances}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one inference (a batch of one) may cost on a device: p99 of the latency, and memory of the model."""

    latency_us: int = 10_000
    memory_bytes: int = 256 << 20

    @classmethod
    def read(cls, fields: Fields) -> Budget:
        return cls(
            latency_us=fields.integer("latency_us", minimum=1),
            memory_bytes=fields.integer("memory_bytes", minimum=1),
        )

    def document(self) -> dict[str, JsonValue]:
        return {"latency_us": self.latency_us, "memory_bytes": self.memory_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePolicy:
    """What of an inference is recorded for the fleet. Inputs are patient data: left out unless asked for."""

    mode: CaptureMode = CaptureMode.OFF
    inputs: bool = False
    outputs: bool = True

    @classmethod
    def read(cls, fields: Fields) -> CapturePolicy:
        return cls(
            mode=fields.choice("mode", CaptureMode),
            inputs=fields.boolean("inputs", default=False),
            outputs=fields.boolean("outputs", default=True),
        )

    def document(self) -> dict[str, JsonValue]:
        return {"mode": self.mode.value, "inputs": self.inputs, "outputs": self.outputs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a device, a reviewer and a dashboard must know of a release.

    Raises (on `parse`): ContractError, which names the key.
    """

    name: ModelName
    version: int
    summary: str
    intended_use: str
    file: ArtifactRef
    golden: GoldenSet
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    budget: Budget = field(default_factory=Budget)
    capture: CapturePolicy = field(default_factory=CapturePolicy)
    serving: ServingOptions = field(default_factory=ServingOptions)
    license: str = ""
    attribution: str = ""

    @property
    def release(self) -> ReleaseRef:
        return ReleaseRef(self.name, self.version)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        fields = parse_json(data, limit_bytes=MAX_MANIFEST_BYTES)
        check_schema(fields, SCHEMA)
        manifest = cls(
            name=model_name(fields.text("name"), "name"),
            version=fields.integer("version", minimum=1),
            summary=fields.text("summary", default=""),
            intended_use=fields.text("intended_use", default="", max_length=10_000),
            file=ArtifactRef.read(fields.object("file")),
            golden=GoldenSet.read(fields.object("golden")),
            inputs=_tensors(fields, "inputs"),
            outputs=_tensors(fields, "outputs"),
            budget=Budget.read(fields.object("budget")) if fields.has("budget") else Budget(),
            capture=CapturePolicy.read(fields.object("capture")) if fields.has("capture") else CapturePolicy(),
            serving=ServingOptions.read(fields.object("serving")) if fields.has("serving") else ServingOptions(),
            license=fields.text("license", default=""),
            attribution=fields.text("attribution", default="", max_length=10_000),
        )
        _check_tolerances(manifest)
        check_batching(manifest.serving, (*manifest.inputs, *manifest.outputs))
        return manifest

    def canonical(self) -> bytes:
        """The bytes that are stored, sent and hashed."""
        serving = self.serving.document()
        return canonical_json(
            {
                **({"serving": serving} if serving else {}),
                "schema": SCHEMA,
                "name": self.name,
                "version": self.version,
                "summary": self.summary,
                "intended_use": self.intended_use,
                "file": self.file.document(),
                "golden": self.golden.document(),
                "inputs": [each.document() for each in self.inputs],
                "outputs": [each.document() for each in self.outputs],
                "budget": self.budget.document(),
                "capture": self.capture.document(),
                "license": self.license,
                "attribution": self.attribution,
            }
        )

    def sha256(self) -> Sha256:
        return sha256_of(self.canonical())


def _tensors(fields: Fields, key: str) -> tuple[TensorSpec, ...]:
    tensors = tuple(TensorSpec.read(each) for each in fields.objects(key, max_items=MAX_TENSORS))
    names = [tensor.name for tensor in tensors]
    if not names or len(set(names)) != len(names):
        raise ContractError(key, f"expected at least one tensor, each name once, got {names}")
    return tensors


def check_batching(serving: ServingOptions, tensors: Iterable[TensorSpec]) -> None:
    """Requests can be joined only along a first axis that is free in every tensor. Raises ContractError."""
    for each in tensors:
        if serving.batching is not None and each.shape[:1] != (-1,):
            raise ContractError(
                "serving.batching", f"expected a free first axis in every tensor, got {each.name} {list(each.shape)}"
            )


def _check_tolerances(manifest: Manifest) -> None:
    missing = {tensor.name for tensor in manifest.outputs} ^ set(manifest.golden.tolerances)
    if missing:
        raise ContractError(
            "golden.tolerances", f"expected one for each output and no other, differs in {sorted(missing)}"
        )
