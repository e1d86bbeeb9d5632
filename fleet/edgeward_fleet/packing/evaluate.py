"""Runs a model over golden inputs in a process of its own: `python -m edgeward_fleet.packing.evaluate MODEL IN OUT`.

A process of its own, because a model may crash the runtime and the person at the terminal is owed a sentence.
Cases are run one by one, as a device's probe does: a batch may round differently.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgeward_fleet.packing.errors import GoldenRefused, PackingError

Arrays = Mapping[str, npt.NDArray[np.generic]]
TIMEOUT_S: Final = 600


def evaluate(model: Path, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """Outputs by name, first axis the cases, for `inputs` by name, first axis the cases.

    Raises:
        GoldenRefused: the model refuses the inputs, crashes the runtime or does not end.
        PackingError: the runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise PackingError("onnxruntime is not installed", hint="pip install 'edgeward[agent]'")
    with tempfile.TemporaryDirectory(prefix="edgeward-pack-") as folder:
        given, computed = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(given, allow_pickle=False, **{f"input:{name}": array for name, array in inputs.items()})
        _run(model, given, computed)
        with np.load(computed, allow_pickle=False) as file:
            return {name.removeprefix("output:"): file[name] for name in file.files}


def _run(model: Path, given: Path, computed: Path) -> None:
    command = [sys.executable, "-m", "edgeward_fleet.packing.evaluate", str(model), str(given), str(computed)]
    try:
        # The variable keeps the runtime from sending telemetry; it is read when the library is loaded.
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment)
    except subprocess.TimeoutExpired:
        raise GoldenRefused(f"the model did not finish its golden cases within {TIMEOUT_S} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise GoldenRefused(f"the model crashed the runtime on a golden case ({name})", hint="Devices would refuse it.")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise GoldenRefused(f"the model does not run its golden cases: {lines[-1]}")


def _main(model: str, given: str, computed: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # the exception says it; the runtime's own log would be a second voice
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(given, allow_pickle=False) as file:
        inputs = {name.removeprefix("input:"): _for_runtime(file[name]) for name in file.files}
    cases = len(next(iter(inputs.values())))
    rows = [session.run(names, {name: a[i : i + 1] for name, a in inputs.items()}) for i in range(cases)]
    outputs = {
        f"output:{name}": _plain(np.concatenate(parts))
        for name, parts in zip(names, zip(*rows, strict=True), strict=True)
    }
    np.savez(computed, allow_pickle=False, **outputs)


def _for_runtime(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The runtime takes strings as objects only; a file may not hold objects (they would be pickled)."""
    return array.astype(object) if array.dtype.kind in "US" else array


def _plain(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return array.astype(np.str_) if array.dtype.kind == "O" else array


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except Exception as error:  # every failure of a foreign runtime becomes the one line that the parent shows
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)
