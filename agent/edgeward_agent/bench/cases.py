"""What the model is asked: a release's golden cases, a person's own, or random ones that fit its interface."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeward_agent.bench import bf16
from edgeward_agent.bench.arrays import as_datatype, read_npz
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.subject import Subject
from edgeward_agent.bench.words import counted
from edgeward_agent.errors import UpdateError
from edgeward_agent.update.golden import Golden
from edgeward_agent.wire.tensors import CARRIER, NUMPY, Array
from edgeward_contract.manifest import Datatype, TensorSpec

GOLDEN: Final = "golden.npz"
SEED: Final = 20_240_229
_RANDOM_CASES: Final = 16
_MOST_BYTES: Final = 64 << 20  # of one request, as serving takes it by default, and of all
_MOST_CASES: Final = 10_000
Feeds = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Requests that are asked round and round. `wanted` are the golden outputs, one for each, where there are any."""

    feeds: tuple[Feeds, ...]
    source: str
    wanted: tuple[Mapping[str, Array], ...] = ()
    random: bool = False


Shapes = Mapping[str, tuple[int, ...]]
Source = Callable[[Sequence[TensorSpec]], Cases]
"""Makes cases for a model's inputs. Raises CannotMeasure."""


def golden(subject: Subject) -> Cases | None:
    """The golden set that lies beside the model; None when there is none. Raises CannotMeasure."""
    path = subject.folder / GOLDEN
    if subject.manifest is None or not path.is_file():
        return None
    try:
        found = list(Golden(path, subject.manifest).cases())
    except UpdateError as error:
        raise CannotMeasure(f"{path}: {error}", error.hint) from None
    return Cases(
        feeds=tuple(each.feeds for each in found),
        wanted=tuple(each.wanted for each in found),
        source=counted(len(found), "golden case"),
    )


def from_npz(path: Path, specs: Sequence[TensorSpec]) -> Cases:
    """Arrays by input: `input:NAME` with a first axis of cases as a golden set has them, or `NAME`, one request.

    Raises CannotMeasure.
    """
    arrays = read_npz(path)
    prefixed = any(key.startswith("input:") for key in arrays)
    named = {
        key.removeprefix("input:"): each for key, each in arrays.items() if key.startswith("input:") or not prefixed
    }
    missing = [spec.name for spec in specs if spec.name not in named]
    if missing:
        raise CannotMeasure(
            f"{path}: expected arrays {sorted(spec.name for spec in specs)}, got {sorted(arrays)}",
            "Write it with numpy.savez(path, NAME=array); `input:NAME` has one case for each of its first axis.",
        )
    whole = {spec.name: as_type(named[spec.name], spec, str(path)) for spec in specs}
    if not prefixed:
        return checked(Cases(feeds=(whole,), source=f"one request from {path.name}"), specs, str(path))
    return checked(_one_by_one(path, whole), specs, str(path))


def calibration(path: Path, specs: Sequence[TensorSpec]) -> Cases:
    """As `from_npz`, but the first axis always counts cases where the model's own first axis is free or 1."""
    cases = from_npz(path, specs)
    if len(cases.feeds) > 1 or not all(spec.shape[:1] in ((-1,), (1,)) for spec in specs):
        return cases
    whole = cases.feeds[0]
    return checked(_one_by_one(path, whole), specs, str(path))


def _one_by_one(path: Path, whole: Feeds) -> Cases:
    """A case for each of the first axis. Raises CannotMeasure when the inputs do not have as many."""
    counts = {name: len(each) if each.ndim else 0 for name, each in whole.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise CannotMeasure(
            f"{path}: expected as many cases of each input, got {found}", "Give all arrays the same first axis."
        )
    n = min(_MOST_CASES, *counts.values())
    feeds = tuple({name: each[at : at + 1] for name, each in whole.items()} for at in range(n))
    return Cases(feeds=feeds, source=f"{counted(n, 'case')} from {path.name}")


def random(
    specs: Sequence[TensorSpec], shapes: Shapes, seed: int = SEED, axes: Mapping[str, Sequence[str]] | None = None
) -> Cases:
    """Seeded, so that two runs ask the same. `axes` are the names of the axes of each input, where there are any.

    Raises CannotMeasure when a size is open that nobody can guess, or one request is larger than a daemon takes.
    """
    unknown = sorted(set(shapes) - {spec.name for spec in specs})
    if unknown:
        known = ", ".join(spec.name for spec in specs)
        raise CannotMeasure(f"--shape {unknown[0]}: expected an input of the model ({known})", "Correct the name.")
    for spec in specs:
        if spec.name in shapes:
            _check(spec, shapes[spec.name])
    _check_sized([spec for spec in specs if spec.name not in shapes], axes or {})
    sized = {spec.name: shapes.get(spec.name) or tuple(1 if dim < 0 else dim for dim in spec.shape) for spec in specs}
    one_bytes = sum(math.prod(sized[spec.name]) * CARRIER[spec.datatype].itemsize for spec in specs)
    if one_bytes > _MOST_BYTES:
        raise CannotMeasure(
            f"random input: expected at most {_MOST_BYTES >> 20} MiB for one request, got {one_bytes >> 20:,} MiB",
            "Give smaller sizes with --shape, or a request of your own with --input.",
        )
    count = max(1, min(_RANDOM_CASES, _MOST_BYTES // max(1, one_bytes)))
    generator = np.random.default_rng(seed)
    feeds = tuple(
        {spec.name: _drawn(spec.datatype, sized[spec.name], generator) for spec in specs} for _ in range(count)
    )
    return Cases(feeds=feeds, source=counted(count, "random case"), random=True)


def checked(cases: Cases, specs: Sequence[TensorSpec], where: str = "") -> Cases:
    """`where` is what is named then. Raises CannotMeasure when there is no case, or one does not fit the model."""
    if not cases.feeds:
        raise CannotMeasure(f"{cases.source}: expected at least one case, got none", "Give arrays that are not empty.")
    for spec in specs:
        for feeds in cases.feeds[:1]:
            _check(spec, feeds[spec.name].shape, where)
    return cases


def as_type(array: Array, spec: TensorSpec, where: str) -> Array:
    """With the model's own type where that keeps the kind of number: numpy writes float64 unless told otherwise."""
    if spec.datatype is Datatype.BYTES:
        try:
            return array.astype(str).astype(object)
        except UnicodeDecodeError as error:
            raise CannotMeasure(
                f"{where}: input {spec.name}: expected text in UTF-8, got {error.object[error.start : error.end]!r}",
                "Convert it first: np.char.decode(array, 'latin-1').",
            ) from None
    if spec.datatype is Datatype.BF16:
        bits = bf16.from_array(_held(array, spec, where, Datatype.FP32) if array.dtype.kind == "f" else array)
        if bits is None:
            raise CannotMeasure(
                f"{where}: input {spec.name}: expected floats, or BF16 as its bits (uint16), got {array.dtype}",
                "Convert it first: array.astype('float32').",
            )
        return bits
    wanted = NUMPY[spec.datatype]
    if array.dtype != wanted and array.dtype.kind != wanted.kind:
        raise CannotMeasure(
            f"{where}: input {spec.name}: expected {spec.datatype}, got {array.dtype}",
            f"Convert it first: array.astype('{wanted.name}').",
        )
    return _held(array, spec, where, spec.datatype)


def _held(array: Array, spec: TensorSpec, where: str, datatype: Datatype) -> Array:
    try:
        return as_datatype(array, datatype)
    except ValueError as error:
        raise CannotMeasure(
            f"{where}: input {spec.name}: {error}", "Give values as the model sees them, scaled as in training."
        ) from None


def batched(specs: Sequence[TensorSpec], feeds: Sequence[Feeds], size: int) -> list[Feeds]:
    """Requests of `size` cases each, put together from the cases in turn."""
    single = [feeds[at % len(feeds)] for at in range(max(size, min(4 * size, len(feeds))))]
    groups = [single[at : at + size] for at in range(0, len(single) - size + 1, size)]
    return [{spec.name: np.concatenate([one[spec.name] for one in group]) for spec in specs} for group in groups]


def _check(spec: TensorSpec, shape: tuple[int, ...], where: str = "") -> None:
    fits = not spec.shape or (
        len(spec.shape) == len(shape) and all(want in (-1, got) for want, got in zip(spec.shape, shape, strict=True))
    )
    if not fits:
        raise CannotMeasure(
            f"{where}{': ' * bool(where)}input {spec.name}: expected shape {shape_text(spec.shape)}, got {list(shape)}",
            "Give an array of the model's own shape; ? stands for any size.",
        )


def shape_text(shape: Sequence[int]) -> str:
    return "[" + ", ".join("?" if dim < 0 else str(dim) for dim in shape) + "]"


def _check_sized(specs: Sequence[TensorSpec], axes: Mapping[str, Sequence[str]]) -> None:
    """A free first axis counts cases; any other has a size that nobody can guess. Raises CannotMeasure."""
    free = [spec for spec in specs if any(dim < 0 for dim in spec.shape[1:])]
    if free:
        wanted = " and ".join(f"{spec.name} {_named_text(spec, axes.get(spec.name, ()))}" for spec in free)
        example = " ".join(f"--shape {shlex.quote(_example(spec))}" for spec in free)
        raise CannotMeasure(
            f"random input: expected a size for each free axis of {wanted}, got none",
            f"Say it: {example} with the sizes that you mean.",
        )


def _named_text(spec: TensorSpec, names: Sequence[str]) -> str:
    told = itertools.zip_longest(spec.shape, names[: len(spec.shape)])
    return "[" + ", ".join(str(dim) if dim >= 0 else name or "?" for dim, name in told) + "]"


def _example(spec: TensorSpec) -> str:
    sizes = (str(dim) if dim >= 0 else "224" if at else "1" for at, dim in enumerate(spec.shape))
    return f"{spec.name}={','.join(sizes)}"


def _drawn(datatype: Datatype, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Floats from 0 to 1, integers of 8 bits over their range, others 0 or 1: a table of any size has such rows."""
    if datatype is Datatype.BYTES:
        words = np.full(shape, "edgeward", dtype=object)
        return words
    if datatype is Datatype.BF16:
        return bf16.from_floats(generator.random(shape))
    dtype = NUMPY[datatype]
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    low, high = {Datatype.UINT8: (0, 256), Datatype.INT8: (-128, 128)}.get(datatype, (0, 2))
    return generator.integers(low, high, shape).astype(dtype)
