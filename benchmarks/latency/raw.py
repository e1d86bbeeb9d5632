"""The model itself: `InferenceSession.run` in a loop, in a process of its own.

python -m benchmarks.latency.raw MODEL.onnx INPUTS.npz SECONDS LATENCIES
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.latency.native import Cores, Sample, pinned
from benchmarks.latency.workload import Workload
from edgeward_agent.serving.memory import with_huge_pages

_WARM_UP_S = 0.2


def run(workload: Workload, seconds: float, cores: Cores, *, huge_pages: bool = False) -> Sample:
    """Latencies of the model with one thread, as our own session has it; with `huge_pages` in memory as ours too."""
    with TemporaryDirectory(prefix="edgeward-raw-") as folder:
        inputs, latencies = Path(folder) / "inputs.npz", Path(folder) / "latencies"
        np.savez(inputs, **dict(workload.inputs))  # type: ignore[arg-type]  # a name could be `allow_pickle`
        command = (sys.executable, "-m", "benchmarks.latency.raw", workload.model, inputs, str(seconds), latencies)
        subprocess.run(pinned(command, cores), check=True, env=with_huge_pages(os.environ) if huge_pages else None)
        found = np.fromfile(latencies, np.uint64)
    return Sample(latencies_ns=np.sort(found), per_s=len(found) / seconds)


def main(model: str, inputs: str, seconds: str, latencies: str) -> None:
    from edgeward_agent.ort import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(inputs) as archive:
        feeds = {name: archive[name] for name in archive.files}
    found: list[int] = []
    names, now = [each.name for each in session.get_outputs()], time.perf_counter_ns
    warm = now() + int(_WARM_UP_S * 1e9)
    end = warm + int(float(seconds) * 1e9)
    before = now()
    while before < end or not found:  # another process may have had the core for all of a short turn
        session.run(names, feeds)
        after = now()
        if before >= warm:
            found.append(after - before)
        before = after
    np.array(found, np.uint64).tofile(latencies)


if __name__ == "__main__":
    main(*sys.argv[1:])
