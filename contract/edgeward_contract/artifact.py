"""Immutable content, named by what it contains.

A release is a manifest; the manifest's digest names everything else, so one digest in a desired document
is enough to check a whole model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NewType

from edgeward_contract.schema import ContractError, Fields, JsonValue

Sha256 = NewType("Sha256", str)
ModelName = NewType("ModelName", str)
DeviceId = NewType("DeviceId", str)

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# Fits a file name, an MQTT topic level, a URL segment and a certificate's common name without quoting.
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")

_VERSION_DIGITS: Final = 18
MAX_VERSION: Final = 10**_VERSION_DIGITS - 1
"""Of a release: what `name@version` can say, which is how a desired state names it."""
NAMES_TAKEN: Final[Mapping[str, str]] = {"stats": "/v2/models/stats is the statistics of all models"}
"""By the protocol that models are asked with; each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """A file of a release: what it must contain and how long it must be."""

    sha256: Sha256
    size_bytes: int

    @classmethod
    def read(cls, fields: Fields) -> ArtifactRef:
        return cls(sha256=read_sha256(fields, "sha256"), size_bytes=fields.integer("size_bytes", minimum=0))

    def document(self) -> dict[str, JsonValue]:
        return {"sha256": self.sha256, "size_bytes": self.size_bytes}


@dataclass(frozen=True, slots=True, order=True)
class ReleaseRef:
    """`name@version`, as people write it. Trust comes from the digest beside it, never from this."""

    name: ModelName
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> ReleaseRef:
        """Raises ContractError unless `text` looks like `wdbc-risk@2`."""
        name, at, version = text.partition("@")
        if (
            not at
            or not version.isascii()
            or not version.isdigit()
            or len(version) > _VERSION_DIGITS
            or int(version) < 1
        ):
            raise ContractError("release", f"expected name@version such as wdbc-risk@2, got {text[:80]!r}")
        return cls(model_name(name, "release"), int(version))


def sha256_of(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


def sha256_of_file(path: Path) -> Sha256:
    """Raises OSError as `open` does."""
    with path.open("rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def sha256_text(value: str, path: str) -> Sha256:
    if not _SHA256.fullmatch(value):
        raise ContractError(path, f"expected 64 lower-case hexadecimal digits, got {value[:70]!r}")
    return Sha256(value)


def read_sha256(fields: Fields, key: str) -> Sha256:
    return sha256_text(fields.text(key), fields.at(key))


def model_name(value: str, path: str) -> ModelName:
    if not _NAME.fullmatch(value) or ".." in value:
        raise ContractError(path, f"expected a name of a-z, 0-9, '.', '_', '-' (at most 64), got {value[:70]!r}")
    return ModelName(value)


def new_model_name(value: str, path: str) -> ModelName:
    """A name that a model may be given. Raises ContractError for one that is none, or has a meaning of its own."""
    if value in NAMES_TAKEN:
        raise ContractError(path, f"expected another name than {value!r}: {NAMES_TAKEN[value]}")
    return model_name(value, path)


def device_id(value: str, path: str) -> DeviceId:
    return DeviceId(model_name(value, path))
