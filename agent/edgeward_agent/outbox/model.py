"""What goes into the outbox, what comes out, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeward_agent.errors import OutboxError
from edgeward_contract.record import Record, RecordClass
from edgeward_contract.schema import JsonValue

TOMBSTONE: Final = "tombstone"
RECOVERED: Final = "outbox_recovered"

RANKS: Final = {RecordClass.AUDIT: 0, RecordClass.RESULT: 1, RecordClass.TELEMETRY: 2}
"""The order in which classes are sent, as it is stored; lower goes first."""
CLASSES: Final = {rank: record_class for record_class, rank in RANKS.items()}


class RecordRefused(OutboxError):
    """This record will never be taken, however much room there is."""

    hint = "Capture less: a manifest's capture policy says which inputs and outputs go into a record."


class StoreDamaged(OutboxError):
    """What is on disk is not what was written. Raised inside the package; the store then starts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A record before it has a number. `wall_us` is when it happened, in Unix time; None means now."""

    record_class: RecordClass
    kind: str
    body: Mapping[str, JsonValue]
    wall_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The number of a committed record. A conflict may move it to another epoch before it is taken."""

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """`max_bytes` caps the database; `ballast_bytes` are held on disk so that a full disk can still be emptied.

    A period's key outlives its last record by `key_retention_days`. At most `max_waiting` appends wait for a commit.
    """

    max_bytes: int = 256 << 20
    ballast_bytes: int = 4 << 20
    key_retention_days: int = 0
    max_waiting: int = 256
    maintain_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The outbox at a glance. `dropped` counts telemetry given up for room since the store began.

    `refused` counts records not taken since the agent started, whether or not somebody was told. `alarms`:
    `outbox_corrupt` (a folder lies in `quarantine/`), `outbox_full`, `outbox_maintenance` (keys and room are not let go
    of: the disk refuses), `outbox_quarantine` (records wait for a person), `outbox_unwritable` (the disk is
    read-only or broken).
    """

    records: int
    oldest_s: int
    bytes: int
    quarantined: int
    epoch: str
    last_sequence: int
    dropped: int
    refused: int
    alarms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an acknowledgement changed: rows deleted, put aside, moved to a new epoch."""

    removed: int = 0
    quarantined: int = 0
    moved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRecord:
    """A row as a person sees it. `record` is None when it can no longer be opened; `reason` says why it is held."""

    row: int
    record: Record | None
    reason: str = ""
