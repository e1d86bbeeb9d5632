"""What the fleet makes of a record that arrives; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgeward_contract.artifact import DeviceId, Sha256, sha256_of
from edgeward_contract.record import MAX_RECORD_BYTES, Record, Verdict, VerdictStatus
from edgeward_contract.schema import JsonValue, canonical_json, parse_json

_MOST: Final = (1 << 63) - 1

Key = tuple[str, int]
"""(epoch, sequence): names a record of one device for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A record with what is stored of it: `content` is the canonical JSON that `sha256` is the digest of."""

    key: Key
    record: Record
    content: bytes
    sha256: Sha256

    @property
    def is_too_large(self) -> bool:
        return len(self.content) > MAX_RECORD_BYTES

    @property
    def model(self) -> str | None:
        """What the body says, if the database can hold it: PostgreSQL has no NUL in text."""
        name = self.record.body.get("model")
        return name[:64] if isinstance(name, str) and "\0" not in name else None

    @property
    def version(self) -> int | None:
        return self._whole("version")

    @property
    def latency_us(self) -> int | None:
        return self._whole("latency_us")

    @property
    def wall_us(self) -> int:
        return min(self.record.wall_us, _MOST)

    def _whole(self, key: str) -> int | None:
        """What the body says, if the database can hold it: nothing that a device writes may stop its outbox."""
        number = self.record.body.get(key)
        return number if isinstance(number, int) and not isinstance(number, bool) and abs(number) <= _MOST else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as it is found again."""

    record_id: int
    device: DeviceId
    received_at: datetime
    content: bytes

    def members(self) -> dict[str, JsonValue]:
        return parse_json(self.content).members()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records; None is any."""

    device: DeviceId | None = None
    kind: str | None = None
    model: str | None = None
    version: int | None = None


def arrivals(records: Sequence[Record]) -> tuple[Arrival, ...]:
    """`records` ready to be stored; each is serialised and hashed once."""
    made = []
    for record in records:
        content = canonical_json(record.content())
        made.append(
            Arrival(key=(record.epoch, record.sequence), record=record, content=content, sha256=sha256_of(content))
        )
    return tuple(made)


def storable(batch: Sequence[Arrival]) -> tuple[Arrival, ...]:
    """Those to insert: the first of each key, and none that is too large."""
    first: dict[Key, Arrival] = {}
    for arrival in batch:
        if not arrival.is_too_large:
            first.setdefault(arrival.key, arrival)
    return tuple(first.values())


def verdicts(batch: Sequence[Arrival], inserted: frozenset[Key], stored: Mapping[Key, Sha256]) -> tuple[Verdict, ...]:
    """One verdict per record of the batch, in its order.

    `inserted` are the keys that this transaction added, `stored` the digests of all keys of the batch afterwards.
    """
    said: set[Key] = set()
    made = []
    for arrival in batch:
        made.append(_verdict(arrival, arrival.key in inserted and arrival.key not in said, stored.get(arrival.key)))
        said.add(arrival.key)
    return tuple(made)


def _verdict(arrival: Arrival, is_new: bool, stored: Sha256 | None) -> Verdict:
    status, reason = VerdictStatus.DUPLICATE, ""
    if arrival.is_too_large:
        status = VerdictStatus.REJECTED
        reason = f"expected at most {MAX_RECORD_BYTES} bytes, got {len(arrival.content)}"
    elif stored != arrival.sha256:
        status = VerdictStatus.CONFLICT
        reason = "another record has this epoch and sequence: the device's store was restored from an older image"
    elif is_new:
        status = VerdictStatus.ACCEPTED
    return Verdict(epoch=arrival.record.epoch, sequence=arrival.record.sequence, status=status, reason=reason)
