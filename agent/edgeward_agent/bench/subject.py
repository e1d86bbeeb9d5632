"""The model under test: loaded by the very code that serves it, and named as it would be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_agent.bench import bf16
from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.errors import ModelError, UpdateError
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.release import MANIFEST, MODEL, read_manifest
from edgeward_agent.serving.session import Session
from edgeward_agent.update.policy import check_model
from edgeward_agent.wire.tensors import Array, floats_of_bf16
from edgeward_contract.manifest import Manifest, TensorSpec
from edgeward_contract.serving_options import ServingOptions

_HINTS: Final = (
    (
        "External data",
        "Put the data file back beside the model, or save the model as one file: onnx.save(model, path).",
    ),
    ("Protobuf parsing failed", "Give a file that was exported as ONNX, whole: torch.onnx.export, skl2onnx, tf2onnx."),
    ("No graph was found", "Give a file that was exported as ONNX, whole: torch.onnx.export, skl2onnx, tf2onnx."),
    ("is not a registered function/op", "This runtime has no such operator: export with operators of ONNX itself."),
    ("No Op registered", "This runtime has no such operator: export with a newer opset, or with other operators."),
    ("NOT_IMPLEMENTED", "This runtime has no such operator for these types: export in float32, or as QDQ."),
    ("Opset", "Export with an older opset (opset_version=17 works everywhere), or renew onnxruntime."),
    ("IR version", "Save with an older IR version (model.ir_version = 9), or renew onnxruntime."),
    ("clients can send", "Export the model with tensors of an ordinary type, such as float32 or int64."),
    ("is invalid", "The file is inconsistent: run onnx.checker.check_model on it, and export it again."),
)
_PLAIN_HINT: Final = "Give the path of an ONNX file, or of a release folder that holds model.onnx and manifest.json."
_NO_LIMIT_BYTES: Final = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model in memory. `path` is what was given, `file` the ONNX file. `manifest` is None for a plain file."""

    name: str
    version: int
    path: Path
    file: Path
    size_bytes: int
    sha256: str
    session: Session
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    manifest: Manifest | None = None
    refused: str = ""  # why a device would not take the file; empty when it would

    @property
    def title(self) -> str:
        return f"{self.name}@{self.version}" if self.manifest else self.file.name

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def serving(self) -> ServingOptions:
        return self.manifest.serving if self.manifest else ServingOptions()

    def answer(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """By output; BF16 as floats. Raises ServingError."""
        bits = bf16.names(self.session.interface.outputs.values())
        found = zip(self.outputs, self.session.run(self.outputs, feeds), strict=True)
        return {name: floats_of_bf16(each) if name in bits else each for name, each in found}


def load(path: Path) -> Subject:
    """Load an ONNX file or a release folder. Raises CannotMeasure."""
    file = file_of(path)
    _check_readable(file)
    try:
        version = load_file(path)
    except ModelError as error:
        raise CannotMeasure(_shortened(str(error)), _hint(error)) from None
    beside = file.with_name(MANIFEST)
    return Subject(
        name=version.name,
        version=version.version,
        path=path,
        file=file,
        size_bytes=file.stat().st_size,
        sha256=version.sha256 if not beside.is_file() else read_manifest(beside)[0].file.sha256,
        session=version.session,
        inputs=tuple(version.interface.inputs.values()),
        outputs=tuple(version.interface.outputs),
        manifest=read_manifest(beside)[0] if beside.is_file() else None,
        refused=_refused(file),
    )


def file_of(path: Path) -> Path:
    """The ONNX file of what was given: a file, or a release folder."""
    return path / MODEL if path.is_dir() else path


def _check_readable(file: Path) -> None:
    """The runtime would tell the number of the error alone. Raises CannotMeasure."""
    try:
        if file.is_file():
            file.open("rb").close()
    except OSError as error:
        raise CannotMeasure(
            f"{file}: expected a file that can be read, got: {(error.strerror or str(error)).lower()}",
            "Give yourself the right to read it (chmod u+r), or take a copy that you may read.",
        ) from None


def budget_of(subject: Subject | None) -> Budget:
    """What the release promises, else what this product does."""
    if subject is not None and subject.manifest is not None:
        return Budget(latency_us=subject.manifest.budget.latency_us, said="the manifest")
    return Budget(latency_us=10_000, said="the default")


def check_same_inputs(first: Subject, second: Subject) -> None:
    """Raises CannotMeasure when the second cannot be asked what the first is asked."""
    if _signature(first.inputs) != _signature(second.inputs):
        raise CannotMeasure(
            f"--compare {second.path}: expected inputs {_signature(first.inputs)} as {first.path} has,"
            f" got {_signature(second.inputs)}",
            "Compare models that take the same inputs; bench others one by one.",
        )


def _signature(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(sorted(f"{each.name} {each.datatype} rank {len(each.shape)}" for each in specs))


def _refused(file: Path) -> str:
    try:
        check_model(file, max_bytes=_NO_LIMIT_BYTES)
    except UpdateError as error:
        return str(error)
    return ""


def _hint(error: ModelError) -> str:
    if type(error).hint != ModelError.hint:  # it knows better
        return error.hint
    return next((hint for words, hint in _HINTS if words in str(error)), _PLAIN_HINT)


def _shortened(message: str) -> str:
    """Without the places in the runtime's own source, which help nobody."""
    before, got, reason = message.partition(", got: ")
    for words in ("Unsupported model IR version", "Opset ", "External data path does not exist"):
        if words in reason:
            reason = reason[reason.index(words) :]
    return before + got + reason[:240]
