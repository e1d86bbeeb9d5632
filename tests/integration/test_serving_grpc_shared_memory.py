"""System shared memory over gRPC: NVIDIA's client and its shared memory, unmodified. Its rules are tested over HTTP."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import grpc  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException, shared_memory  # type: ignore[import-untyped]

from support.rpc import code, rpc_device, rpc_shared_output, rpc_shared_tensor, rpc_tensor, triton_rpc
from support.serving import manifest_for, sum_model, write_release

A, B = np.arange(8, dtype=np.int32).reshape(2, 4), np.full((2, 4), 3, np.int32)
SIZE = A.nbytes


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("grpc")
    model = sum_model(folder / "sum" / "model.onnx")
    releases = [write_release(model.parent, manifest_for(model, "sum"))]
    with rpc_device(folder / "d", releases, "--shared-memory", "--deadlines", "off") as (_, address):
        yield address


@pytest.fixture
def client(address: str) -> Iterator[grpc.InferenceServerClient]:
    with triton_rpc(address) as made:
        made.unregister_system_shared_memory()
        yield made
        made.unregister_system_shared_memory()


@pytest.fixture
def region(client: grpc.InferenceServerClient) -> Iterator[shared_memory.SharedMemoryRegion]:
    """64 KiB, registered as `r`."""
    made = shared_memory.create_shared_memory_region("r", f"/edgeward-{uuid.uuid4().hex}", 1 << 16, create_only=True)
    client.register_system_shared_memory("r", made._shm_key, 1 << 16)
    yield made
    shared_memory.destroy_shared_memory_region(made)


def test_inputs_and_outputs_in_shared_memory(client: grpc.InferenceServerClient, region: object) -> None:
    shared_memory.set_shared_memory_region(region, [A, B])
    inputs = [
        rpc_shared_tensor("a", A.shape, "INT32", "r", SIZE),
        rpc_shared_tensor("b", B.shape, "INT32", "r", SIZE, SIZE),
    ]
    outputs = [rpc_shared_output("sum", "r", 1000, 4096), grpc.InferRequestedOutput("difference")]
    result = client.infer("sum", inputs, outputs=outputs, request_id="7")
    assert list(result.get_output("sum").shape) == [2, 4]
    assert (shared_memory.get_contents_as_numpy(region, np.int32, [2, 4], 4096) == A + B).all()
    assert (result.as_numpy("difference") == A - B).all()  # by its place among the raw ones
    mixed = client.infer("sum", [inputs[0], rpc_tensor("b", B, "INT32")])
    assert (mixed.as_numpy("sum") == A + B).all()


def test_regions_are_told_and_forgotten(client: grpc.InferenceServerClient, region: object) -> None:
    key = region._shm_key  # type: ignore[attr-defined]
    client.register_system_shared_memory("part", key, 100, offset=50)
    found = client.get_system_shared_memory_status().regions
    assert {name: (each.key, each.offset, each.byte_size) for name, each in found.items()} == {
        "r": (key, 0, 1 << 16),
        "part": (key, 50, 100),
    }
    assert list(client.get_system_shared_memory_status("part").regions) == ["part"]
    client.unregister_system_shared_memory("part")
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory region: 'part'") as caught:
        client.get_system_shared_memory_status("part")
    assert code(caught.value) == "NOT_FOUND"
    with pytest.raises(InferenceServerException, match="expected a key such as"):
        client.register_system_shared_memory("k", "../etc/passwd", 10)
    assert "system_shared_memory" in client.get_server_metadata().extensions


@pytest.mark.parametrize(("size", "offset"), [(1 << 16, 4), (4, (1 << 63) - 4), (-4, 0), (4, -4)])
def test_nothing_outside_a_region_is_read_or_written(
    client: grpc.InferenceServerClient, region: object, size: int, offset: int
) -> None:
    words = "within the shared memory region's 65536 bytes"
    other = rpc_tensor("b", B, "INT32")
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer("sum", [rpc_shared_tensor("a", A.shape, "INT32", "r", size, offset), other])
    assert code(caught.value) == "INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match=words):
        outputs = [rpc_shared_output("sum", "r", size, offset)]
        client.infer("sum", [rpc_tensor("a", A, "INT32"), other], outputs=outputs)


def test_a_file_cut_short_costs_one_answer(client: grpc.InferenceServerClient, region: object) -> None:
    os.truncate(f"/dev/shm/{region._shm_key.removeprefix('/')}", 0)  # type: ignore[attr-defined]
    with pytest.raises(InferenceServerException, match="it has been cut short"):
        given = rpc_shared_tensor("a", A.shape, "INT32", "r", SIZE, 4096)
        client.infer("sum", [given, rpc_tensor("b", B, "INT32")])
    os.truncate(f"/dev/shm/{region._shm_key.removeprefix('/')}", 1 << 16)  # type: ignore[attr-defined]
    assert client.is_server_ready()
