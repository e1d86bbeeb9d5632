"""How far the answers of two models lie apart. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.report import GoldenCount, OutputDifference
from edgeward_agent.update.golden import difference as golden_difference
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import Tolerance

Answers = Sequence[Mapping[str, Array]]
_LEAST_OF_SCALE = 1e-3  # a relative difference from what is next to nothing says nothing


def outputs_apart(first: Answers, second: Answers) -> tuple[OutputDifference, ...]:
    """Compare answers to the same cases, output by output.

    Raises:
        ValueError: an output is missing, or has another shape; says which.
    """
    names = list(first[0])
    missing = sorted(set(names) - set(second[0]))
    if missing:
        raise ValueError(f"expected outputs {names}, got {sorted(second[0])}")
    return tuple(_apart(name, [each[name] for each in first], [each[name] for each in second]) for name in names)


def _apart(name: str, first: Sequence[Array], second: Sequence[Array]) -> OutputDifference:
    for one, other in zip(first, second, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"output {name}: expected shape {list(one.shape)}, got {list(other.shape)}")
    left, right = (np.concatenate([each.ravel() for each in side]) for side in (first, second))
    if left.dtype.kind not in "biuf" or right.dtype.kind not in "biuf":
        return _texts(name, left, right)
    a: Floats = left.astype(np.float64)
    both = np.isfinite(left) & np.isfinite(right)
    if len(a) and not both.any():
        return _without_numbers(name, len(a), equal_share=math.nan, not_finite=len(a))
    apart = _distances(left, right)[both]
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    large = np.abs(a[both]) >= max(scale * _LEAST_OF_SCALE, np.finfo(np.float64).tiny)
    return OutputDifference(
        name=name,
        elements=len(a),
        max_abs=float(apart.max(initial=0.0)),
        max_rel=float((apart[large] / np.abs(a[both][large])).max(initial=0.0)),
        mean_abs=float(apart.mean()) if len(apart) else 0.0,
        scale=scale,
        equal_share=float(np.mean(_same(left, right))) if len(a) else 1.0,
        argmax_agreement=_argmax_agreement(first, second),
        not_finite=int(np.count_nonzero(~both)),
    )


def _without_numbers(name: str, elements: int, *, equal_share: float, not_finite: int) -> OutputDifference:
    """Nothing that could be told apart by how much: text, or NaN, which in the place of NaN is no agreement."""
    return OutputDifference(
        name=name,
        elements=elements,
        max_abs=math.nan,
        max_rel=math.nan,
        mean_abs=math.nan,
        scale=math.nan,
        equal_share=equal_share,
        argmax_agreement=None,
        not_finite=not_finite,
    )


def _distances(left: Array, right: Array) -> Floats:
    """|left - right|: as floats, 2^60 and 2^60 + 1 would be one number."""
    if "f" in (left.dtype.kind, right.dtype.kind):
        with np.errstate(invalid="ignore"):  # infinity less infinity; what is not finite is left out
            return np.abs(left.astype(np.float64) - right.astype(np.float64))
    # Modulo 2^64 a difference of one type is exact; only an unsigned one can lie further from a signed one.
    whole = np.uint64 if left.dtype == right.dtype else object
    a, b = left.astype(whole), right.astype(whole)
    apart: Floats = np.where(np.greater(left, right), a - b, b - a).astype(np.float64)
    return apart


def _same(left: Array, right: Array) -> npt.NDArray[np.bool_]:
    return np.asarray((left == right) | ((left != left) & (right != right)))


def _texts(name: str, left: Array, right: Array) -> OutputDifference:
    equal = float(np.mean(left.astype(object) == right.astype(object))) if len(left) else 1.0
    return _without_numbers(name, len(left), equal_share=equal, not_finite=0)


def _argmax_agreement(first: Sequence[Array], second: Sequence[Array]) -> float | None:
    if first[0].ndim < 1 or first[0].shape[-1] < 2:
        return None
    pairs = list(zip(first, second, strict=True))
    finite = _rows([np.isfinite(a).all(axis=-1) & np.isfinite(b).all(axis=-1) for a, b in pairs])
    same = _rows([np.argmax(a, axis=-1) == np.argmax(b, axis=-1) for a, b in pairs])
    return float(np.mean(same[finite])) if finite.any() else None


def _rows(of_each: Sequence[npt.ArrayLike]) -> npt.NDArray[np.bool_]:
    return np.concatenate([np.atleast_1d(each).ravel() for each in of_each])


def golden_count(
    first: Answers, second: Answers, wanted: Answers, tolerances: Mapping[str, Tolerance]
) -> GoldenCount | None:
    """How many golden cases each answers within tolerance; None where there is no golden set."""
    if not wanted:
        return None

    def good(answers: Answers) -> int:
        return sum(_within(got, want, tolerances) for got, want in zip(answers, wanted, strict=True))

    return GoldenCount(cases=len(wanted), first=good(first), second=good(second))


def _within(got: Mapping[str, Array], want: Mapping[str, Array], tolerances: Mapping[str, Tolerance]) -> bool:
    return not any(golden_difference(name, got[name], want[name], each) for name, each in tolerances.items())
