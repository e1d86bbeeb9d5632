"""Records are sealed before they touch the disk, so that a lost device gives away no patient's data.

AES-256-GCM per record. A record is bound to its place by the associated data (device, epoch, sequence, kind, class):
a row moved, renumbered or relabelled on disk no longer opens. Data keys are per day and wrapped by the key in
`outbox.key`; a deleted row may linger on a flash disk, and destroying the day's key is what makes it unreadable.
Nonces are random, 96 bits: safe for 2^32 records a key (NIST SP 800-38D, 8.3), and a day has fewer.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeward_agent.errors import OutboxError
from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import RecordClass
from edgeward_contract.schema import canonical_json

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class SealBroken(OutboxError):
    """The bytes are not what was sealed, or not for this place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a sealed record is bound to."""

    device: DeviceId
    epoch: str
    sequence: int
    kind: str
    record_class: RecordClass

    def associated_data(self) -> bytes:
        return canonical_json(
            {
                "device": self.device,
                "epoch": self.epoch,
                "sequence": self.sequence,
                "kind": self.kind,
                "class": self.record_class.value,
            }
        )


class Cipher:
    """One key."""

    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._gcm.encrypt(nonce, plaintext, associated_data)

    def open(self, sealed: bytes, associated_data: bytes) -> bytes:
        """Raises SealBroken."""
        try:
            return self._gcm.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated_data)
        except (InvalidTag, ValueError):
            raise SealBroken(
                "expected the bytes that were sealed, got others (damaged, moved or another key)"
            ) from None


def new_data_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def wrap(master: Cipher, key: bytes, key_id: str) -> bytes:
    return master.seal(key, _wrapping(key_id))


def unwrap(master: Cipher, wrapped: bytes, key_id: str) -> Cipher:
    """Raises SealBroken: damaged, or wrapped by another `outbox.key`."""
    return Cipher(master.open(wrapped, _wrapping(key_id)))


def load_master(path: Path) -> Cipher:
    """Read the key-encryption key.

    Raises:
        FileNotFoundError: there is none yet.
        SealBroken: the file is not a key.
    """
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise SealBroken(f"{path.name}: expected {KEY_BYTES} bytes, got {len(key)}")
    return Cipher(key)


def create_master(path: Path) -> Cipher:
    """Make the key-encryption key, whole or not at all, readable by its owner alone."""
    key = secrets.token_bytes(KEY_BYTES)
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
    return Cipher(key)


def _wrapping(key_id: str) -> bytes:
    return b"edgeward outbox period key " + key_id.encode()
