"""What crosses a broker beside the documents that every link has.

A broker's own acknowledgement says that the broker has a message, not that the fleet has. So each message of a device
is answered by the fleet on `down/acks`, and the answer comes after the fleet's commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeward_contract.desired import MAX_GENERATION
from edgeward_contract.record import Acknowledgement
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import JsonValue, canonical_json, check_schema, parse_json

SCHEMA: Final = 1
OK: Final = 200
_MAX_TAG: Final = 160
_MAX_HELLO_BYTES: Final = 4096


class Up(StrEnum):
    """What a device publishes below `up/`. All but presence are answered."""

    HELLO = "hello"
    PRESENCE = "presence"
    REPORTED = "reported"
    RECORDS = "records"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A device is here and has acted on `generation` (-1: on none). The fleet publishes what is newer, then answers."""

    tag: str
    generation: int

    @classmethod
    def parse(cls, data: bytes) -> Hello:
        """Raises ContractError."""
        fields = parse_json(data, limit_bytes=_MAX_HELLO_BYTES)
        check_schema(fields, SCHEMA)
        return cls(
            tag=fields.text("tag", max_length=_MAX_TAG),
            generation=fields.integer("generation", minimum=-1, maximum=MAX_GENERATION),
        )

    def canonical(self) -> bytes:
        return canonical_json({"schema": SCHEMA, "tag": self.tag, "generation": self.generation})


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceNote:
    """A device is connected to the broker, or was: the latter is its will, or its good-bye."""

    online: bool

    @classmethod
    def parse(cls, data: bytes) -> PresenceNote:
        """Raises ContractError."""
        fields = parse_json(data, limit_bytes=_MAX_HELLO_BYTES)
        check_schema(fields, SCHEMA)
        return cls(online=fields.boolean("online"))

    def canonical(self) -> bytes:
        return canonical_json({"schema": SCHEMA, "online": self.online})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The fleet's answer to the message `tag` of a device; `status` means what it means in HTTP (RFC 9110).

    The tag of a batch is its id, that of a report is `report_tag`. `acknowledgement` is there for a batch that was
    taken, and was made after the commit.
    """

    tag: str
    status: int = OK
    detail: str = ""
    hint: str = ""
    retry_after_s: float | None = None
    acknowledgement: Acknowledgement | None = None

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """Raises ContractError."""
        fields = parse_json(data)
        check_schema(fields, SCHEMA)
        taken = fields.has("acknowledgement")
        return cls(
            tag=fields.text("tag", max_length=_MAX_TAG),
            status=fields.integer("status", minimum=100, maximum=599),
            detail=fields.text("detail", default=""),
            hint=fields.text("hint", default=""),
            retry_after_s=fields.number("retry_after_s", minimum=0) if fields.has("retry_after_s") else None,
            acknowledgement=Acknowledgement.read(fields.object("acknowledgement")) if taken else None,
        )

    def canonical(self) -> bytes:
        document: dict[str, JsonValue] = {"schema": SCHEMA, "tag": self.tag, "status": self.status}
        if self.status != OK:
            document |= {"detail": self.detail[:900], "hint": self.hint[:900]}
        if self.retry_after_s is not None:
            document["retry_after_s"] = self.retry_after_s
        if self.acknowledgement is not None:
            document["acknowledgement"] = self.acknowledgement.document()
        return canonical_json(document)


def report_tag(reported: ReportedState) -> str:
    """Names a report: a device numbers them anew at each start of its agent."""
    return f"{reported.boot}:{reported.sequence}"
