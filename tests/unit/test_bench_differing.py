"""How far the answers of two models lie apart, whatever their type."""

from __future__ import annotations

import numpy as np
import pytest

from edgeward_agent.bench.differing import outputs_apart


@pytest.mark.parametrize(
    ("first", "second", "max_abs"),
    [
        (np.array([2**60, 2**60]), np.array([2**60 + 1, 2**60 + 1]), 1.0),
        (np.array([-(2**63)]), np.array([2**63 - 1]), 2.0**64),
        (np.array([2**64 - 1], np.uint64), np.array([2**64 - 3], np.uint64), 2.0),
        (np.array([-1]), np.array([2**64 - 1], np.uint64), 2.0**64),
        (np.array([-128], np.int8), np.array([127], np.int8), 255.0),
        (np.array([True]), np.array([False]), 1.0),
    ],
)
def test_integers_are_compared_as_integers(first: np.ndarray, second: np.ndarray, max_abs: float) -> None:
    (found,) = outputs_apart([{"y": first}], [{"y": second}])
    assert (found.equal_share, found.max_abs, found.mean_abs) == (0.0, max_abs, max_abs)
    (again,) = outputs_apart([{"y": first}], [{"y": first}])
    assert (again.equal_share, again.max_abs) == (1.0, 0.0)
