"""Where the passphrase of the CA's key comes from: the environment, a file, or one that is made at the first start."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_fleet.data_dir import write_private
from edgeward_fleet.errors import DataDirError, PassphraseError

VARIABLE: Final = "EDGEWARD_CA_PASSPHRASE"
FILE_VARIABLE: Final = "EDGEWARD_CA_PASSPHRASE_FILE"
GENERATED: Final = "ca.passphrase"
MIN_LENGTH: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Passphrase:
    """`origin` says where it came from, for people; the secret stays out of `repr`."""

    secret: bytes
    origin: str

    def __repr__(self) -> str:
        return f"Passphrase(from {self.origin})"


def find(environment: Mapping[str, str], data_dir: Path, *, make: bool = False) -> Passphrase:
    """Take the one of the environment, else the generated file. `make` one where there is none, for a new CA alone:
    a new passphrase opens no key that is there already.

    Raises:
        PassphraseError: the file is not there or cannot be read, or the passphrase is too short.
        DataDirError: the file cannot be made.
    """
    if value := environment.get(VARIABLE):
        return _checked(value.encode(), VARIABLE)
    if path := environment.get(FILE_VARIABLE):
        return _checked(_read(Path(path)), path)
    generated = data_dir / GENERATED
    if make and not generated.exists():
        _generate(generated)
    return _checked(_read(generated), str(generated))


def _checked(secret: bytes, origin: str) -> Passphrase:
    if len(secret) < MIN_LENGTH:
        raise PassphraseError(f"{origin}: expected a passphrase of at least {MIN_LENGTH} bytes, got {len(secret)}")
    return Passphrase(secret=secret, origin=origin)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise PassphraseError(f"{path}: expected a readable file with the passphrase, got: {error.strerror}") from None


def _generate(path: Path) -> None:
    secret = secrets.token_urlsafe(32).encode() + b"\n"
    try:
        write_private(path, secret)  # flushed: the key that it opens is committed right after
    except OSError as error:
        raise DataDirError(f"{path}: expected a file that can be written, got: {error.strerror}") from None
