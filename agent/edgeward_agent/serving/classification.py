"""The best classes of an output as text, in place of its numbers. Pure.

Source: Triton's classification extension: each row becomes `score:index` or `score:index:label`, best first, as BYTES.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeward_agent.serving.refusal import invalid
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import Datatype

RANKED: Final = frozenset(Datatype) - {Datatype.BOOL, Datatype.BYTES, Datatype.BF16}
"""Datatypes whose values have an order that a client can read."""
_MAX_SCORES: Final = 1_000_000
_MAX_CLASSES: Final = 10_000  # each costs about a microsecond of Python, and other requests wait for it


def best_classes(scores: Array, labels: Sequence[str], count: int, *, batched: bool) -> Array:
    """The `count` best of each row, or of the whole output when it has no batch dimension.

    Returns:
        Text of shape [rows, classes], or [classes]; fewer classes than asked for when the output has no more.

    Raises:
        Refusal: 400, there are more scores, or would be more texts, than one answer may take.
    """
    rows = len(scores) if batched else 1
    width = scores.size // rows if rows else 0
    found = min(count, width)
    if scores.size > _MAX_SCORES or rows * found > _MAX_CLASSES:
        raise invalid(
            f"expected to rank at most {_MAX_SCORES} scores into {_MAX_CLASSES} classes,"
            f" got {scores.size} and {rows * found}"
        )
    flat = scores.reshape(rows, width)
    best = _ranked(flat)[:, :found]
    texts = np.empty((rows, found), object)
    for row in range(rows):
        texts[row] = [_text(flat[row, index], index, labels) for index in best[row].tolist()]
    return texts if batched else texts.reshape(found)


def _ranked(scores: Array) -> Array:
    """Indexes of each row, best first; of equals the first one first, and what is no number last."""
    # An ascending stable sort of the row read backwards, read backwards again: unsigned numbers cannot be negated.
    backwards = scores[:, ::-1]
    if scores.dtype.kind == "f" and (nans := np.isnan(backwards)).any():  # which numpy has above all numbers
        ascending = np.lexsort((backwards, ~nans), axis=1)
    else:
        ascending = np.argsort(backwards, axis=1, kind="stable")
    ranked: Array = scores.shape[1] - 1 - ascending[:, ::-1]
    return ranked


def _text(score: np.generic, index: int, labels: Sequence[str]) -> str:
    value = f"{score:f}" if score.dtype.kind == "f" else str(score)
    return f"{value}:{index}:{labels[index]}" if index < len(labels) else f"{value}:{index}"
