"""Releases: make, check, register, look at."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from edgeward_contract.artifact import ReleaseRef
from edgeward_fleet.cli.check import probe
from edgeward_fleet.cli.errors import CommandFailed
from edgeward_fleet.cli.options import FOLDER, answering, connect
from edgeward_fleet.cli.output import Column, Output, ago, described, text
from edgeward_fleet.cli.pack import pack
from edgeward_fleet.cli.push import push_release
from edgeward_fleet.cli.values import known_id, release
from edgeward_fleet.packing.folder import read_release

_MODELS: Final[tuple[Column, ...]] = (
    ("MODEL", text("name")),
    ("RELEASES", text("releases")),
    ("LATEST", lambda item: item.object("latest").text("release")),
    ("PUSHED", lambda item: ago("created_at")(item.object("latest"))),
)
_RELEASES: Final[tuple[Column, ...]] = (
    ("RELEASE", text("release")),
    ("PUSHED", ago("created_at")),
    ("BY", text("created_by")),
    ("SUMMARY", text("summary")),
)


@click.group()
def model() -> None:
    """Releases: make, check, register, look at."""


model.add_command(pack)


@model.command()
@click.argument("folder", type=FOLDER)
@answering
def check(folder: Path, out: Output) -> None:
    """Run on the release in FOLDER what every device will run; exit 1 when it is refused."""
    release = read_release(folder)
    verdict = probe(folder)
    document = {"release": str(release.manifest.release), **verdict.members()}
    if verdict.text("verdict") != "ok":
        out.show(document)
        raise CommandFailed(
            f"{release.manifest.release}: refused ({verdict.text('verdict')}): {verdict.text('detail', default='')}",
            hint="Every device would refuse it in the same way; nothing would change there.",
        )
    out.show(document, f"{release.manifest.release}: accepted. {verdict.text('detail', default='')}".rstrip())


@model.command()
@click.argument("folder", type=FOLDER)
@answering
def push(folder: Path, out: Output) -> None:
    """Register the release in FOLDER with the fleet; again is fine."""
    release = read_release(folder)
    total = sum(artifact.size_bytes for artifact, _ in release.files)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with connect() as fleet, Progress(*columns, console=Console(stderr=True), disable=not out.live) as progress:
        task = progress.add_task(f"Sending {release.manifest.release}", total=total)
        pushed = push_release(fleet, release, lambda size: progress.advance(task, size))
    word = "Registered" if pushed.created else "Already registered:"
    out.show(
        {
            "release": pushed.release,
            "sha256": pushed.sha256,
            "created": pushed.created,
            "sent_bytes": pushed.sent_bytes,
        },
        f"{word} {pushed.release} (sha256 {pushed.sha256[:12]}…).",
    )


@model.command("list")
@click.argument("name", required=False, type=known_id)
@answering
def list_models(name: str | None, out: Output) -> None:
    """List the models that the fleet knows, or the releases of the model NAME."""
    with connect() as fleet:
        if name is None:
            models = fleet.items("/models")
            out.table(models, _MODELS, empty="No models yet. `edgeward model push FOLDER` registers one.")
        else:
            out.table(fleet.get(f"/models/{name}").objects("items"), _RELEASES, empty=f"No releases of {name}.")


@model.command()
@click.argument("wanted", metavar="RELEASE", type=release)
@answering
def show(wanted: ReleaseRef, out: Output) -> None:
    """Show RELEASE (name@version): its manifest, and where it runs."""
    with connect() as fleet:
        found = fleet.get(f"/releases/{wanted.name}/{wanted.version}")
        out.show(found.members(), *described(found))
