"""Our Python client against NVIDIA's, asking in turn: what an application pays on its own side.

All over HTTP ask one server. gRPC has one of its own, since it would make the other larger; it is asked by NVIDIA's
client, for the load generator in C speaks no gRPC: its figure is to be held against that client over HTTP.

python -m benchmarks.latency.clients MODEL TCP_PORT UNIX_PATH FRAMES_PATH GRPC_ADDRESS      prints {"name": p50 in µs}
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
from benchmarks.latency.ours import free_port
from benchmarks.latency.store import Figures
from benchmarks.latency.workload import Workload, prepare

_REQUESTS: Final = 2000
_TURNS: Final = 10
_CORES: Final[Cores] = (0,)


def measure(model: str) -> Figures:
    """Medians in µs of one process with every client, on one core with the server."""
    workload = prepare(model)
    grpc = f"127.0.0.1:{free_port()}"
    with (
        servers.start("ours", workload) as server,
        servers.start("ours", workload, "--grpc", grpc) as second,
        tree.awake(server.pid, _CORES),
        tree.awake(second.pid, _CORES),
    ):
        for each in (server, second):
            tree.pin(each.recorder, (1,))
        where = [*(server.ways[way].target.where for way in ("tcp", "unix", "frames")), grpc]
        command = (sys.executable, "-m", "benchmarks.latency.clients", model, *where)
        done = subprocess.run(native.pinned(command, _CORES), check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def main(model: str, port: str, unix: str, frames: str, grpc: str) -> None:
    """Ask with each client in short turns, and print their medians."""
    workload = prepare(model)
    with ExitStack() as stack:
        clients = {
            "ours": _ours(workload, f"http://127.0.0.1:{port}", stack),
            "ours, unix": _ours(workload, f"unix:{unix}", stack),
            "ours, shared memory": _ours(workload, f"frames:{frames}", stack, http=f"unix:{unix}"),
            "tritonclient": _tritonclient(workload, port, stack),
            "tritonclient, gRPC": _over_grpc(workload, grpc, stack),
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


def _ours(workload: Workload, address: str, stack: ExitStack, *, http: str | None = None) -> Callable[[], object]:
    from edgeward_agent.client import Client

    client = stack.enter_context(Client(address, http=http))
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


def _over_grpc(workload: Workload, address: str, stack: ExitStack) -> Callable[[], object]:
    """The same, over gRPC."""
    import tritonclient.grpc as triton  # type: ignore[import-untyped]

    client = stack.enter_context(triton.InferenceServerClient(address))
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
