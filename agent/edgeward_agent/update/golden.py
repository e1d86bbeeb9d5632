"""The golden set: real inputs with the outputs that they must give. Pure but for reading the file.

A comparison that lets a NaN through would pass the worst model of all, so the rule is spelled out: NaN equals
NaN alone, an infinity equals itself alone, everything else is |got - want| <= atol + rtol * |want|.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeward_agent.errors import UpdateError
from edgeward_agent.wire.tensors import NUMPY, Array
from edgeward_contract.manifest import Datatype, Manifest, TensorSpec, Tolerance

MAX_GOLDEN_BYTES: Final = 1 << 30
_EXACT_KINDS: Final = "biuSUO"


class GoldenSetInvalid(UpdateError):
    """The golden set is not what its manifest says."""

    reason = "manifest_mismatch"
    hint = "Pack the release again; `edgeward model pack` writes the golden set and its description together."


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input of the set, as a batch of one, with what must come out."""

    number: int
    feeds: dict[str, Array]
    wanted: Mapping[str, Array]


class Golden:
    """The arrays of an .npz file, each (cases, …).

    Raises (on construction):
        GoldenSetInvalid: not an .npz, another set of names, another number of cases, a type that does not fit.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        arrays = _load(path)
        self._manifest = manifest
        self._inputs = {spec.name: _take(arrays, "input", spec, manifest) for spec in manifest.inputs}
        self._outputs = {spec.name: _take(arrays, "output", spec, manifest) for spec in manifest.outputs}
        if arrays:
            raise GoldenSetInvalid(f"golden.npz: expected arrays of the manifest's tensors alone, got {sorted(arrays)}")

    def cases(self) -> Iterator[Case]:
        for number in range(self._manifest.golden.cases):
            one = slice(number, number + 1)
            yield Case(
                number=number,
                feeds={name: array[one] for name, array in self._inputs.items()},
                wanted={name: array[one] for name, array in self._outputs.items()},
            )


def difference(name: str, got: Array, want: Array, tolerance: Tolerance) -> str:
    """What is wrong with one output of one case, as a phrase; empty when it is as it must be."""
    if got.shape != want.shape:
        return f"{name}: expected shape {list(want.shape)}, got {list(got.shape)}"
    wrong = ~_equal(got, want, tolerance)
    if not wrong.any():
        return ""
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{name}{list(place)}: expected {want[place]} (±{_margin(tolerance)}), got {got[place]}"


def _equal(got: Array, want: Array, tolerance: Tolerance) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    if want.dtype.kind in "SUO":
        return np.asarray(got.astype(str) == want.astype(str))
    if want.dtype.kind in _EXACT_KINDS and tolerance == Tolerance(atol=0.0, rtol=0.0):
        return np.asarray(got == want)  # a float64 cannot hold every int64
    left, right = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(left - right) <= tolerance.atol + tolerance.rtol * np.abs(right)
    finite = np.isfinite(left) & np.isfinite(right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return np.asarray(np.where(finite, near, same))


def _margin(tolerance: Tolerance) -> str:
    parts = [f"{tolerance.atol:g}"] + ([f"{tolerance.rtol:g} of it"] if tolerance.rtol else [])
    return " + ".join(parts)


def _load(path: Path) -> dict[str, Array]:
    """Without pickle, and only after the sum of the sizes is known: a zip may say little and hold much."""
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(each.file_size for each in archive.infolist())
        if size_bytes > MAX_GOLDEN_BYTES:
            raise GoldenSetInvalid(f"golden.npz: expected at most {MAX_GOLDEN_BYTES} bytes of arrays, got {size_bytes}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise GoldenSetInvalid(f"golden.npz: expected an .npz of plain arrays, got: {error}") from None


def _take(arrays: dict[str, Array], side: str, spec: TensorSpec, manifest: Manifest) -> Array:
    key = f"{side}:{spec.name}"
    array = arrays.pop(key, None)
    if array is None:
        raise GoldenSetInvalid(f"golden.npz: expected an array {key!r}, got {sorted(arrays)}")
    cases = manifest.golden.cases
    if array.ndim == 0 or len(array) != cases:
        raise GoldenSetInvalid(f"golden.npz: {key}: expected {cases} cases, got shape {list(array.shape)}")
    if spec.datatype is Datatype.BYTES:
        return array.astype(str).astype(object)
    if array.dtype != NUMPY.get(spec.datatype):
        raise GoldenSetInvalid(f"golden.npz: {key}: expected {spec.datatype}, got {array.dtype}")
    return array
