"""What a person asked for, as the modes need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.cases import SEED, Shapes, Source
from edgeward_agent.bench.schedule import Wishes
from edgeward_agent.bench.targets import IN_PROCESS, TCP, UNIX

PATHS = {"process": IN_PROCESS, "unix": UNIX, "tcp": TCP}
"""Ways of asking, by the words of `--through`; of those that are measured the last in this order is judged."""
PLACEHOLDER = "…"
"""Stands for the value of a header wherever it would be repeated: it may be a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What a sweep varies; empty is what this machine has, None what the model is served with."""

    threads: tuple[int, ...] | None = None
    providers: tuple[str, ...] | None = None
    batches: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """At most one of `compare`, `quantize`, `sweep` and `soak_s` is given.

    Attributes:
        model: a file or a release folder; with `url`, what is neither is the name of a model on that server.
        source: the person's own inputs, None for golden or random ones.
        name: of the model on the server, where the file does not say it.
    """

    model: str
    wishes: Wishes
    budget: Budget | None = None
    through: tuple[str, ...] = ()
    source: Source | None = None
    shapes: Shapes = field(default_factory=dict)
    seed: int = SEED
    timeout_s: float = 10.0
    force: bool = False
    url: str = ""
    name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    compare: Path | None = None
    quantize: bool = False
    calibration: Path | None = None
    output: Path | None = None
    sweep: Axes | None = None
    soak_s: float = 0.0
