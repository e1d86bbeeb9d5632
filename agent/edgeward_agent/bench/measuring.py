"""Takes the ways of asking in turn, round by round, with a look at the machine between the rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgeward_agent.bench.block import Block, Cut, joined
from edgeward_agent.bench.errors import ServerLost
from edgeward_agent.bench.machine import Probe
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.schedule import Load, Plan, order
from edgeward_agent.bench.targets import Target

_WARM_S: Final = 0.25
_WARM_LEAST: Final = 5
_WARM_MOST: Final = 500
PROBE_BEFORE: Final = 200
PROBE_BETWEEN: Final = 40
Progress = Callable[[str, float, float], None]
"""Told what is done, which share of it (0 to 1), and about how many seconds are left."""
Loads = Callable[[int], Mapping[str, Load]]
"""What each path is asked in the round of that number."""


@dataclass(slots=True, kw_only=True)
class Measured:
    """Blocks by path, one for each round, and the probe's times around them. Each round is complete but the last.

    That one may be short, or not there on some paths, where Ctrl-C ended it. `begun` is what the first round had then;
    empty when it is complete. `lost` says how the server went away; empty when it was there all the time.
    """

    blocks: dict[str, list[Block]]
    begun: Mapping[str, Block] = field(default_factory=dict)
    probes: list[Floats] = field(default_factory=list)
    planned: int = 0
    interrupted: bool = False
    lost: str = ""
    seconds: float = 0.0

    @property
    def rounds(self) -> int:
        """The one that was interrupted counts."""
        return max((len(each) for each in self.blocks.values()), default=0)

    def add(self, blocks: Mapping[str, Block]) -> None:
        for name, block in blocks.items():
            self.blocks[name].append(block)

    def keep_begun(self, paths: Sequence[str]) -> None:
        """Go on with these paths of the first round alone, which were asked before it was interrupted."""
        self.blocks = {path: [self.begun[path]] for path in paths}

    def latencies(self, path: str) -> list[Floats]:
        return [block.latencies_us for block in self.blocks[path]]


def warm_up(targets: Sequence[Target], clients: int = 1) -> dict[str, float]:
    """Seconds for one request on each path when `clients` ask, after the first, which pay for arenas and connections.

    Raises CannotMeasure when what a path gives is no answer, ServerLost when nobody is there.
    """
    return {target.name: _warmed(target, clients) for target in targets}


def _warmed(target: Target, clients: int) -> float:
    target.check()
    few = _there(target, Load(count=_WARM_LEAST, seconds=_WARM_S))
    more = _there(target, Load(count=_WARM_MOST, seconds=_WARM_S, clients=clients))
    block = more if len(more.latencies_us) else few
    return block.seconds / max(1, len(block.latencies_us))


def _there(target: Target, load: Load) -> Block:
    block = target.run(load)
    if block.gone:
        raise ServerLost(
            f"{target.name}: expected a server that answers, got: {block.gone}", "Start it again, and see its own log."
        )
    return block


def measure(
    targets: Sequence[Target],
    rounds: int,
    loads: Loads,
    progress: Progress,
    before: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Run the rounds. Ctrl-C ends it in the middle of one, a server that goes away after the one it left in.

    Args:
        before: called with the number of each round before it begins.
    """
    probe = Probe()
    measured = Measured(blocks={target.name: [] for target in targets}, planned=rounds)
    measured.probes.append(probe.times(PROBE_BEFORE))
    began = time.monotonic()
    blocks: dict[str, Block] = {}
    try:
        with undisturbed():
            for number in range(rounds):
                before(number)
                blocks = {}
                _ask(targets, loads(number), number, blocks)
                measured.probes.append(probe.times(PROBE_BETWEEN))
                done, blocks = blocks, {}
                measured.add(done)
                _tell(progress, number + 1, rounds, began)
                measured.lost = next((block.gone for block in done.values() if block.gone), "")
                if measured.lost:
                    break
    except KeyboardInterrupt:
        measured.interrupted = True
        if measured.rounds:
            measured.add(blocks)
        else:
            measured.begun = blocks
    measured.seconds = time.monotonic() - began
    return measured


def planned(plan: Plan, targets: Sequence[Target], seed: int) -> Loads:
    """The same load for every path, another one in every round."""
    generator = np.random.default_rng(seed)

    def loads(number: int) -> Mapping[str, Load]:
        load = plan.load(number, generator)
        return {target.name: load for target in targets}

    return loads


def _ask(targets: Sequence[Target], loads: Mapping[str, Load], number: int, blocks: dict[str, Block]) -> None:
    """One round, into `blocks`. A long one is asked in turns, so that whoever ends it has something of each path."""
    named = {target.name: target for target in targets}
    for turn in range(next(iter(loads.values())).turns):
        for name in order(list(named), number + turn):
            _ask_one(named[name], loads[name].turn(turn), blocks)
        if any(block.gone for block in blocks.values()):
            break


def _ask_one(target: Target, load: Load, blocks: dict[str, Block]) -> None:
    before = [blocks[target.name]] if target.name in blocks else []
    try:
        blocks[target.name] = joined([*before, target.run(load)])
    except Cut as cut:
        if before or len(cut.block.latencies_us):
            blocks[target.name] = joined([*before, cut.block])
        raise


def _tell(progress: Progress, done: int, of: int, began: float) -> None:
    spent = time.monotonic() - began
    progress(f"round {done} of {of}", done / of, spent / done * (of - done))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without our own garbage collector, whose pauses would be counted as the model's."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
