"""How a device should run a release, where the defaults do not fit: the manifest's optional section `serving`.

Absent and all defaults are the same document, so that releases without it keep the bytes, and the digest, that they
always had. Names of execution providers are open: a release may ask for one that an older agent has never heard of, and
runs on the CPU there, which the device reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgeward_contract.schema import ContractError, Fields, JsonValue

PROVIDERS: Final = ("acl", "coreml", "cpu", "cuda", "openvino", "qnn", "tensorrt", "xnnpack")
"""Execution providers that this version knows; `cpu` is always there and always the last resort."""
MAX_THREADS: Final = 64
MAX_ROWS: Final = 4096
MAX_DELAY_US: Final = 1_000_000
_MAX_DIMENSION: Final = 1 << 31
_MAX_NAMES: Final = 16
_PROVIDER: Final = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Requests of equal shape that wait may run as one, of up to `max_rows`; `max_delay_us` is how long the first
    waits for others. 0 joins only what waits anyway.
    """

    max_rows: int
    max_delay_us: int = 0

    @classmethod
    def read(cls, fields: Fields) -> Batching:
        return cls(
            max_rows=fields.integer("max_rows", minimum=2, maximum=MAX_ROWS),
            max_delay_us=fields.integer("max_delay_us", default=0, minimum=0, maximum=MAX_DELAY_US),
        )

    def document(self) -> dict[str, JsonValue]:
        return {"max_rows": self.max_rows, "max_delay_us": self.max_delay_us}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Overrides of how a session is made and fed. The defaults are what a small model on a shared machine wants."""

    threads: int = 1
    """Within one inference. More than one takes cores from everybody else, and is refused a benefit below some ms."""
    providers: tuple[str, ...] = ()
    """Wanted execution providers, the best first; empty is the CPU."""
    dimensions: Mapping[str, int] = field(default_factory=dict)
    """Free dimensions of the graph by name, pinned: what is constant can be planned for."""
    denotations: Mapping[str, int] = field(default_factory=dict)
    """The same by denotation, such as DATA_BATCH."""
    shrink_arena: bool = False
    """Give the memory of an unusually large request back after it, at the price of asking for it again."""
    batching: Batching | None = None

    @classmethod
    def read(cls, fields: Fields) -> ServingOptions:
        return cls(
            threads=fields.integer("threads", default=1, minimum=1, maximum=MAX_THREADS),
            providers=_providers(fields),
            dimensions=_pinned(fields, "dimensions"),
            denotations=_pinned(fields, "denotations"),
            shrink_arena=fields.boolean("shrink_arena", default=False),
            batching=Batching.read(fields.object("batching")) if fields.has("batching") else None,
        )

    def document(self) -> dict[str, JsonValue]:
        """What differs from the defaults; empty when nothing does."""
        document: dict[str, JsonValue] = {
            "threads": self.threads,
            "providers": list(self.providers),
            "dimensions": dict(self.dimensions),
            "denotations": dict(self.denotations),
            "shrink_arena": self.shrink_arena,
            "batching": self.batching.document() if self.batching else None,
        }
        return {key: value for key, value in document.items() if value != _USUAL[key]}


_USUAL: Final[Mapping[str, JsonValue]] = {
    "threads": 1,
    "providers": [],
    "dimensions": {},
    "denotations": {},
    "shrink_arena": False,
    "batching": None,
}


def _providers(fields: Fields) -> tuple[str, ...]:
    names = fields.texts("providers", max_items=_MAX_NAMES)
    for index, name in enumerate(names):
        if not _PROVIDER.fullmatch(name) or name in names[:index]:
            place = f"{fields.at('providers')}[{index}]"
            raise ContractError(place, f"expected names such as {', '.join(PROVIDERS)}, each once, got {name[:40]!r}")
    return names


def _pinned(fields: Fields, key: str) -> dict[str, int]:
    if not fields.has(key):
        return {}
    inner = fields.object(key)
    if len(inner.names) > _MAX_NAMES:
        raise ContractError(fields.at(key), f"expected at most {_MAX_NAMES} dimensions, got {len(inner.names)}")
    return {name: inner.integer(name, minimum=1, maximum=_MAX_DIMENSION) for name in inner.names}
