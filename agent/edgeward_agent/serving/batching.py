"""Several requests as one run: who may be joined, how, and how each gets its own rows back. Pure.

A model is batched only when its manifest says so, its graph calls the first axis of every tensor by one name, and the
check of the release has held joined golden cases to the golden set: that rows do not depend on each other cannot be
read off a graph.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from edgeward_agent.serving.line import Company
from edgeward_agent.wire.tensors import Array
from edgeward_contract.serving_options import Batching

Feeds = Mapping[str, Array]


def company_of(batching: Batching, version: Hashable, outputs: Sequence[str], feeds: Feeds) -> Company | None:
    """With whom a request may run; None when it must run alone: no rows, as many as may be, or not the same in all."""
    counts = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    rows = counts.pop()
    if counts or not 0 < rows < batching.max_rows:
        return None
    shapes = tuple(array.shape for array in feeds.values())
    return Company(
        key=(version, tuple(outputs), tuple(feeds), shapes),
        rows=rows,
        max_rows=batching.max_rows,
        max_delay_ns=batching.max_delay_us * 1000,
    )


def join(requests: Sequence[Feeds]) -> dict[str, Array]:
    """One request of the rows of all, in their order. All have the same inputs."""
    return {name: np.concatenate([feeds[name] for feeds in requests]) for name in requests[0]}


def split(results: Sequence[Array], parts: int, rows: int) -> list[list[Array]] | None:
    """Results of a joint run for each of `parts` requests of `rows` rows; None when not every row has become one.

    Of others nobody knows whose they are: two findings of four patients may be of one of them.
    """
    if any(array.ndim == 0 or array.shape[0] != parts * rows for array in results):
        return None
    return [[array[first : first + rows] for array in results] for first in range(0, parts * rows, rows)]
