"""Registering a release: its files first, then the manifest that names them, so that a release is never half there."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_contract.artifact import Sha256, sha256_of
from edgeward_contract.schema import Fields
from edgeward_fleet.cli.client import Client
from edgeward_fleet.packing.folder import ReleaseFolder

PIECE_BYTES: Final = 256 * 1024
Sent = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push came to. `created` is false when the fleet had this very release already."""

    release: str
    sha256: Sha256
    created: bool
    sent_bytes: int


def push_release(fleet: Client, release: ReleaseFolder, sent: Sent) -> Pushed:
    """Register `release`; again is fine. `sent` hears of every piece's size, in bytes.

    Raises:
        CommandFailed: the same name and version are taken by another content, or the fleet refuses a file.
        NotAllowed, Undecided: as every request.
    """
    ref, digest = release.manifest.release, sha256_of(release.manifest_bytes)
    known = fleet.exists(f"/releases/{ref.name}/{ref.version}")
    if known is not None and known.raw("sha256") == digest:
        return Pushed(release=str(ref), sha256=digest, created=False, sent_bytes=0)
    for artifact, path in release.files:
        fleet.put(f"/artifacts/{artifact.sha256}", _pieces(path, sent), size_bytes=artifact.size_bytes)
    _register(fleet, release.manifest_bytes)
    total = sum(artifact.size_bytes for artifact, _ in release.files)
    return Pushed(release=str(ref), sha256=digest, created=True, sent_bytes=total)


def _register(fleet: Client, manifest: bytes) -> Fields:
    return fleet.post("/releases", {"manifest": base64.b64encode(manifest).decode()})


def _pieces(path: Path, sent: Sent) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            sent(len(piece))
