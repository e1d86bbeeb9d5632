"""The golden set: inputs with the outputs that they must give, as devices will check them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgeward_contract.manifest import Datatype, TensorSpec, Tolerance
from edgeward_fleet.packing.errors import GoldenRefused
from edgeward_fleet.packing.tensors import Signature

Arrays = Mapping[str, npt.NDArray[np.generic]]

_KINDS: Final[dict[Datatype, np.dtype[np.generic]]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype(np.uint8),
    Datatype.UINT16: np.dtype(np.uint16),
    Datatype.UINT32: np.dtype(np.uint32),
    Datatype.UINT64: np.dtype(np.uint64),
    Datatype.INT8: np.dtype(np.int8),
    Datatype.INT16: np.dtype(np.int16),
    Datatype.INT32: np.dtype(np.int32),
    Datatype.INT64: np.dtype(np.int64),
    Datatype.FP16: np.dtype(np.float16),
    Datatype.FP32: np.dtype(np.float32),
    Datatype.FP64: np.dtype(np.float64),
}
_NOT_IN_ARCHIVES: Final = "numpy has no such type; give the model a float32 input or output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Arrays by tensor name; the first axis of each counts the cases."""

    inputs: Arrays
    outputs: Arrays

    @property
    def cases(self) -> int:
        return len(next(iter(self.inputs.values())))

    def archive(self) -> bytes:
        """The .npz, byte for byte the same for the same arrays: no times in it."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in sorted(self._named().items()):
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                data = io.BytesIO()
                np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(entry, data.getvalue())
        return buffer.getvalue()

    def _named(self) -> dict[str, npt.NDArray[np.generic]]:
        inputs = {f"input:{name}": array for name, array in self.inputs.items()}
        return inputs | {f"output:{name}": array for name, array in self.outputs.items()}


def read_golden(path: Path, signature: Signature) -> Golden:
    """A complete set from an .npz of `input:<name>` and `output:<name>`. Raises GoldenRefused, OSError."""
    arrays = _load(path)
    golden = Golden(inputs=_take(arrays, "input", signature.inputs), outputs=_take(arrays, "output", signature.outputs))
    if arrays:
        raise GoldenRefused(f"{path.name}: expected no other arrays, found {', '.join(sorted(arrays))}")
    _check_cases({**golden.inputs, **golden.outputs})
    return golden


def read_inputs(path: Path, signature: Signature) -> Arrays:
    """Inputs alone, from an .npz of `input:<name>`, or of `<name>`. Raises GoldenRefused, OSError."""
    arrays = _load(path)
    prefixed = {name if ":" in name else f"input:{name}": array for name, array in arrays.items()}
    inputs = _take(prefixed, "input", signature.inputs)
    _check_cases(inputs)
    return inputs


def complete(inputs: Arrays, outputs: Arrays, signature: Signature) -> Golden:
    """A set of `inputs` and what the model gave for them. Raises GoldenRefused: no set that a device could check."""
    for spec in signature.outputs:
        _check_array("output", spec, np.asarray(outputs[spec.name]))
    _check_cases({**inputs, **outputs})
    return Golden(inputs=inputs, outputs=outputs)


def default_tolerance(datatype: Datatype) -> Tolerance:
    """Room for another CPU's rounding in a float, none in a class or a count."""
    floating = datatype in (Datatype.FP16, Datatype.FP32, Datatype.FP64)
    return Tolerance(atol=1e-5, rtol=1e-4) if floating else Tolerance(atol=0.0, rtol=0.0)


def compare(golden: Golden, computed: Arrays, tolerances: Mapping[str, Tolerance]) -> None:
    """Hold `computed` to the set, as a device does. Raises GoldenRefused, which names the first case that differs."""
    for name, want in golden.outputs.items():
        got = computed[name]
        if got.shape != want.shape:
            raise GoldenRefused(f"output {name}: expected shape {list(want.shape)}, the model gives {list(got.shape)}")
        wrong = ~_close(got, want, tolerances[name])
        if wrong.any():
            raise GoldenRefused(_difference(name, got, want, wrong))


def _close(got: npt.NDArray[np.generic], want: npt.NDArray[np.generic], tolerance: Tolerance) -> npt.NDArray[np.bool_]:
    exact = tolerance == Tolerance(atol=0.0, rtol=0.0) and want.dtype.kind != "f"  # a float64 cannot hold every int64
    if exact or want.dtype.kind in "US":
        return np.asarray(got == want)
    a, b = got.astype(np.float64), want.astype(np.float64)
    return np.asarray(np.isclose(a, b, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True))


def _difference(
    name: str, got: npt.NDArray[np.generic], want: npt.NDArray[np.generic], wrong: npt.NDArray[np.bool_]
) -> str:
    first = tuple(int(axis[0]) for axis in np.nonzero(wrong))
    cases = int(wrong.reshape(len(wrong), -1).any(axis=1).sum())
    return (
        f"output {name}, case {first[0]}: expected {want[first]}, the model gives {got[first]} "
        f"({cases} of {len(want)} cases differ)"
    )


def _load(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise GoldenRefused(f"{path.name}: expected an .npz archive, found a single array")
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, RuntimeError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # of the file, not of what is in it
        raise GoldenRefused(f"{path.name}: expected an .npz archive of plain arrays, found: {error}") from None


def _take(arrays: dict[str, npt.NDArray[np.generic]], kind: str, specs: tuple[TensorSpec, ...]) -> Arrays:
    """Move the arrays of `specs` out of `arrays`, each checked against its tensor."""
    taken: dict[str, npt.NDArray[np.generic]] = {}
    for spec in specs:
        array = arrays.pop(f"{kind}:{spec.name}", None)
        if array is None:
            found = ", ".join(sorted(arrays)) or "none"
            raise GoldenRefused(f"expected an array '{kind}:{spec.name}' in the golden set, found {found}")
        _check_array(kind, spec, array)
        taken[spec.name] = array
    return taken


def _check_array(kind: str, spec: TensorSpec, array: npt.NDArray[np.generic]) -> None:
    where = f"golden {kind} {spec.name}"
    if not spec.shape or spec.shape[0] not in (-1, 1):
        raise GoldenRefused(
            f"{where}: expected a model whose first axis is the batch (free or 1), its shape is {list(spec.shape)}",
            hint="Export the model with a free first axis; each golden case is run as a batch of one.",
        )
    if array.ndim != len(spec.shape) or any(
        want not in (-1, got) for want, got in zip(spec.shape[1:], array.shape[1:], strict=True)
    ):
        raise GoldenRefused(f"{where}: expected shape {['cases', *spec.shape[1:]]}, found {list(array.shape)}")
    fits = array.dtype.kind in "US" if spec.datatype is Datatype.BYTES else array.dtype == _KINDS.get(spec.datatype)
    if not fits:
        hint = _NOT_IN_ARCHIVES if spec.datatype is Datatype.BF16 else None
        raise GoldenRefused(f"{where}: expected {spec.datatype.value}, found {array.dtype}", hint=hint)


def _check_cases(arrays: Arrays) -> None:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or not next(iter(counts.values())):
        raise GoldenRefused(f"expected the same number of cases (at least 1) in every array, found {counts}")
