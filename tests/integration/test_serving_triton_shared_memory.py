"""NVIDIA's own client and its shared memory, unmodified, against the serving process; and a client that means ill."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from tritonclient import http  # type: ignore[import-untyped]
from tritonclient.utils import (  # type: ignore[import-untyped]
    InferenceServerException,
    serialize_byte_tensor,
    shared_memory,
)

from support.serving import Device, ask, device, identity_model, manifest_for, sum_model, write_release
from support.triton import shared_output, shared_tensor, tensor, triton

A, B = np.arange(8, dtype=np.int32).reshape(2, 4), np.full((2, 4), 3, np.int32)
SIZE = A.nbytes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("triton")
    model = sum_model(folder / "sum" / "model.onnx")
    releases = [write_release(model.parent, manifest_for(model, "sum"))]
    for name, kind in (("fp32", TensorProto.FLOAT), ("bytes", TensorProto.STRING)):
        model = identity_model(folder / name / "model.onnx", kind, ["n", "m"])
        releases.append(write_release(model.parent, manifest_for(model, name)))
    with device(folder / "d") as made:
        made.commit(*releases)
        made.start("--shared-memory", "--deadlines", "off")
        yield made


@pytest.fixture
def client(served: Device) -> Iterator[http.InferenceServerClient]:
    with triton(served) as made:
        made.unregister_system_shared_memory()
        yield made
        made.unregister_system_shared_memory()


@pytest.fixture
def region(client: http.InferenceServerClient) -> Iterator[shared_memory.SharedMemoryRegion]:
    """64 KiB, registered as `r`."""
    made = shared_memory.create_shared_memory_region("r", f"/edgeward-{uuid.uuid4().hex}", 1 << 16, create_only=True)
    client.register_system_shared_memory("r", made._shm_key, 1 << 16)
    yield made
    shared_memory.destroy_shared_memory_region(made)


def _file(region: shared_memory.SharedMemoryRegion) -> Path:
    return Path("/dev/shm", str(region._shm_key).removeprefix("/"))


def test_inputs_and_outputs_in_shared_memory(client: http.InferenceServerClient, region: object) -> None:
    shared_memory.set_shared_memory_region(region, [A, B])
    inputs = [shared_tensor("a", A.shape, "INT32", "r", SIZE), shared_tensor("b", B.shape, "INT32", "r", SIZE, SIZE)]
    outputs = [shared_output("sum", "r", 1000, 4096), http.InferRequestedOutput("difference")]
    result = client.infer("sum", inputs, outputs=outputs, request_id="7")
    assert result.get_output("sum") == {"name": "sum", "datatype": "INT32", "shape": [2, 4]}
    assert (shared_memory.get_contents_as_numpy(region, np.int32, [2, 4], 4096) == A + B).all()
    assert (result.as_numpy("difference") == A - B).all()
    mixed = client.infer("sum", [inputs[0], tensor("b", B, "INT32")], outputs=[shared_output("sum", "r", SIZE, 8192)])
    assert mixed.get_output("sum")["shape"] == [2, 4]
    assert (shared_memory.get_contents_as_numpy(region, np.int32, [2, 4], 8192) == A + B).all()


def test_text_in_shared_memory(client: http.InferenceServerClient, region: object) -> None:
    words = np.array([["a", "é"], ["", "longer"]], object)
    packed = serialize_byte_tensor(words)
    shared_memory.set_shared_memory_region(region, [packed])
    given = shared_tensor("in", words.shape, "BYTES", "r", len(packed.item()))
    client.infer("bytes", [given], outputs=[shared_output("out", "r", 1000, 1024)])
    found = shared_memory.get_contents_as_numpy(region, np.object_, [2, 2], 1024)
    assert [[each.decode() for each in row] for row in found] == words.tolist()


def test_regions_are_told_and_forgotten(client: http.InferenceServerClient, region: object) -> None:
    key = region._shm_key  # type: ignore[attr-defined]
    entry = {"name": "r", "key": key, "offset": 0, "byte_size": 1 << 16}
    client.register_system_shared_memory("part", key, 100, offset=50)
    assert client.get_system_shared_memory_status("r") == [entry]
    assert [each["offset"] for each in client.get_system_shared_memory_status()] == [0, 50]
    with pytest.raises(InferenceServerException, match="shared memory region 'r' already in manager"):
        client.register_system_shared_memory("r", key, 100)
    client.unregister_system_shared_memory("part")
    assert client.get_system_shared_memory_status() == [entry]
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory region: 'part'"):
        client.get_system_shared_memory_status("part")
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'r'"):
        client.infer("fp32", [shared_tensor("in", (1, 1), "FP32", "r", 4)])


def test_there_is_no_gpu_to_share_memory_with(client: http.InferenceServerClient) -> None:
    client.unregister_cuda_shared_memory()
    assert client.get_cuda_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="GPUs not supported"):
        client.register_cuda_shared_memory("g", b"handle", 0, 100)


@pytest.mark.parametrize("key", ["../etc/passwd", "/a/b", "", "/..", "missing"])
def test_a_key_leads_nowhere_else(client: http.InferenceServerClient, key: str) -> None:
    with pytest.raises(InferenceServerException, match="expected a key such as|Unable to open shared memory region"):
        client.register_system_shared_memory("k", key, 10)


@pytest.mark.parametrize(("size", "offset"), [(1 << 16, 4), (4, (1 << 64) - 4), (1 << 63, 1 << 63)])
def test_nothing_outside_a_region_is_read_or_written(
    client: http.InferenceServerClient, region: object, size: int, offset: int
) -> None:
    words = "within the shared memory region's 65536 bytes"
    with pytest.raises(InferenceServerException, match=words):
        client.infer("fp32", [shared_tensor("in", (1, 1), "FP32", "r", size, offset)])
    with pytest.raises(InferenceServerException, match=words):
        one = np.ones((1, 1), np.float32)
        client.infer("fp32", [tensor("in", one, "FP32")], outputs=[shared_output("out", "r", size, offset)])


def test_an_output_needs_room(client: http.InferenceServerClient, region: object) -> None:
    inputs = [tensor("a", A, "INT32"), tensor("b", B, "INT32")]
    with pytest.raises(InferenceServerException, match="should be at least 32 bytes to hold the results"):
        client.infer("sum", inputs, outputs=[shared_output("sum", "r", 31)])


def test_a_client_that_cuts_its_file_short_ends_nothing(
    served: Device, client: http.InferenceServerClient, region: shared_memory.SharedMemoryRegion
) -> None:
    """Where the file were mapped, the first of these would end the process with SIGBUS."""
    assert served.process is not None
    one = np.ones((1, 1), np.float32)
    given, wanted = shared_tensor("in", (1, 1), "FP32", "r", 4, 4096), [shared_output("out", "r", 4, 4096)]
    for length in (4096, 0):
        os.truncate(_file(region), length)
        with pytest.raises(InferenceServerException, match="it has been cut short") as caught:
            client.infer("fp32", [given])
        assert caught.value.status() == "400"
        with pytest.raises(InferenceServerException, match="it has been cut short"):
            client.infer("fp32", [tensor("in", one, "FP32")], outputs=wanted)
    assert served.process.poll() is None
    assert (client.infer("fp32", [tensor("in", one, "FP32")]).as_numpy("out") == one).all()
    os.truncate(_file(region), 1 << 16)


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    with device(tmp_path / "d") as made:
        made.commit()
        made.start()
        assert "system_shared_memory" not in ask(made.port, "/v2").json["extensions"]
        register = {"key": "/x", "byte_size": 1}
        reply = ask(made.port, "/v2/systemsharedmemory/region/r/register", register)
        assert (reply.status, "shared memory is switched off here" in reply.error) == (501, True)
        assert ask(made.port, "/v2/systemsharedmemory/status").json == []
