"""A serving process that answers gRPC, and NVIDIA's client for it, unmodified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tritonclient import grpc  # type: ignore[import-untyped]

from edgeward_agent.listening import bound_address, reserve_grpc
from support.serving import Device, Release, ask, device
from support.triton import TIMEOUT_S, AnyArray


@contextmanager
def rpc_device(folder: Path, releases: Sequence[Release], *extra: str) -> Iterator[tuple[Device, str]]:
    """A device that serves these over gRPC too, and the address. It answers when this returns."""
    with device(folder) as made, reserve_grpc("127.0.0.1:0") as reserved:
        address = bound_address(reserved)
        made.commit(*releases)
        made.start("--grpc", address, *extra)
        assert ask(made.port, "/v2/health/ready").status == 200
        yield made, address


@contextmanager
def triton_rpc(address: str) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(address) as client:
        yield client


def rpc_tensor(name: str, array: AnyArray, datatype: str) -> grpc.InferInput:
    made = grpc.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def rpc_shared_tensor(
    name: str, shape: Sequence[int], datatype: str, region: str, size: int, offset: int = 0
) -> grpc.InferInput:
    made = grpc.InferInput(name, list(shape), datatype)
    made.set_shared_memory(region, size, offset)
    return made


def rpc_shared_output(name: str, region: str, size: int, offset: int = 0) -> grpc.InferRequestedOutput:
    made = grpc.InferRequestedOutput(name)
    made.set_shared_memory(region, size, offset)
    return made


def code(error: BaseException) -> str:
    """`INVALID_ARGUMENT`, of what the client raised."""
    status: str = error.status()  # type: ignore[attr-defined]
    return status.removeprefix("StatusCode.")


__all__ = ["TIMEOUT_S", "code", "rpc_device", "rpc_shared_output", "rpc_shared_tensor", "rpc_tensor", "triton_rpc"]
