"""The audit chain as pure values: each entry carries the digest of the one before, so a cut or a change shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgeward_contract.schema import JsonValue, canonical_json
from edgeward_fleet.clock import rfc3339

GENESIS: Final = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts and from where. `name` is a username, `device:<id>` or `system`."""

    name: str
    address: str = ""


SYSTEM: Final = Actor(name="system")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the log. `detail` is canonical JSON: the digest is over its very bytes."""

    sequence: int
    at: datetime
    actor: str
    address: str
    action: str
    subject: str
    detail: str
    previous_sha256: str
    sha256: str

    def expected_sha256(self) -> str:
        content: dict[str, JsonValue] = {
            "sequence": self.sequence,
            "at": rfc3339(self.at),
            "actor": self.actor,
            "address": self.address,
            "action": self.action,
            "subject": self.subject,
            "detail": self.detail,
            "previous_sha256": self.previous_sha256,
        }
        return hashlib.sha256(canonical_json(content)).hexdigest()


def problem_between(before: AuditEntry | None, entry: AuditEntry) -> str | None:
    """What is wrong with `entry` as the follower of `before`; None when nothing is."""
    expected = before.sequence + 1 if before else 1
    if entry.sequence != expected:
        return f"expected entry {expected}, got entry {entry.sequence}: entries in between are gone"
    if entry.previous_sha256 != (before.sha256 if before else GENESIS):
        return f"entry {entry.sequence}: expected the digest of the entry before, got another"
    if entry.sha256 != entry.expected_sha256():
        return f"entry {entry.sequence}: expected its content to match its digest, it was changed"
    return None
