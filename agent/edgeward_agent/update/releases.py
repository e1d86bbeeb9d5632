"""The release folders on disk, and boot.json, which tells the serving process what to start with.

A folder under its final name is complete: it was assembled beside, flushed, checked and renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeward_agent.errors import UpdateError
from edgeward_agent.update.files import flush_folder, write_durably
from edgeward_agent.update.slots import Installed, Slots
from edgeward_contract.artifact import ArtifactRef, ModelName, ReleaseRef, Sha256, model_name, read_sha256, sha256_of
from edgeward_contract.artifact import sha256_of_file as hash_file
from edgeward_contract.manifest import Manifest
from edgeward_contract.schema import ContractError, parse_json

BOOT_FILE: Final = "boot.json"
MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
GOLDEN: Final = "golden.npz"
_PARTIAL: Final = ".partial"


class DigestMismatch(UpdateError):
    """Bytes are not what their name says. Fetched again a few times, then given up."""

    reason = "digest_mismatch"
    hint = "Push the release again; if it comes back, something between fleet and device changes bytes."

    def __init__(self, what: str, *, expected: Sha256, found: Sha256) -> None:
        super().__init__(f"{what}: expected sha256 {expected[:12]}…, got {found[:12]}…")


class WrongRelease(UpdateError):
    """The manifest is genuine and of another release than the desired state says."""

    reason = "manifest_mismatch"
    hint = "Create the rollout again; its desired state names a digest of another release."


class ReleaseFolders:
    """`releases/<sha256>` of one state folder. Blocking; methods raise OSError as the disk does."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / "releases"
        self.root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: Sha256) -> Path:
        return self.root / sha256

    def partial(self, sha256: Sha256) -> Path:
        return self.root / (sha256 + _PARTIAL)

    def complete(self, sha256: Sha256) -> bool:
        return self.path(sha256).is_dir()

    def arriving(self, sha256: Sha256) -> bool:
        """Whether it is being fetched, for the first time or again."""
        return self.partial(sha256).is_dir()

    def doubt(self, sha256: Sha256) -> None:
        """Have a complete release fetched again, beside what is here: that may still be served from its graph."""
        self.partial(sha256).mkdir(exist_ok=True)

    def begin(self, sha256: Sha256, manifest: bytes) -> None:
        """Keep a manifest whose digest was checked."""
        self.partial(sha256).mkdir(exist_ok=True)
        write_durably(self.partial(sha256) / MANIFEST, manifest)

    def manifest(self, sha256: Sha256) -> Manifest | None:
        """The manifest of a release that is here or on its way, None when it is not; raises ContractError."""
        for folder in (self.path(sha256), self.partial(sha256)):
            with suppress(OSError):
                data = (folder / MANIFEST).read_bytes()
                if sha256_of(data) == sha256:
                    return Manifest.parse(data)
        return None

    def publish(self, sha256: Sha256) -> None:
        """Give an assembled folder its final name. Its files are flushed already.

        Into a folder that is here it goes file by file: at any moment each file is the damaged one or the good one.
        """
        partial, final = self.partial(sha256), self.path(sha256)
        flush_folder(partial)
        if final.is_dir():
            for file in partial.iterdir():
                file.replace(final / file.name)
            flush_folder(final)
            partial.rmdir()
        else:
            partial.rename(final)
        flush_folder(self.root)

    def check(self, sha256: Sha256) -> None:
        """Hash a complete folder again. Raises DigestMismatch, ContractError."""
        data = _read(self.path(sha256) / MANIFEST)
        if sha256_of(data) != sha256:
            raise DigestMismatch(MANIFEST, expected=sha256, found=sha256_of(data))
        manifest = Manifest.parse(data)
        check_file(self.path(sha256) / MODEL, manifest.file)
        check_file(self.path(sha256) / GOLDEN, manifest.golden.file)

    def problem(self, sha256: Sha256) -> DigestMismatch | ContractError | OSError | None:
        """What `check` finds; a disk that cannot read the folder any more is a finding too."""
        try:
            self.check(sha256)
        except (DigestMismatch, ContractError, OSError) as error:
            return error
        return None

    def wrong_size(self, sha256: Sha256) -> str:
        """A glance at a complete folder: in words which file is missing or has not its size, else empty."""
        manifest = self.manifest(sha256)
        if manifest is None:
            return f"expected a {MANIFEST} of this digest, got none"
        for name, artifact in ((MODEL, manifest.file), (GOLDEN, manifest.golden.file)):
            path = self.path(sha256) / name
            found = path.stat().st_size if path.exists() else 0
            if found != artifact.size_bytes:
                return f"{name}: expected {artifact.size_bytes} bytes, got {found}"
        return ""

    def collect(self, *, keep: frozenset[Sha256], under_way: frozenset[Sha256]) -> None:
        """Remove every release that is not in `keep`, and every piece of one that is not on its way."""
        wanted = keep | {sha256 + _PARTIAL for sha256 in under_way}
        for folder in self.root.iterdir():
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def check_release(sha256: Sha256, data: bytes, wanted: ReleaseRef) -> Manifest:
    """Read a fetched manifest. Raises DigestMismatch, ContractError, WrongRelease."""
    if sha256_of(data) != sha256:
        raise DigestMismatch("manifest", expected=sha256, found=sha256_of(data))
    manifest = Manifest.parse(data)
    if manifest.release != wanted:
        raise WrongRelease(f"manifest: expected {wanted}, got {manifest.release}")
    return manifest


def boot_document(state_dir: Path, slots: Mapping[ModelName, Slots]) -> bytes:
    """What the serving process starts with: the `current` slots and nothing on trial."""
    root = state_dir.absolute() / "releases"
    models = [
        {"name": name, "version": each.version, "sha256": each.sha256, "path": str(root / each.sha256)}
        for name, each in sorted((name, slot.current) for name, slot in slots.items() if slot.current)
    ]
    return json.dumps({"models": models}, indent=1).encode()


def write_boot_file(state_dir: Path, slots: Mapping[ModelName, Slots]) -> None:
    """Write boot.json if it says anything else. Raises OSError."""
    path, document = state_dir / BOOT_FILE, boot_document(state_dir, slots)
    if not path.exists() or path.read_bytes() != document:
        write_durably(path, document)


def read_boot_file(state_dir: Path) -> dict[ModelName, Slots]:
    """The slots as far as boot.json knows them, for when the journal is lost; empty when it cannot be read."""
    try:
        fields = parse_json((state_dir / BOOT_FILE).read_bytes())
        return {
            model_name(each.text("name"), "name"): Slots(
                current=Installed(version=each.integer("version", minimum=1), sha256=read_sha256(each, "sha256"))
            )
            for each in fields.objects("models")
        }
    except (OSError, ContractError):
        return {}


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def check_file(path: Path, expected: ArtifactRef) -> None:
    """Raises DigestMismatch; a file that is missing has the digest of nothing."""
    found = hash_file(path) if path.exists() else sha256_of(b"")
    if found != expected.sha256:
        raise DigestMismatch(path.name, expected=expected.sha256, found=found)
