"""A release as a folder on disk. Needs neither numpy nor onnx, so that `edgeward model push` starts at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_contract.artifact import ArtifactRef, sha256_of_file
from edgeward_contract.manifest import Manifest
from edgeward_contract.schema import ContractError
from edgeward_fleet.packing.errors import FolderRefused

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
GOLDEN: Final = "golden.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFolder:
    """A complete release on disk: `manifest.json`, `model.onnx`, `golden.npz`, checked against each other."""

    path: Path
    manifest: Manifest
    manifest_bytes: bytes

    @property
    def files(self) -> tuple[tuple[ArtifactRef, Path], ...]:
        return (
            (self.manifest.file, self.path / MODEL),
            (self.manifest.golden.file, self.path / GOLDEN),
        )


def read_release(folder: Path) -> ReleaseFolder:
    """Raises FolderRefused unless the folder is complete and every file is the one that the manifest names."""
    try:
        data = (folder / MANIFEST).read_bytes()
        release = ReleaseFolder(path=folder, manifest=Manifest.parse(data), manifest_bytes=data)
        for artifact, path in release.files:
            _check_file(artifact, path)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise FolderRefused(
            f"{folder}: expected {MANIFEST}, {MODEL} and {GOLDEN}, found no {missing}",
            hint="Name a folder that `edgeward model pack` made.",
        ) from None
    except ContractError as error:
        raise FolderRefused(f"{folder / MANIFEST}: {error}", hint="Pack the release again.") from None
    return release


def _check_file(artifact: ArtifactRef, path: Path) -> None:
    found = sha256_of_file(path)
    if found != artifact.sha256:
        raise FolderRefused(
            f"{path}: expected sha256 {artifact.sha256[:12]}…, as the manifest says, found {found[:12]}…",
            hint="The file was changed after packing; pack the release again.",
        )
