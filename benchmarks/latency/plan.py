"""What is measured: every case, in the order of a round. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from benchmarks.latency import peers
from benchmarks.latency.native import Cores, Kind

ROUNDS: Final = 7
PASSES: Final = 4
"""How often a round comes to a case that others of its block are held against."""
PASSES_OF_LARGE: Final = 8
"""The same for a model of milliseconds: what is added to it is less than what the host adds or takes in a second."""
OUR_WAYS: Final = ("tcp", "unix", "frames")
FLOORS: Final[dict[str, Kind]] = {"tcp": "tcp", "unix": "stream", "frames": "seqpacket"}
"""Which kind of echo a way of ours is held against."""

SMALL: Final = "wdbc-risk"
RAW: Final = ("raw", "raw huge")
"""The model alone, as a program has it that does nothing about its memory, and in huge pages as our process asks."""


class Placement(StrEnum):
    """Where server and client run. Wake-ups across cores cost more than a small request, so they are kept apart."""

    ONE_CORE = "one core"
    TWO_CORES = "two cores"
    FREE = "free"


SERVER_CORES: Final[dict[Placement, Cores]] = {
    Placement.ONE_CORE: (0,),
    Placement.TWO_CORES: (0,),
    Placement.FREE: (),
}
RECORDER_CORES: Final[dict[Placement, Cores]] = {
    Placement.ONE_CORE: (1,),
    Placement.TWO_CORES: (),
    Placement.FREE: (),
}
"""Who takes the records of captures is neither server nor client."""

CLIENT_CORES: Final[dict[Placement, Cores]] = {
    Placement.ONE_CORE: (0,),
    Placement.TWO_CORES: (1,),
    Placement.FREE: (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One server asked in one way: of the model itself "run", of a floor the way of ours that it stands below."""

    model: str
    server: str
    way: str
    placement: Placement
    connections: int

    @property
    def key(self) -> str:
        return f"{self.model} | {self.server} | {self.way} | {self.placement} | {self.connections}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long a case is measured in one round, over all its passes, and how long each is warmed before."""

    seconds: float
    warm_up_s: float


def times(case: Case) -> Times:
    """Long enough for a p99; peers need time to get going, large models to answer sixteen at all."""
    warm_up_s = 0.1 if passes(case) > 1 else 0.3
    if case.model != SMALL:
        return Times(seconds=1.6 if case.connections == 1 else 2.0, warm_up_s=warm_up_s)
    return Times(seconds=1.5 if case.server in peers.NAMES else 1.0, warm_up_s=warm_up_s)


def passes(case: Case) -> int:
    """A host that others share changes its pace within seconds: what is a ratio or a difference of microseconds is
    measured in turns much shorter than that. What is many times more, or less, need not be.
    """
    if case.connections > 1 or case.server in peers.NAMES:
        return 1
    return PASSES if case.model == SMALL else PASSES_OF_LARGE


def blocks(cases: Sequence[Case]) -> list[list[Case]]:
    """The cases in groups that are held against each other, those with several passes; any other by itself."""
    found: dict[Hashable, list[Case]] = {}
    for case in cases:
        key = (case.model, case.placement) if passes(case) > 1 else case
        found.setdefault(key, []).append(case)
    return list(found.values())


def cases(models: Sequence[str], servers: Sequence[str]) -> list[Case]:
    """All cases of the models and servers that are wanted."""
    return [case for model in models for case in _of_model(model) if case.server in servers]


def servers() -> tuple[str, ...]:
    """The names of all that can be asked."""
    return (*RAW, "echo", "ours", "bare", *peers.NAMES)


def _of_model(model: str) -> list[Case]:
    pinned = (Placement.ONE_CORE, Placement.TWO_CORES) if model == SMALL else (Placement.ONE_CORE,)
    found = [case for placement in pinned for case in _alone(model, placement)]
    found += _alone(model, Placement.FREE)
    for connections in (1, 4, 16):
        found += [_case(model, peer, "tcp", Placement.FREE, connections) for peer in peers.NAMES]
        if connections > 1:
            found += [_case(model, "ours", way, Placement.FREE, connections) for way in OUR_WAYS]
            found.append(_case(model, "bare", "tcp", Placement.FREE, connections))
    return found


def _alone(model: str, placement: Placement) -> list[Case]:
    """One connection: the model itself, and each of our ways; beside its floor where the floor matters."""
    found = [_case(model, server, "run", placement) for server in RAW]
    beside = ("echo", "ours", "bare") if model == SMALL or placement is Placement.FREE else ("ours", "bare")
    return found + [_case(model, server, way, placement) for way in OUR_WAYS for server in beside]


def _case(model: str, server: str, way: str, placement: Placement, connections: int = 1) -> Case:
    return Case(model=model, server=server, way=way, placement=placement, connections=connections)
