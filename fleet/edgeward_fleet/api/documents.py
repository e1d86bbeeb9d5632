"""The contract's documents as JSON Schema, for the description of the API.

The contract reads them by hand, because their exact bytes count: FastAPI sees only a raw body and could say nothing of
it. What is said here holds no document to account; tests hold it to what the contract reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from edgeward_contract.record import MAX_BATCH_RECORDS, RecordClass, VerdictStatus
from edgeward_contract.reported import UpdateState
from edgeward_contract.traffic import Traffic
from edgeward_fleet.rollouts.model import MAX_PHASES, OnFailure

Schema = dict[str, JsonValue]
BYTES: Final = "application/octet-stream"
_JSON: Final = "application/json"
_MAX: Final = (1 << 63) - 1


def takes(schema: Schema, description: str, *, media_type: str = _JSON, example: JsonValue = None) -> dict[str, object]:
    """`openapi_extra` of a route that reads its body itself."""
    content: dict[str, object] = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"requestBody": {"required": True, "description": description, "content": {media_type: content}}}


def answers(schema: Schema, description: str, *, media_type: str = _JSON) -> dict[str, object]:
    """What a route that writes its answer itself says under its status in `responses`."""
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _object(properties: Mapping[str, Schema], *required: str, closed: bool = False) -> Schema:
    """What is not required may be null as well: the contract's reader takes both for absent."""
    members = {name: each if name in required else _or_null(each) for name, each in properties.items()}
    made: Schema = {"type": "object", "properties": {**members}, "required": list(required)}
    return {**made, "additionalProperties": False} if closed else made


def _map(each: Schema) -> Schema:
    return {"type": "object", "additionalProperties": each}


def _list(each: Schema, **more: JsonValue) -> Schema:
    return {"type": "array", "items": each, **more}


def _text(max_length: int = 900) -> Schema:
    return {"type": "string", "maxLength": max_length}


def _whole(minimum: int = 0, maximum: int = _MAX) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def _one_of(kind: type[StrEnum]) -> Schema:
    return {"type": "string", "enum": [each.value for each in kind]}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_YES: Final[Schema] = {"type": "boolean"}
_NUMBER_1: Final[Schema] = {"type": "integer", "enum": [1]}
_SHA256: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NAME: Final[Schema] = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"}
_RELEASE: Final[Schema] = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?@[1-9][0-9]{0,17}$"}
_PERCENT: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 100}
_SECONDS: Final = _whole(1, 70 * 86_400)

FILE: Final[Schema] = {"type": "string", "format": "binary"}
ANY_DOCUMENT: Final[Schema] = {"type": "object"}

_PHASE: Final = _object(
    {
        "name": _text(64),
        "percent": _whole(1, 100),
        "devices": _whole(1),
        "soak_s": _whole(0, 7 * 86_400),
        "timeout_s": _SECONDS,
    },
    "name",
    closed=True,
)
_GATES: Final = _object(
    {
        "max_failed_percent": _PERCENT,
        "min_success_percent": _PERCENT,
        "max_error_percent": _PERCENT,
        "min_errors": _whole(1),
    },
    closed=True,
)
ROLLOUT_SPEC: Final = _object(
    {
        "release": _RELEASE,
        "name": _text(100),
        "target": _object({"sites": _list({"type": "string"}), "devices": _list(_NAME)}, closed=True),
        "phases": _list(_PHASE, minItems=1, maxItems=MAX_PHASES),
        "gates": _GATES,
        "on_failure": _one_of(OnFailure),
        "start_at": {"type": "string", "format": "date-time"},
        "back_timeout_s": _SECONDS,
        "supersedes": _text(32),
    },
    "release",
    closed=True,
)

DESIRED_STATE: Final = _object(
    {
        "schema": _NUMBER_1,
        "generation": _whole(),
        "models": _map(
            _object(
                {"release": _RELEASE, "version": _whole(1), "sha256": _SHA256, "deployment": _text(64)},
                "release",
                "sha256",
                "deployment",
            )
        ),
    },
    "schema",
    "generation",
    "models",
)

_TRAFFIC: Final = _object({each: _whole() for each in Traffic.__slots__}, "requests", "errors")
_LIVE: Final = _object(
    {"release": _RELEASE, "sha256": _SHA256, "slot": _text(16), "traffic": _TRAFFIC, "fallback": _text()},
    "release",
    "sha256",
    "slot",
)
_UPDATE: Final = _object(
    {
        "deployment": _text(64),
        "release": _RELEASE,
        "state": _one_of(UpdateState),
        "reason": _text(64),
        "detail": _text(),
        "attempt": _whole(),
        "progress_percent": _whole(0, 100),
    },
    "deployment",
    "release",
    "state",
)
_HEALTH: Final = _object(
    {
        "serving_ready": _YES,
        "serving_restarts": _whole(),
        "outbox_records": _whole(),
        "outbox_oldest_s": _whole(),
        "quarantined": _whole(),
        "results_not_kept": _whole(),
        "disk_free_bytes": _whole(),
        "certificate_days_left": _whole(-_MAX - 1),
        "clock_trusted": _YES,
        "alarms": _text(),
    }
)
REPORTED_STATE: Final = _object(
    {
        "schema": _NUMBER_1,
        "generation": _whole(),
        "boot": _text(64),
        "sequence": _whole(),
        "agent_version": _text(64),
        "models": _map(_object({"live": _LIVE, "update": _UPDATE})),
        "health": _HEALTH,
    },
    "schema",
    "generation",
    "boot",
    "sequence",
    "agent_version",
    "models",
)

_RECORD_KEY: Final = {"epoch": _text(64), "sequence": _whole(1)}
_RECORD: Final = _object(
    {
        **_RECORD_KEY,
        "class": _one_of(RecordClass),
        "kind": _text(64),
        "boot": _text(64),
        "boot_us": _whole(),
        "wall_us": _whole(),
        "clock_trusted": _YES,
        "body": ANY_DOCUMENT,
        "sha256": _SHA256,
    },
    *("epoch", "sequence", "class", "kind", "boot", "boot_us", "wall_us", "clock_trusted", "body", "sha256"),
)
BATCH: Final = _object(
    {"schema": _NUMBER_1, "batch_id": _text(64), "records": _list(_RECORD, maxItems=MAX_BATCH_RECORDS)},
    "schema",
    "batch_id",
    "records",
)
_VERDICT: Final = _object(
    {**_RECORD_KEY, "status": _one_of(VerdictStatus), "reason": _text()}, "epoch", "sequence", "status"
)
ACKNOWLEDGEMENT: Final = _object(
    {"schema": _NUMBER_1, "batch_id": _text(64), "verdicts": _list(_VERDICT, maxItems=MAX_BATCH_RECORDS)},
    "schema",
    "batch_id",
    "verdicts",
)
