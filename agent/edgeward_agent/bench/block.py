"""What one block of one path came to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeward_agent.bench.quantiles import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of one path.

    Attributes:
        latencies_us: from the intended start to the last byte of the answer; infinite where none came.
        sent_us: the same from when it was really sent: what a loop without a schedule would have reported. What was
            never sent is not in it.
        failed: how many had no answer; `failure` is what the first of them was told.
        seconds: to the last answer; in an open loop to its end, if that is later.
        gone: why the block ended before its end, the server being gone; empty when it was there all the time. What
            was under way then had no answer, and in an open loop neither had what was still to come.
    """

    latencies_us: Floats
    sent_us: Floats
    seconds: float
    failed: int = 0
    failure: str = ""
    gone: str = ""


class Cut(KeyboardInterrupt):
    """Ctrl-C in the middle of a block. `block` is what was answered until then.

    What was under way is left out, unless it had waited for longer than the grace of its load: then it has no answer.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block


def joined(blocks: Sequence[Block]) -> Block:
    """What was asked in several turns as one block; at least one."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        latencies_us=np.concatenate([each.latencies_us for each in blocks]),
        sent_us=np.concatenate([each.sent_us for each in blocks]),
        seconds=sum(each.seconds for each in blocks),
        failed=sum(each.failed for each in blocks),
        failure=next((each.failure for each in blocks if each.failure), ""),
        gone=next((each.gone for each in blocks if each.gone), ""),
    )
