"""What the tests with NVIDIA's client share. Nothing of the client is changed or replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from tritonclient import http  # type: ignore[import-untyped]

from support.serving import Device

AnyArray = npt.NDArray[np.generic]
TIMEOUT_S = 20


@contextmanager
def triton(device: Device, *, concurrency: int = 1) -> Iterator[http.InferenceServerClient]:
    address = f"127.0.0.1:{device.port}"
    with http.InferenceServerClient(
        address, concurrency=concurrency, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
    ) as client:
        yield client


def tensor(name: str, array: AnyArray, datatype: str, *, binary: bool = True) -> http.InferInput:
    made = http.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def shared_tensor(
    name: str, shape: Sequence[int], datatype: str, region: str, size: int, offset: int = 0
) -> http.InferInput:
    made = http.InferInput(name, list(shape), datatype)
    made.set_shared_memory(region, size, offset)
    return made


def shared_output(name: str, region: str, size: int, offset: int = 0) -> http.InferRequestedOutput:
    made = http.InferRequestedOutput(name)
    made.set_shared_memory(region, size, offset)
    return made
