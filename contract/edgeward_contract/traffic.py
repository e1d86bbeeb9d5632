"""What a version of a model has answered, as its device reports it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeward_contract.schema import Fields, JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the live version of a model has answered since it went live. Latencies are of the server, in µs."""

    requests: int = 0
    errors: int = 0  # answers with a 5xx status: the model or the runtime failed, not the caller
    p50_us: int = 0
    p99_us: int = 0
    late: int = 0  # of the requests: answered after their deadline
    refused: int = 0  # beside the requests: not run, because the deadline could not be made or too many waited

    @classmethod
    def read(cls, fields: Fields) -> Traffic:
        return cls(
            requests=fields.integer("requests", minimum=0),
            errors=fields.integer("errors", minimum=0),
            p50_us=fields.integer("p50_us", default=0, minimum=0),
            p99_us=fields.integer("p99_us", default=0, minimum=0),
            late=fields.integer("late", default=0, minimum=0),
            refused=fields.integer("refused", default=0, minimum=0),
        )

    def document(self) -> dict[str, JsonValue]:
        return {name: getattr(self, name) for name in self.__slots__}
