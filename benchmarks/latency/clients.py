"""Our Python client against NVIDIA's, both asking one server in turn: what an application pays on its own side.

python -m benchmarks.latency.clients TCP_PORT UNIX_PATH REQUESTS      prints {"name": p50 in µs}
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from benchmarks.latency import native, servers, tree
from benchmarks.latency.native import Cores
from benchmarks.latency.store import Figures
from benchmarks.latency.workload import Workload, prepare

_REQUESTS: Final = 2000
_TURNS: Final = 10
_CORES: Final[Cores] = (0,)


def measure(model: str) -> Figures:
    """Medians in µs of one process with every client, on one core with the server."""
    workload = prepare(model)
    with servers.start("ours", workload) as server, tree.awake(server.pid, _CORES):
        tree.pin(server.recorder, (1,))
        where = (server.ways["tcp"].target.where, server.ways["unix"].target.where)
        command = (sys.executable, "-m", "benchmarks.latency.clients", model, *where)
        done = subprocess.run(native.pinned(command, _CORES), check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def main(model: str, port: str, unix: str) -> None:
    """Ask with each client in short turns, and print their medians."""
    workload = prepare(model)
    with ExitStack() as stack:
        clients = {
            "ours": _ours(workload, f"http://127.0.0.1:{port}", stack),
            "ours, unix": _ours(workload, f"unix:{unix}", stack),
            "tritonclient": _tritonclient(workload, port, stack),
        }
        taken: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(_TURNS):
            for name, call in clients.items():
                taken[name] += _timed(call, _REQUESTS // _TURNS)
    print(json.dumps({name: sorted(each)[len(each) // 2] for name, each in taken.items()}))


def _timed(call: Callable[[], object], count: int) -> list[float]:
    for _ in range(10):
        call()
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1e6)
    return taken


def _ours(workload: Workload, address: str, stack: ExitStack) -> Callable[[], object]:
    from edgeward_agent.client import Client

    client = stack.enter_context(Client(address))
    return lambda: client.infer(workload.name, workload.inputs)


def _tritonclient(workload: Workload, port: str, stack: ExitStack) -> Callable[[], object]:
    """As its own examples do it: inputs made once, binary both ways, every output read."""
    import tritonclient.http as triton  # type: ignore[import-untyped]

    client = stack.enter_context(triton.InferenceServerClient(f"127.0.0.1:{port}"))
    outputs = [triton.InferRequestedOutput(name) for name in workload.outputs]

    def call() -> object:
        inputs = []
        for name, tensor in workload.inputs.items():
            given = triton.InferInput(name, list(tensor.shape), "FP32")
            given.set_data_from_numpy(tensor)
            inputs.append(given)
        answer = client.infer(workload.name, inputs, outputs=outputs)
        return [answer.as_numpy(name) for name in workload.outputs]

    return call


if __name__ == "__main__":
    main(*sys.argv[1:])
