"""Arrays from files that a person names. Without pickle: a pickle runs code."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.wire.tensors import NUMPY, Array
from edgeward_contract.manifest import Datatype

_HINT: Final = "Write it with numpy.savez(path, NAME=array)."
_BROKEN: Final = (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # whatever is not as it should be


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz by name. Raises CannotMeasure, which names the file."""
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise _wrong(path, error.strerror or "a file that cannot be read") from None
    except _BROKEN:
        raise _wrong(path, "a file of another kind") from None
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise _wrong(path, "a single array, as numpy.save writes it")
    with found:
        return {name: _one(path, found, name) for name in found.files}


def read_npy(path: Path) -> Array:
    """The array of an .npy. Raises OSError, and ValueError that names the file."""
    wanted = f"{path}: expected an .npy of one plain array, got"
    try:
        found = np.load(path, allow_pickle=False)
    except _BROKEN:
        raise ValueError(f"{wanted} objects or a file of another kind; write it with numpy.save(path, array)") from None
    if isinstance(found, np.lib.npyio.NpzFile):
        found.close()
        raise ValueError(f"{wanted} an .npz; save the array by itself with numpy.save(path, array)")
    array: Array = found
    return array


def as_datatype(array: Array, datatype: Datatype) -> Array:
    """Numbers of the same kind in another size. Raises ValueError for one that would become another number."""
    wanted = NUMPY[datatype]
    with np.errstate(over="ignore"):
        found = array.astype(wanted, copy=False)
    lost = np.isinf(found) & np.isfinite(array) if wanted.kind == "f" else found != array
    if lost.any():
        raise ValueError(f"expected numbers within the range of {datatype}, got {array[lost].flat[0]}")
    return found


def _one(path: Path, found: np.lib.npyio.NpzFile, name: str) -> Array:
    try:
        array = found[name]
    except (OSError, *_BROKEN):
        raise _wrong(path, f"'{name}', which is no plain array or is damaged") from None
    if not isinstance(array, np.ndarray):  # a member that is no .npy comes as its bytes
        raise _wrong(path, f"'{name}', which is no array")
    return array


def _wrong(path: Path, found: str) -> CannotMeasure:
    return CannotMeasure(f"{path}: expected an .npz of plain arrays, got: {found}", _HINT)
