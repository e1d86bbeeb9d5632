"""Several requests as one run, and each its own rows back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.batching import company_of, join, split
from edgeward_agent.serving.line import Company
from edgeward_agent.wire.tensors import Array
from edgeward_contract.serving_options import Batching

EIGHT = Batching(max_rows=8, max_delay_us=250)


def company(version: str = "v", outputs: tuple[str, ...] = ("y",), **feeds: Array) -> Company | None:
    return company_of(EIGHT, version, outputs, feeds)


def rows(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def test_equal_shapes_of_one_version_and_the_same_outputs_go_together() -> None:
    one = company(x=rows(1, 3))
    assert one is not None
    assert (one.rows, one.max_rows, one.max_delay_ns) == (1, 8, 250_000)
    same = company(x=np.ones((1, 3), np.float32))
    assert same is not None
    assert one.key == same.key
    others = [
        company(x=rows(2, 3)),
        company(x=rows(1, 4)),
        company(version="w", x=rows(1, 3)),
        company(outputs=("z",), x=rows(1, 3)),
        company(z=rows(1, 3)),
    ]
    assert all(each is not None and each.key != one.key for each in others)


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": rows(8, 3)},
        {"x": rows(0, 3)},
        {"x": rows()},
        {"x": rows(1, 3), "y": rows(2, 3)},
    ],
    ids=["as many as may be", "none", "a scalar", "not the same in all"],
)
def test_what_has_to_run_alone(feeds: dict[str, Array]) -> None:
    assert company_of(EIGHT, "v", ("y",), feeds) is None


@given(parts=st.integers(1, 6), per_part=st.integers(1, 4), width=st.integers(0, 3))
def test_what_was_joined_is_split_into_what_it_was(parts: int, per_part: int, width: int) -> None:
    requests = [
        {
            "x": np.arange(per_part * width, dtype=np.int64).reshape(per_part, width) + 100 * part,
            "name": np.array([f"{part}-{row}" for row in range(per_part)], object),
        }
        for part in range(parts)
    ]
    joined = join(requests)
    shares = split([joined["x"], joined["name"]], parts, per_part)
    assert shares is not None
    for request, (x, name) in zip(requests, shares, strict=True):
        assert x.tolist() == request["x"].tolist()
        assert name.tolist() == request["name"].tolist()


def test_results_without_rows_for_each_cannot_be_split() -> None:
    assert split([rows(4, 1), rows()], 2, 2) is None
    assert split([rows(3, 1)], 2, 2) is None
    assert split([rows(4, 1)], 2, 2) is not None


@pytest.mark.parametrize("found", [0, 2, 8])
def test_findings_that_are_not_one_for_each_row_are_nobodys(found: int) -> None:
    """Two findings of four patients can be shared out evenly, and may all be of one."""
    assert split([rows(found, 1)], 2, 2) is None
