"""`edgeward model pack`: options and a sheet to a release folder. Asks nothing, so that it runs in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeward_contract.artifact import sha256_of
from edgeward_contract.manifest import CaptureMode, Manifest
from edgeward_fleet.cli.errors import BadUsage
from edgeward_fleet.cli.options import FILE, FOLDER, answering
from edgeward_fleet.cli.output import Output
from edgeward_fleet.cli.values import duration
from edgeward_fleet.packing.folder import ReleaseFolder
from edgeward_fleet.packing.sheet import Sheet, TensorNotes, read_sheet

if TYPE_CHECKING:
    from edgeward_fleet.packing.pack import GoldenSource


@click.command()
@click.argument("model", type=FILE)
@click.option("--from", "sheet_file", type=FILE, help="A TOML file with the description; options win over it.")
@click.option("--name", help="The model's name: a-z, 0-9, '.', '_', '-'.")
@click.option("--version", type=click.IntRange(min=1), help="The release's version, a whole number that you count up.")
@click.option("--golden", type=FILE, help="An .npz of arrays input:<name> and output:<name>, first axis the cases.")
@click.option("--golden-inputs", type=FILE, help="An .npz of inputs alone; this model's own outputs become the set.")
@click.option("--out", "folder", type=FOLDER, required=True, help="The folder to make.")
@click.option("--labels", multiple=True, metavar="OUTPUT=A,B,…", help="Names of an output's last axis.")
@click.option("--budget", type=duration, help="What one inference may take at p99, such as 10ms.")
@click.option(
    "--capture",
    type=click.Choice([mode.value for mode in CaptureMode]),
    help="Whether an answer leaves a record: off, after the answer (async), or before it (durable).",
)
@click.option("--summary", help="One line on what it does.")
@click.option("--intended-use", help="Who may use it for what.")
@answering
def pack(
    model: Path,
    sheet_file: Path | None,
    name: str | None,
    version: int | None,
    golden: Path | None,
    golden_inputs: Path | None,
    folder: Path,
    labels: tuple[str, ...],
    budget: int | None,
    capture: str | None,
    summary: str | None,
    intended_use: str | None,
    out: Output,
) -> None:
    """Make a release of MODEL, an ONNX file: manifest, model and golden set in one folder.

    Names, types and shapes of the tensors are read from the file. The model is run on its golden set here, and
    refused when it disagrees. Units, tolerances, licence and the rest of the description come from a --from file.
    """
    from edgeward_fleet.packing.pack import pack as make  # numpy and onnx take a second that only this command needs

    source = _source(golden, golden_inputs)
    sheet = read_sheet(sheet_file) if sheet_file else Sheet()
    sheet = replace(
        sheet,
        name=name or sheet.name,
        version=version or sheet.version,
        summary=summary or sheet.summary,
        intended_use=intended_use or sheet.intended_use,
        budget=replace(sheet.budget, latency_us=budget or sheet.budget.latency_us),
        capture=replace(sheet.capture, mode=CaptureMode(capture) if capture else sheet.capture.mode),
        outputs=_labelled(sheet.outputs, labels),
    )
    _report(make(model, source, sheet, folder), out)


def _source(golden: Path | None, golden_inputs: Path | None) -> GoldenSource:
    from edgeward_fleet.packing.pack import GoldenSource

    path = golden or golden_inputs
    if path is None or (golden and golden_inputs):
        raise BadUsage(
            "expected --golden or --golden-inputs, one of them",
            hint="Without golden cases no device could tell a wrong model from a right one.",
        )
    return GoldenSource(path=path, compute_outputs=golden is None)


def _labelled(notes: Mapping[str, TensorNotes], labels: tuple[str, ...]) -> dict[str, TensorNotes]:
    made = dict(notes)
    for text in labels:
        name, equals, names = text.partition("=")
        if not equals:
            raise BadUsage(f"--labels: expected OUTPUT=A,B,…, got {text!r}")
        made[name] = replace(made.get(name, TensorNotes()), labels=tuple(each.strip() for each in names.split(",")))
    return made


def _report(release: ReleaseFolder, out: Output) -> None:
    manifest, digest = release.manifest, sha256_of(release.manifest_bytes)
    out.show(
        {
            "release": str(manifest.release),
            "sha256": digest,
            "folder": str(release.path),
            "cases": manifest.golden.cases,
        },
        f"Packed {manifest.release} into {release.path} (sha256 {digest[:12]}…).",
        f"  {_tensors(manifest)}",
        f"  golden set: {manifest.golden.cases} cases, and the model agrees with every one",
        f"Next: edgeward model check {release.path}",
    )


def _tensors(manifest: Manifest) -> str:
    sides = (manifest.inputs, manifest.outputs)
    return " → ".join(
        ", ".join(f"{each.name} {each.datatype.value}{list(each.shape)}" for each in side) for side in sides
    )
