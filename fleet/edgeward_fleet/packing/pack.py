"""From an ONNX file, a golden set and a sheet to a release folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeward_contract.artifact import ArtifactRef, model_name, sha256_of
from edgeward_contract.manifest import GoldenSet, Manifest, Tolerance, check_batching
from edgeward_contract.schema import ContractError
from edgeward_contract.serving_options import ServingOptions
from edgeward_fleet.packing.errors import FolderRefused, NotAModel, SheetRefused
from edgeward_fleet.packing.evaluate import evaluate
from edgeward_fleet.packing.folder import GOLDEN, MANIFEST, MODEL, ReleaseFolder
from edgeward_fleet.packing.golden import compare, complete, default_tolerance, read_golden, read_inputs
from edgeward_fleet.packing.sheet import Sheet, TensorNotes, annotate
from edgeward_fleet.packing.tensors import Signature, read_signature


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSource:
    """Where the golden set comes from: a complete set, or inputs whose outputs this very model shall give."""

    path: Path
    compute_outputs: bool


def pack(model: Path, golden: GoldenSource, sheet: Sheet, out: Path) -> ReleaseFolder:
    """Make a release of `model` in the folder `out`; the same things packed again change nothing.

    Raises:
        PackingError: something is no model, does not fit or does not agree; the message says what.
        OSError: a file cannot be read or written.
    """
    sheet.check()
    data = model.read_bytes()
    try:
        signature = read_signature(data, sheet.serving)
    except NotAModel as error:
        raise NotAModel(f"{model.name}: {error}", hint=error.hint) from None
    tolerances = _tolerances(signature, sheet.outputs)
    archive, cases = _golden(model, golden, signature, tolerances)
    manifest = Manifest(
        name=model_name(sheet.name, "name"),
        version=sheet.version,
        summary=sheet.summary,
        intended_use=sheet.intended_use,
        file=ArtifactRef(sha256=sha256_of(data), size_bytes=len(data)),
        golden=GoldenSet(
            file=ArtifactRef(sha256=sha256_of(archive), size_bytes=len(archive)), cases=cases, tolerances=tolerances
        ),
        inputs=annotate(signature.inputs, sheet.inputs, "input"),
        outputs=annotate(signature.outputs, sheet.outputs, "output"),
        budget=sheet.budget,
        capture=sheet.capture,
        serving=_serving(sheet, signature),
        license=sheet.license,
        attribution=sheet.attribution,
    )
    written = _readable(manifest)
    _write(out, {GOLDEN: archive, MODEL: data, MANIFEST: written})
    return ReleaseFolder(path=out, manifest=manifest, manifest_bytes=written)


def _readable(manifest: Manifest) -> bytes:
    """The manifest's bytes, once they have been read as the fleet and the devices will."""
    try:
        data = manifest.canonical()
        Manifest.parse(data)
    except UnicodeEncodeError as error:
        found = error.object[max(0, error.start - 20) : error.end]
        raise SheetRefused(f"expected text in UTF-8, got {found!r}") from None
    except ContractError as error:
        raise SheetRefused(str(error)) from None
    return data


def _serving(sheet: Sheet, signature: Signature) -> ServingOptions:
    try:
        check_batching(sheet.serving, (*signature.inputs, *signature.outputs))
    except ContractError as error:
        raise SheetRefused(str(error)) from None
    if sheet.serving.batching is not None and ("" in signature.first_axes or len(signature.first_axes) != 1):
        found = ", ".join(sorted(name or "none" for name in signature.first_axes))
        raise SheetRefused(
            f"serving.batching: expected one name for the first axis of every tensor of the graph, got {found}:"
            " nobody could say whose rows of joined requests are"
        )
    return sheet.serving


def _tolerances(signature: Signature, notes: Mapping[str, TensorNotes]) -> dict[str, Tolerance]:
    return {
        spec.name: notes.get(spec.name, TensorNotes()).tolerance or default_tolerance(spec.datatype)
        for spec in signature.outputs
    }


def _golden(
    model: Path, source: GoldenSource, signature: Signature, tolerances: Mapping[str, Tolerance]
) -> tuple[bytes, int]:
    """The archive's bytes and its number of cases. A complete set is kept byte for byte: somebody signed off on it."""
    if source.compute_outputs:
        inputs = read_inputs(source.path, signature)
        golden = complete(inputs, evaluate(model, inputs), signature)
    else:
        golden = read_golden(source.path, signature)
    compare(golden, evaluate(model, golden.inputs), tolerances)  # also of what it gave itself: it may be random
    return golden.archive() if source.compute_outputs else source.path.read_bytes(), golden.cases


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """All files or none, the manifest last: written beside, then renamed into place."""
    if out.exists():
        if all((out / name).is_file() and (out / name).read_bytes() == data for name, data in files.items()):
            return
        if not out.is_dir() or any(out.iterdir()):
            raise FolderRefused(f"{out}: expected a new or an empty folder, found other files")
    is_new = not out.exists()
    if is_new:
        out.parent.mkdir(parents=True, exist_ok=True)
    # An empty folder is filled and not replaced: somebody may stand in it, or something be mounted there.
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent if is_new else out))
    try:
        for name, data in files.items():
            (beside / name).write_bytes(data)
        if is_new:
            beside.chmod(0o755)
            beside.replace(out)
        else:
            for name in files:
                (beside / name).replace(out / name)
            beside.rmdir()
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
