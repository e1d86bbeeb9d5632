"""Prepared graphs: a release's graph as the runtime optimised it on this device, so that a load need not do it again.

A child of the control process writes them (`update.graphs`); this process only reads. A prepared graph is good for one
release, runtime, processor and choice of options: all of them are in its name. Its digest lies beside it. What is
missing or damaged is said, and the release's own file is loaded: a cache never stops serving.
"""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.serving.providers import CPU
from edgeward_contract.artifact import Sha256, sha256_of, sha256_of_file
from edgeward_contract.schema import canonical_json
from edgeward_contract.serving_options import ServingOptions

_DIGEST: Final = ".sha256"
_MODEL: Final = ".onnx"
_TELLING: Final = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")


class PreparedGraph(msgspec.Struct, frozen=True, kw_only=True):
    """Where a prepared graph lies, or would."""

    model: Path
    digest: Path


class FoundGraph(msgspec.Struct, frozen=True, kw_only=True):
    """What to load. `note` is empty for a prepared graph, else says in a word why it is not one."""

    path: Path
    note: str = ""

    @property
    def prepared(self) -> bool:
        return not self.note


def prepared_graph(root: Path, release: Sha256, key: str) -> PreparedGraph:
    folder = root / release
    return PreparedGraph(model=folder / (key + _MODEL), digest=folder / (key + _DIGEST))


def graph_key(runtime: str, providers: tuple[str, ...], options: ServingOptions) -> str:
    """The name of the graph that fits here: another runtime, processor or pinned dimension is another name."""
    document = canonical_json(
        {
            "runtime": runtime,
            "processor": processor(),
            "providers": list(providers),
            "dimensions": dict(options.dimensions),
            "denotations": dict(options.denotations),
        }
    )
    return sha256_of(document)[:32]


def find_graph(prepared: PreparedGraph | None, original: Path) -> FoundGraph:
    """The prepared graph if it is there and whole, else the original."""
    if prepared is None:
        return FoundGraph(path=original, note="none")
    with suppress(OSError, UnicodeDecodeError):
        wanted = prepared.digest.read_text("ascii")
        if sha256_of_file(prepared.model) == wanted:
            return FoundGraph(path=prepared.model)
        return FoundGraph(path=original, note="damaged")
    return FoundGraph(path=original, note="missing")


def can_be_prepared(providers: tuple[str, ...]) -> bool:
    """Other providers compile the graph for themselves, and the runtime cannot write down what they made."""
    return providers == (CPU,)


@cache
def processor() -> str:
    """What tells one kind of processor from another: layouts are chosen by its instructions."""
    parts = [platform.machine(), platform.processor()]
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
        for line in file:
            if not line.strip():  # the first processor is enough: on a device they are alike
                break
            if line.startswith(_TELLING):
                parts.append(" ".join(line.split()))
    return sha256_of("\n".join(parts).encode())[:16]
