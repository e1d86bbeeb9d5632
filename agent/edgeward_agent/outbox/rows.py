"""The sealed form of a record: a row of the database, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Final

from edgeward_agent.outbox.model import CLASSES, RANKS, Draft, RecordRefused
from edgeward_agent.outbox.sealing import Cipher, Place, SealBroken
from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import MAX_RECORD_BYTES, Record
from edgeward_contract.schema import ContractError, Fields, canonical_json

_ENVELOPE_BYTES: Final = 320
"""What the wire adds to head and body: names of members, epoch, sequence, class, digest; an upper bound."""
_MAX_KIND: Final = 64
COLUMNS: Final = "row, epoch, sequence, rank, kind, wall_us, wire_bytes, key_id, sealed"
PARAMETERS: Final = ", ".join("?" * 9)

RowTuple = tuple[int, str, int, int, str, int, int, str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a record was taken, by the device's clocks."""

    boot: str
    boot_us: int
    wall_us: int
    clock_trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A checked record that only lacks its number; made on the caller's thread, so that the owner's stays short."""

    rank: int
    kind: str
    wall_us: int
    plaintext: bytes

    @property
    def wire_bytes(self) -> int:
        return len(self.plaintext) + len(self.kind) + _ENVELOPE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sealed record as it lies in the database. `row` orders; `(epoch, sequence)` names."""

    row: int
    epoch: str
    sequence: int
    rank: int
    kind: str
    wall_us: int
    wire_bytes: int
    key_id: str
    sealed: bytes

    @classmethod
    def of(cls, columns: RowTuple) -> Row:
        row, epoch, sequence, rank, kind, wall_us, wire_bytes, key_id, sealed = columns
        return cls(
            row=row,
            epoch=epoch,
            sequence=sequence,
            rank=rank,
            kind=kind,
            wall_us=wall_us,
            wire_bytes=wire_bytes,
            key_id=key_id,
            sealed=sealed,
        )

    def columns(self) -> RowTuple:
        return (
            self.row,
            self.epoch,
            self.sequence,
            self.rank,
            self.kind,
            self.wall_us,
            self.wire_bytes,
            self.key_id,
            self.sealed,
        )

    def place(self, device: DeviceId) -> Place:
        """Raises SealBroken when the class is none that we know: no key opens such a row."""
        if self.rank not in CLASSES:
            raise SealBroken(f"expected a class of {sorted(CLASSES)}, got {self.rank}")
        return Place(
            device=device,
            epoch=self.epoch,
            sequence=self.sequence,
            kind=self.kind,
            record_class=CLASSES[self.rank],
        )


def prepare(draft: Draft, moment: Moment) -> Prepared:
    """Raises RecordRefused: too large, no kind, or a body that JSON cannot say."""
    if not 0 < len(draft.kind) <= _MAX_KIND:
        raise RecordRefused(f"kind: expected 1 to {_MAX_KIND} characters, got {len(draft.kind)}")
    wall_us = moment.wall_us if draft.wall_us is None else max(0, draft.wall_us)
    try:
        head = canonical_json(
            {
                "boot": moment.boot,
                "boot_us": moment.boot_us,
                "wall_us": wall_us,
                "clock_trusted": moment.clock_trusted,
            }
        )
        body = canonical_json(draft.body)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordRefused(f"body: expected what JSON can say, got: {error}") from None
    prepared = Prepared(rank=RANKS[draft.record_class], kind=draft.kind, wall_us=wall_us, plaintext=head + b"\n" + body)
    if prepared.wire_bytes > MAX_RECORD_BYTES:
        raise RecordRefused(f"record: expected at most {MAX_RECORD_BYTES} bytes, got {prepared.wire_bytes}")
    return prepared


def unseal(row: Row, cipher: Cipher, device: DeviceId) -> Record:
    """Raises SealBroken."""
    place = row.place(device)
    plaintext = cipher.open(row.sealed, place.associated_data())
    return record_of(plaintext, place)


def resized(row: Row, cipher: Cipher, device: DeviceId) -> Row:
    """The row with the columns that no seal covers made anew from its content. Raises SealBroken."""
    place = row.place(device)
    plaintext = cipher.open(row.sealed, place.associated_data())
    wall_us = record_of(plaintext, place).wall_us
    again = Prepared(rank=row.rank, kind=row.kind, wall_us=wall_us, plaintext=plaintext)
    return replace(row, wall_us=wall_us, wire_bytes=again.wire_bytes)


def record_of(plaintext: bytes, place: Place) -> Record:
    head, _, body = plaintext.partition(b"\n")
    try:
        fields = Fields.of(json.loads(head), "head")
        return Record(
            epoch=place.epoch,
            sequence=place.sequence,
            record_class=place.record_class,
            kind=place.kind,
            boot=fields.text("boot"),
            boot_us=fields.integer("boot_us"),
            wall_us=fields.integer("wall_us"),
            clock_trusted=fields.boolean("clock_trusted"),
            body=Fields.of(json.loads(body), "body").members(),
        )
    except (ContractError, ValueError) as error:
        raise SealBroken(f"expected the form of a sealed record, got: {error}") from None
