"""Records, batches and verdicts: how a result crosses from a device's outbox to the fleet's database.

`(device, epoch, sequence)` names a record for ever. The device is not in the envelope: the fleet takes it from the
certificate, so no device can write in another's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import Sha256, read_sha256, sha256_of
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, check_schema, parse_json

SCHEMA: Final = 1
MAX_RECORD_BYTES: Final = 256 * 1024
MAX_BATCH_BYTES: Final = 1 << 20
MAX_BATCH_RECORDS: Final = 1000


class RecordClass(StrEnum):
    """What may happen to a record when room runs out. Highest first; results and audit are never dropped."""

    AUDIT = "audit"
    RESULT = "result"
    TELEMETRY = "telemetry"


class VerdictStatus(StrEnum):
    """What the fleet did with a record. Sent only after the fleet's commit."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # the same record was here already: as good as accepted
    CONFLICT = "conflict"  # the key is taken by other content: the device was restored from an image
    REJECTED = "rejected"  # will never be accepted as it is: to quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened on a device. Times order nothing; they are for people.

    `kind` says what the body is (`inference`, `tombstone`, …); `wall_us` is Unix time,
    `boot_us` the time since `boot` began.
    """

    epoch: str
    sequence: int
    record_class: RecordClass
    kind: str
    boot: str
    boot_us: int
    wall_us: int
    clock_trusted: bool
    body: Mapping[str, JsonValue]

    @classmethod
    def read(cls, fields: Fields) -> Record:
        record = cls(
            epoch=fields.text("epoch", max_length=64),
            sequence=fields.integer("sequence", minimum=1),
            record_class=fields.choice("class", RecordClass),
            kind=fields.text("kind", max_length=64),
            boot=fields.text("boot", max_length=64),
            boot_us=fields.integer("boot_us", minimum=0),
            wall_us=fields.integer("wall_us", minimum=0),
            clock_trusted=fields.boolean("clock_trusted"),
            body=fields.object("body").members(),
        )
        if read_sha256(fields, "sha256") != record.sha256():
            raise ContractError(fields.at("sha256"), "expected the digest of the record, got another")
        return record

    def content(self) -> dict[str, JsonValue]:
        return {
            "epoch": self.epoch,
            "sequence": self.sequence,
            "class": self.record_class.value,
            "kind": self.kind,
            "boot": self.boot,
            "boot_us": self.boot_us,
            "wall_us": self.wall_us,
            "clock_trusted": self.clock_trusted,
            "body": dict(self.body),
        }

    def sha256(self) -> Sha256:
        """Of the canonical content: tells a duplicate from a conflict."""
        return sha256_of(canonical_json(self.content()))

    def document(self) -> dict[str, JsonValue]:
        return {**self.content(), "sha256": self.sha256()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one device, in the order of its outbox."""

    batch_id: str
    records: tuple[Record, ...]

    @classmethod
    def parse(cls, data: bytes) -> Batch:
        """Raises ContractError, which names the record: the sender then halves the batch until it has found it."""
        fields = parse_json(data, limit_bytes=MAX_BATCH_BYTES)
        check_schema(fields, SCHEMA)
        return cls(
            batch_id=fields.text("batch_id", max_length=64),
            records=tuple(Record.read(each) for each in fields.objects("records", max_items=MAX_BATCH_RECORDS)),
        )

    def canonical(self) -> bytes:
        return canonical_json(
            {"schema": SCHEMA, "batch_id": self.batch_id, "records": [each.document() for each in self.records]}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the fleet did with one record of a batch."""

    epoch: str
    sequence: int
    status: VerdictStatus
    reason: str = ""

    @classmethod
    def read(cls, fields: Fields) -> Verdict:
        return cls(
            epoch=fields.text("epoch", max_length=64),
            sequence=fields.integer("sequence", minimum=1),
            status=fields.choice("status", VerdictStatus),
            reason=fields.text("reason", default=""),
        )

    def document(self) -> dict[str, JsonValue]:
        return {"epoch": self.epoch, "sequence": self.sequence, "status": self.status.value, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The fleet's answer to a batch, sent after its commit. Only a record listed here may be deleted."""

    batch_id: str
    verdicts: tuple[Verdict, ...]

    @classmethod
    def parse(cls, data: bytes) -> Acknowledgement:
        """Raises ContractError, which names the key."""
        return cls.read(parse_json(data))

    @classmethod
    def read(cls, fields: Fields) -> Acknowledgement:
        check_schema(fields, SCHEMA)
        return cls(
            batch_id=fields.text("batch_id", max_length=64),
            verdicts=tuple(Verdict.read(each) for each in fields.objects("verdicts", max_items=MAX_BATCH_RECORDS)),
        )

    def document(self) -> dict[str, JsonValue]:
        return {"schema": SCHEMA, "batch_id": self.batch_id, "verdicts": [each.document() for each in self.verdicts]}

    def canonical(self) -> bytes:
        return canonical_json(self.document())
