"""What a person says of a release, and a model file cannot: name, intended use, labels, tolerances, policy.

A sheet is a TOML file, or the options of `edgeward model pack`; an option wins over the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeward_contract.artifact import MAX_VERSION, new_model_name
from edgeward_contract.manifest import Budget, CapturePolicy, TensorSpec, Tolerance
from edgeward_contract.schema import ContractError, Fields
from edgeward_contract.serving_options import PROVIDERS, ServingOptions
from edgeward_fleet.packing.errors import SheetRefused

_TEXTS: Final = ("summary", "intended_use", "license", "attribution")
_KEYS: Final = {"name", "version", *_TEXTS, "budget", "capture", "serving", "inputs", "outputs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNotes:
    """What a model file does not say of a tensor: names and units of the last axis, how far an answer may differ."""

    labels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    tolerance: Tolerance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The description of a release. `name` and `version` may come later, from options."""

    name: str = ""
    version: int = 0
    summary: str = ""
    intended_use: str = ""
    license: str = ""
    attribution: str = ""
    budget: Budget = field(default_factory=Budget)
    capture: CapturePolicy = field(default_factory=CapturePolicy)
    serving: ServingOptions = field(default_factory=ServingOptions)
    inputs: Mapping[str, TensorNotes] = field(default_factory=dict)
    outputs: Mapping[str, TensorNotes] = field(default_factory=dict)

    def check(self) -> None:
        """Raises SheetRefused unless name and version are there and usable."""
        if not self.name or not self.version:
            raise SheetRefused(
                "expected a name and a version", hint="Give --name NAME and --version N, or --from FILE."
            )
        try:
            new_model_name(self.name, "name")
        except ContractError as error:
            raise SheetRefused(str(error)) from None
        if not 1 <= self.version <= MAX_VERSION:
            raise SheetRefused(f"version: expected 1 to {MAX_VERSION}, got {self.version}")


def read_sheet(path: Path) -> Sheet:
    """Raises SheetRefused, which names file and key; OSError as `open` does."""
    try:
        fields = Fields.of(tomllib.loads(path.read_text("utf-8")), "")
        return _sheet(fields)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ContractError) as error:
        raise SheetRefused(f"{path.name}: {error}") from None


def annotate(specs: tuple[TensorSpec, ...], notes: Mapping[str, TensorNotes], kind: str) -> tuple[TensorSpec, ...]:
    """The model's tensors with a person's labels and units. Raises SheetRefused for a tensor that is not there."""
    if unknown := set(notes) - {spec.name for spec in specs}:
        have = ", ".join(spec.name for spec in specs)
        raise SheetRefused(f"{kind} {', '.join(sorted(unknown))}: expected one of the model's: {have}")
    return tuple(_annotated(spec, notes.get(spec.name, TensorNotes()), kind) for spec in specs)


def _annotated(spec: TensorSpec, notes: TensorNotes, kind: str) -> TensorSpec:
    for what, names in (("labels", notes.labels), ("units", notes.units)):
        if names and (not spec.shape or spec.shape[-1] not in (-1, len(names))):
            raise SheetRefused(
                f"{kind} {spec.name}: expected {what} for the last axis of {list(spec.shape)}, got {len(names)}"
            )
    return TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape, labels=notes.labels, units=notes.units)


def _sheet(fields: Fields) -> Sheet:
    _only(fields, _KEYS)
    return Sheet(
        name=fields.text("name", default=""),
        version=fields.integer("version", default=0, minimum=0),
        summary=fields.text("summary", default=""),
        intended_use=fields.text("intended_use", default="", max_length=10_000),
        license=fields.text("license", default=""),
        attribution=fields.text("attribution", default="", max_length=10_000),
        budget=_budget(fields.object("budget")) if fields.has("budget") else Budget(),
        capture=_capture(fields.object("capture")) if fields.has("capture") else CapturePolicy(),
        serving=_serving(fields.object("serving")) if fields.has("serving") else ServingOptions(),
        inputs=fields.mapping("inputs", _notes) if fields.has("inputs") else {},
        outputs=fields.mapping("outputs", _notes) if fields.has("outputs") else {},
    )


def _budget(fields: Fields) -> Budget:
    _only(fields, {"latency_us", "memory_bytes"})
    usual = Budget()
    return Budget(
        latency_us=fields.integer("latency_us", default=usual.latency_us, minimum=1),
        memory_bytes=fields.integer("memory_bytes", default=usual.memory_bytes, minimum=1),
    )


def _capture(fields: Fields) -> CapturePolicy:
    _only(fields, {"mode", "inputs", "outputs"})
    return CapturePolicy.read(fields)


def _serving(fields: Fields) -> ServingOptions:
    _only(fields, {"threads", "providers", "dimensions", "denotations", "shrink_arena", "batching"})
    if fields.has("batching"):
        _only(fields.object("batching"), {"max_rows", "max_delay_us"})
    options = ServingOptions.read(fields)
    for name in options.providers:
        if name not in PROVIDERS:
            raise ContractError(fields.at("providers"), f"expected some of {', '.join(PROVIDERS)}, got {name}")
    return options


def _notes(fields: Fields) -> TensorNotes:
    _only(fields, {"labels", "units", "atol", "rtol"})
    tolerance = None
    if fields.has("atol") or fields.has("rtol"):
        tolerance = Tolerance(
            atol=fields.number("atol", default=0.0, minimum=0), rtol=fields.number("rtol", default=0.0, minimum=0)
        )
    return TensorNotes(labels=fields.texts("labels"), units=fields.texts("units"), tolerance=tolerance)


def _only(fields: Fields, known: set[str]) -> None:
    """A sheet is written by hand: a key that is not known is a slip of the pen, not a newer version."""
    for name in fields.names:
        if name not in known:
            raise ContractError(fields.at(name), f"expected one of {', '.join(sorted(known))}")
