"""The frames socket: what a client may ask, and everything that it may do wrong. Real sockets, real models."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import resource
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto

from edgeward_agent.client.plan import Plan as ClientPlan
from edgeward_agent.client.plan import lay_out
from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.frames.connection import FrameConnection
from edgeward_agent.serving.frames.opened import Opened
from edgeward_agent.serving.frames.server import Access, FrameLimits
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.patience import Patience
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.wire import frames as wire
from edgeward_agent.wire.frames import FrameError, Kind
from edgeward_contract.manifest import CaptureMode, CapturePolicy
from edgeward_contract.schema import JsonValue
from support.frames import SEALS, FrameClient, FramesHost, connect, frames_host, memory_file, open_plan
from support.serving import (
    FEATURES,
    Json,
    Kept,
    cast_model,
    constant_model,
    failing_model,
    identity_model,
    nonzero_model,
    slow_model,
    sum_model,
    wait_until,
)

ONES = np.ones((1, FEATURES), np.float32)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FramesHost]:
    folder = tmp_path_factory.mktemp("frames")
    registry = Registry()
    for version in (
        load_file(constant_model(folder / "toy.onnx", 0.25)),
        load_file(sum_model(folder / "sums.onnx")),
        load_file(identity_model(folder / "flags.onnx", TensorProto.BOOL, ["n"])),
        load_file(identity_model(folder / "words.onnx", TensorProto.STRING, ["n"])),
        load_file(identity_model(folder / "halves.onnx", TensorProto.BFLOAT16, ["n"])),
        load_file(failing_model(folder / "table.onnx")),
        load_file(slow_model(folder / "slow.onnx")),
    ):
        registry.adopt(version)
    with frames_host(folder, registry) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_leaks(host: FramesHost) -> Iterator[None]:
    """After each test the server has no connection, no caller, no memory and no descriptor more than before."""
    before = _descriptors()
    yield
    wait_until(lambda: not host.server.connections)
    wait_until(lambda: gc.collect() >= 0 and _descriptors() <= before)
    assert host.server.room_bytes(0) == FrameLimits().memory_bytes
    assert host.server.runner.scheduler.callers.count == 0


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _toy(host: FramesHost, **more: Json) -> FrameClient:
    return FrameClient(host.path, "toy", {"features": ONES}, {"score": 64}, **more)


def _outcomes(host: FramesHost, model: str) -> Counter[Outcome]:
    return Counter(host.registry.find(model, None).traffic.outcomes())


def _ended(host: FramesHost, model: str, before: Counter[Outcome], **expected: int) -> bool:
    """Whether requests have ended so since; the last is counted a moment after its answer."""
    return _outcomes(host, model) - before == Counter(
        {Outcome[name.upper()]: count for name, count in expected.items()}
    )


# -- answers


def test_an_answer_lies_in_the_memory_and_tells_its_shape(host: FramesHost) -> None:
    with _toy(host) as client:
        assert (client.status, client.opened["version"]) == (200, "1")
        assert client.opened["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1, 1]}]
        for _ in range(3):
            answer = client.ask()
            assert (answer.status, answer.version, answer.shapes) == (200, 1, ((1, 1),))
            assert client.output("score", "<f4", (1, 1)) == np.float32(0.25)


def test_inputs_are_read_again_for_each_request(host: FramesHost) -> None:
    ramp = np.arange(8, dtype=np.int32).reshape(2, 4)
    with FrameClient(host.path, "sums", {"b": ramp, "a": ramp}, {"difference": 64, "sum": 32}) as client:
        for factor in (1, 2, 30):
            client.inputs["a"][...] = ramp * factor
            assert client.ask().shapes == ((2, 4), (2, 4))
            assert (client.output("sum", "<i4", (2, 4)) == ramp * (factor + 1)).all()
            assert (client.output("difference", "<i4", (2, 4)) == ramp * (factor - 1)).all()


def test_any_byte_is_a_bool(host: FramesHost) -> None:
    with FrameClient(host.path, "flags", {"in": np.zeros(4, np.bool_)}, {"out": 4}) as client:
        client.inputs["in"].view(np.uint8)[...] = [0, 1, 2, 255]
        assert client.ask().status == 200
        assert client.output("out", "<u1", (4,)).tolist() == [0, 1, 1, 1]


def test_nothing_is_a_tensor_too(host: FramesHost) -> None:
    with FrameClient(host.path, "flags", {"in": np.zeros(0, np.bool_)}, {"out": 0}) as client:
        assert client.ask().shapes == ((0,),)


def test_a_long_run_goes_to_a_thread_and_the_next_request_has_to_wait_for_its_answer(host: FramesHost) -> None:
    rows = np.ones((64, 512), np.float32)
    with FrameClient(host.path, "slow", {"in": rows}, {"out": rows.nbytes}) as client:
        client.send()
        client.send()
        answers = sorted((client.receive() for _ in range(2)), key=lambda each: each.sequence)
        assert [each.status for each in answers] == [200, 409]
        assert "one request at a time" in answers[1].error
        assert client.ask().status == 200


def test_a_deadline_of_its_own_is_kept(host: FramesHost) -> None:
    with _toy(host) as client:
        assert client.ask(timeout_us=wire.NO_DEADLINE, priority=1, request_id="exam 7").status == 200
        late = client.ask(timeout_us=1)
        assert late.status in (200, 503)  # by then nothing but the model's p99 says that it cannot be made
        refused = client.ask(timeout_us=(1 << 63))
        assert (refused.status, refused.error) == (
            400,
            f"expected a timeout of at most {(1 << 63) - 1} µs, got {1 << 63}",
        )


def test_the_live_version_answers_and_another_interface_is_said(tmp_path: Path) -> None:
    registry = Registry()
    first, second = (_version(tmp_path, value, number) for number, value in enumerate((0.25, 0.75), start=1))
    registry.adopt(first)
    with frames_host(tmp_path, registry) as host, _toy(host) as client, _toy(host, version="1") as pinned:
        assert client.ask().version == 1
        registry.adopt(second)
        assert client.ask().version == 2
        assert client.output("score", "<f4", (1, 1)) == np.float32(0.75)
        gone = pinned.ask()
        assert (gone.status, gone.error) == (404, "Request for unknown model: 'toy' version 1 is not found")
        registry.adopt(_renamed(load_file(sum_model(tmp_path / "other.onnx"))))
        changed = client.ask()
        assert (changed.status, changed.sequence) == (400, 3)
        assert changed.error == "expected inputs ['a', 'b'], each once, got ['features']"


def test_what_is_kept_of_results_follows_the_version(tmp_path: Path) -> None:
    """From the third request on the places of the results are known: those of the version that answers."""
    registry = Registry()
    first, second = (_version(tmp_path, value, number) for number, value in enumerate((0.25, 0.75), start=1))
    registry.adopt(first)
    with frames_host(tmp_path, registry) as host, _toy(host) as client:
        for version, value in ((first, 0.25), (second, 0.75), (first, 0.25)):
            registry.adopt(version)
            for _ in range(5):
                answer = client.ask()
                assert (answer.status, answer.version, answer.shapes) == (200, version.version, ((1, 1),))
                assert client.output("score", "<f4", (1, 1)) == np.float32(value)


def test_what_is_kept_of_results_follows_their_shape(tmp_path: Path) -> None:
    registry = Registry()
    registry.adopt(load_file(nonzero_model(tmp_path / "nonzero.onnx")))
    inputs = {"in": np.zeros(6, np.float32)}
    with frames_host(tmp_path, registry) as host, FrameClient(host.path, "nonzero", inputs, {"where": 64}) as client:
        for places in ([1], [2], [3], [0, 5], [1, 4], [2, 3], [], [5], [4], [0, 1, 2, 3, 4, 5]):
            client.inputs["in"][...] = 0
            client.inputs["in"][places] = 1
            answer = client.ask()
            assert (answer.status, answer.shapes) == (200, ((1, len(places)),))
            assert client.output("where", "<i8", (1, len(places))).tolist() == [places]


def test_outputs_of_another_type_are_said_before_they_are_misread(tmp_path: Path) -> None:
    registry = Registry()
    registry.adopt(_cast(tmp_path, TensorProto.FLOAT, 1))
    inputs = {"in": np.ones(2, np.float32)}
    with frames_host(tmp_path, registry) as host, FrameClient(host.path, "toy", inputs, {"out": 64}) as client:
        assert client.ask().status == 200
        registry.adopt(_cast(tmp_path, TensorProto.INT32, 2))
        assert client.ask().error == (
            "output 'out': expected FP32 [-1] as when the plan was opened, the model gives INT32 [-1] now:"
            " open a plan again"
        )


def _cast(folder: Path, kind: int, number: int) -> Version:
    loaded = load_file(cast_model(folder / f"cast-{number}" / "toy.onnx", kind))
    loaded.version = number
    return loaded


def _version(folder: Path, value: float, number: int) -> Version:
    loaded = load_file(constant_model(folder / str(number) / "toy.onnx", value))
    loaded.version = number
    return loaded


def _renamed(version: Version) -> Version:
    version.name = type(version.name)("toy")
    return version


@pytest.mark.parametrize("mode", [CaptureMode.ASYNC, CaptureMode.DURABLE])
def test_records_keep_what_was_answered(tmp_path: Path, mode: CaptureMode) -> None:
    """Inputs and results lie in memory that the next request uses again."""
    version = load_file(sum_model(tmp_path / "sums.onnx"))
    version.capture = CapturePolicy(mode=mode, inputs=True, outputs=True)
    registry, capture = Registry(), Kept()
    registry.adopt(version)
    values = np.zeros((1, 4), np.int32)
    with (
        frames_host(tmp_path, registry, capture=capture) as host,
        FrameClient(host.path, "sums", {"a": values, "b": values}, {"sum": 16}) as client,
    ):
        for number in range(6):
            client.inputs["a"][...] = client.inputs["b"][...] = number
            assert client.ask().status == 200
            assert client.output("sum", "<i4", (1, 4)).tolist() == [[2 * number] * 4]
    assert [each["inputs"]["a"]["data"] for each in capture.bodies] == [[number] * 4 for number in range(6)]
    assert [each["outputs"]["sum"]["data"] for each in capture.bodies] == [[2 * number] * 4 for number in range(6)]


# -- what a model says


def test_a_failure_of_the_model_is_an_answer(host: FramesHost) -> None:
    with FrameClient(host.path, "table", {"index": np.array([5], np.int64)}, {"item": 64}) as client:
        answer = client.ask()
        assert answer.status == 500 and answer.error.startswith("the model failed")
        client.inputs["index"][0] = 1
        assert client.ask().status == 200


def test_an_output_that_does_not_fit_its_place_is_said(host: FramesHost) -> None:
    with FrameClient(host.path, "toy", {"features": np.ones((2, FEATURES), np.float32)}, {"score": 4}) as client:
        before = _outcomes(host, "toy")
        answer = client.ask()
        assert (answer.status, answer.error) == (400, "output 'score': expected a place of at least 8 bytes, got 4")
        wait_until(lambda: _ended(host, "toy", before, invalid=1))


# -- plans that are none

SCORE = {"name": "score", "offset": 128, "size_bytes": 64}
FEATURE = {"name": "features", "datatype": "FP32", "shape": [1, FEATURES], "offset": 0}
BITS = {"name": "in", "datatype": "UINT16", "shape": [4], "offset": 0}
PLAN: Json = {"model": "toy", "inputs": [FEATURE], "outputs": [SCORE]}
REFUSED: dict[str, tuple[Json, int, str]] = {
    "no document": ("plan", 400, "plan: Expected `object`, got `str`"),
    "an unknown model": (PLAN | {"model": "none"}, 404, "Request for unknown model: 'none' is not found"),
    "an unknown key": (PLAN | {"modle": 1}, 400, "plan: Object contains unknown field `modle`"),
    "an unknown datatype": (PLAN | {"inputs": [FEATURE | {"datatype": "FP8"}]}, 400, "expected a datatype"),
    "another datatype": (PLAN | {"inputs": [FEATURE | {"datatype": "INT32"}]}, 400, "expected datatype FP32"),
    "text": ({"model": "words", "inputs": [FEATURE | {"datatype": "BYTES"}], "outputs": [SCORE]}, 501, "ask over HTTP"),
    "text as output": (PLAN | {"model": "words"}, 400, "expected inputs ['in'], each once"),
    "bits of BF16": (
        {"model": "halves", "inputs": [BITS], "outputs": [SCORE | {"name": "out"}]},
        501,
        "'in': expected elements of a fixed size, got BF16: ask over HTTP",
    ),
    "numbers for text": (
        {"model": "words", "inputs": [BITS], "outputs": [SCORE | {"name": "out"}]},
        501,
        "'in': expected elements of a fixed size, got BYTES: ask over HTTP",
    ),
    "another shape": (PLAN | {"inputs": [FEATURE | {"shape": [1, 29]}]}, 400, "expected shape [-1, 30], got [1, 29]"),
    "a negative dimension": (PLAN | {"inputs": [FEATURE | {"shape": [-1, 30]}]}, 400, "dimensions from 0"),
    "dimensions that overflow": (
        PLAN | {"inputs": [FEATURE | {"shape": [1 << 40] * 2}]},
        400,
        "expected a shape of at most",
    ),
    "nothing, of dimensions that overflow": (
        PLAN | {"inputs": [FEATURE | {"shape": [0, 1 << 40, 1 << 40]}]},
        400,
        "'features': expected a shape of at most 1099511627776 bytes, got [0, 1099511627776, 1099511627776]",
    ),
    "many dimensions": (PLAN | {"inputs": [FEATURE | {"shape": [1] * 33}]}, 400, "expected up to 32 dimensions"),
    "a crooked offset": (PLAN | {"inputs": [FEATURE | {"offset": 8}]}, 400, "a multiple of 64, got 8 and 120 bytes"),
    "a negative offset": (PLAN | {"outputs": [SCORE | {"offset": -64}]}, 400, "a multiple of 64, got -64"),
    "an offset beyond": (PLAN | {"outputs": [SCORE | {"offset": 4096}]}, 400, "within the memory's 256 bytes"),
    "a size beyond": (PLAN | {"outputs": [SCORE | {"size_bytes": 129}]}, 400, "got one that ends at 257"),
    "a size beyond reason": (PLAN | {"outputs": [SCORE | {"size_bytes": 1 << 63}]}, 400, "a multiple of 64"),
    "a negative size": (PLAN | {"outputs": [SCORE | {"size_bytes": -1}]}, 400, "a multiple of 64, got 128 and -1"),
    "a name as long as the packet": (
        PLAN | {"outputs": [SCORE | {"name": "é" * 10_000, "offset": 8}]},
        400,
        "é…': exp",
    ),
    "tensors that overlap": (PLAN | {"outputs": [SCORE | {"offset": 64}]}, 400, "'features' and 'score' overlap"),
    "an output twice": (
        PLAN | {"outputs": [SCORE | {"size_bytes": 0}, SCORE]},
        400,
        "expected outputs ['score'], each once",
    ),
    "an unknown output": (PLAN | {"outputs": [SCORE | {"name": "risk"}]}, 400, "expected outputs ['score']"),
    "no inputs": (PLAN | {"inputs": []}, 400, "expected inputs ['features'], each once, got []"),
    "no outputs": (PLAN | {"outputs": []}, 400, "expected the outputs that are wanted, each with its place, got none"),
    "many outputs": (PLAN | {"outputs": [SCORE] * 65}, 400, "expected at most 64 inputs and as many outputs"),
    "an unknown capture": (PLAN | {"capture": "maybe"}, 400, "plan: Invalid enum value 'maybe'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_that_does_not_fit_is_refused(host: FramesHost, case: str) -> None:
    document, status, words = REFUSED[case]
    descriptor = memory_file(256)
    with connect(host.path) as connection:
        found = open_plan(connection, document, [descriptor])
        os.close(descriptor)
        assert found[0] == status and words in found[1]["error"]
        assert connection.recv(100) == b""  # it ends there


def test_outputs_may_be_left_out(host: FramesHost) -> None:
    numbers = np.ones((1, 4), np.int32)
    with FrameClient(host.path, "sums", {"a": numbers, "b": numbers}, {"difference": 16}) as client:
        assert client.ask().shapes == ((1, 4),)


# -- memory that is none


def _refused_memory(host: FramesHost, *descriptors: int) -> str:
    with connect(host.path) as connection:
        status, document = open_plan(connection, PLAN, descriptors)
        for each in descriptors:
            os.close(each)
        assert status == 400
        return str(document["error"])


@pytest.mark.parametrize(
    "seals",
    [0, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, SEALS | fcntl.F_SEAL_WRITE],
    ids=["none", "no shrink", "shrink alone", "write"],
)
def test_memory_without_the_right_seals_is_refused(host: FramesHost, seals: int) -> None:
    assert "expected a memory file with the seals" in _refused_memory(host, memory_file(256, seals=seals))


def test_only_one_memory_file_is_taken(host: FramesHost) -> None:
    assert _refused_memory(host) == "expected one descriptor with the plan, got 0"
    assert _refused_memory(host, memory_file(256), memory_file(256)) == "expected one descriptor with the plan, got 2"
    many = [memory_file(256) for _ in range(40)]
    assert "with one descriptor, got more" in _refused_memory(host, *many)


def test_another_file_is_no_memory(host: FramesHost) -> None:
    with tempfile.TemporaryFile(dir=Path(__file__).parent) as file:
        file.truncate(256)
        assert "expected a memory file (memfd_create)" in _refused_memory(host, os.dup(file.fileno()))
    left, right = os.pipe()
    os.close(right)
    assert "expected a memory file (memfd_create)" in _refused_memory(host, left)
    shm = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(shm, 256)
    assert "expected a memory file with the seals" in _refused_memory(host, shm)
    readable = memory_file(256)
    assert "can be mapped, got: Bad file descriptor" in _refused_memory(host, _reopened_for_reading(readable))


def _reopened_for_reading(descriptor: int) -> int:
    reopened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    os.close(descriptor)
    return reopened


def test_memory_has_a_limit_for_one_and_for_all(tmp_path: Path) -> None:
    registry = Registry()
    registry.adopt(load_file(constant_model(tmp_path / "toy.onnx", 0.25)))
    limits = FrameLimits(memory_bytes=4096, all_memory_bytes=6000, connections=3)
    with frames_host(tmp_path, registry, limits=limits) as host:
        assert "1 to 4096 bytes, got 4097" in _refused_memory(host, memory_file(4097))
        assert "1 to 4096 bytes, got 0" in _refused_memory(host, memory_file(0))
        with connect(host.path) as first:
            large = memory_file(4096)
            assert open_plan(first, PLAN, [large])[0] == 200
            os.close(large)
            assert "1 to 1664 bytes, got 4096" in _refused_memory(host, memory_file(4096))
        wait_until(lambda: host.server.room_bytes(0) == 4096)
        with connect(host.path), connect(host.path), connect(host.path), connect(host.path) as fourth:
            status, document = wire.read_opened(fourth.recv(1000))
        assert (status, document) == (503, {"error": "expected at most 3 connections, all are taken"})


def test_at_the_end_who_runs_is_answered_and_nothing_more_is_begun(tmp_path: Path) -> None:
    registry = Registry()
    version = load_file(slow_model(tmp_path / "slow.onnx", 400))
    registry.adopt(version)
    rows = np.ones((64, 512), np.float32)
    with (
        frames_host(tmp_path, registry) as host,
        FrameClient(host.path, "slow", {"in": rows}, {"out": rows.nbytes}) as client,
        connect(host.path) as idle,
    ):
        client.send()
        wait_until(lambda: version.in_flight > 0)
        host.stop()
        assert client.receive().status == 200
        client.connection.settimeout(5)
        with suppress(OSError):
            client.send()
            assert not client.connection.recv(100)
        assert not idle.recv(100)
        assert version.traffic.snapshot().requests == 1


def test_a_listener_without_files_rests(host: FramesHost) -> None:
    """It stays readable all the while; the loop of the host is in this process, as is the limit."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
        waiting.settimeout(20)
        with _no_files_left():
            waiting.connect(str(host.path))
            began_s, spent_s = time.monotonic(), time.process_time()
            wait_until(lambda: time.monotonic() - began_s > 0.6)
            assert time.process_time() - spent_s < 0.4
        memory = memory_file(256)
        assert open_plan(waiting, PLAN, [memory])[0] == 200
        os.close(memory)


@contextmanager
def _no_files_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(each.name) for each in Path("/proc/self/fd").iterdir()), hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


# -- packets that are none


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"\x01", "expected a first packet that opens a plan"),
        (wire.Run(sequence=1).packet(), "expected a first packet that opens a plan"),
        (b"\x01\x02" + bytes(6), "expected version 1 of the wire, got 2"),
        (b"\x01\x01" + bytes(6) + b"{", "plan: Input data was truncated"),
        (b"\x01\x01" + bytes(6) + b"\xff\xfe", "plan: "),
        (b"\x01\x01" + bytes(6) + b"[" * 60_000, "plan: "),
        (b"\x01\x01" + bytes(wire.MAX_OPEN_BYTES), "expected a plan of at most 65536 bytes"),
    ],
    ids=["short", "request", "version", "cut", "no text", "deep", "long"],
)
def test_a_first_packet_that_is_none_is_refused(host: FramesHost, packet: bytes, words: str) -> None:
    with connect(host.path) as connection:
        connection.send(packet)
        status, document = wire.read_opened(connection.recv(1000))
        assert status in (400, 501) and words in str(document)
        assert connection.recv(100) == b""


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"\x02", "expected 16 to 272 bytes"),
        (bytes(273), "expected 16 to 272 bytes"),
        (struct.pack("<BB2xIQ", 9, 0, 0, 0), "expected a request, got kind 9"),
        (struct.pack("<BB2xIQ", Kind.OPEN, 0, 0, 0), "another plan wants another connection"),
        (struct.pack("<BB2xIQ", Kind.RUN, 0, 0, 0) + b"\xff", "expected the id of a request in UTF-8"),
    ],
    ids=["short", "long", "kind", "open", "id"],
)
def test_a_request_that_is_none_is_refused_and_the_next_is_answered(
    host: FramesHost, packet: bytes, words: str
) -> None:
    before = _outcomes(host, "toy")
    with _toy(host) as client:
        client.connection.send(packet)
        refused = client.receive()
        assert refused.status == 400 and words in refused.error
        assert client.ask().status == 200
    wait_until(lambda: _ended(host, "toy", before, invalid=1, answered=1))


def test_descriptors_that_come_with_requests_go_nowhere(host: FramesHost) -> None:
    with _toy(host) as client:
        spare = memory_file(64)
        before = _descriptors()
        for sequence in range(20):
            socket.send_fds(client.connection, [wire.Run(sequence=sequence).packet()], [spare] * 3)
            assert client.receive().status == 200
        assert _descriptors() <= before
        os.close(spare)


# -- clients that go


def test_a_client_that_goes_in_a_request_harms_nobody(host: FramesHost) -> None:
    rows = np.ones((64, 512), np.float32)
    for _ in range(3):
        with FrameClient(host.path, "slow", {"in": rows}, {"out": rows.nbytes}) as client:
            client.send()
    wait_until(lambda: not host.server.connections)
    with _toy(host) as client:
        assert client.ask().status == 200
    wait_until(lambda: not any(each.live and each.live.in_flight for each in host.registry.models.values()))


def test_who_does_not_read_answers_is_cut_off(host: FramesHost) -> None:
    with _toy(host) as client:
        with pytest.raises(OSError):  # the send or, when all fitted, the last receive
            for _ in range(100_000):
                client.send()
        wait_until(lambda: not host.server.connections)


def test_who_brings_no_plan_or_goes_silent_is_cut_off(tmp_path: Path) -> None:
    registry = Registry()
    registry.adopt(load_file(constant_model(tmp_path / "toy.onnx", 0.25)))
    with frames_host(tmp_path, registry, limits=FrameLimits(open_s=0.1, idle_s=0.3)) as host:
        with connect(host.path) as connection:
            assert connection.recv(100) == b""
        with _toy(host) as client:
            assert client.ask().status == 200
            assert client.connection.recv(100) == b""


def test_the_end_waits_for_answers(tmp_path: Path) -> None:
    registry = Registry()
    registry.adopt(load_file(slow_model(tmp_path / "slow.onnx", rounds=200)))
    rows = np.ones((64, 512), np.float32)
    with frames_host(tmp_path, registry) as host:
        client = FrameClient(host.path, "slow", {"in": rows}, {"out": rows.nbytes})
        client.send()
        wait_until(lambda: any(each.busy for each in host.server.connections))
    with client:
        assert client.receive().status == 200
        assert client.connection.recv(100) == b""


def test_many_clients_at_once_are_all_answered_rightly(host: FramesHost) -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        values = np.full((1, 4), number, np.int32)
        with FrameClient(host.path, "sums", {"a": values, "b": values}, {"sum": 16}) as client:
            for _ in range(100):
                answer = client.ask()
                if answer.status != 200 or (client.output("sum", "<i4", (1, 4)) != 2 * number).any():
                    wrong.append((number, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


class Asked(FrameConnection):
    """Counts what it is asked, and answers nobody."""

    runs = 0

    def _run(self, opened: object, packet: bytes) -> None:
        self.last_ns = time.perf_counter_ns()
        self.runs += 1
        time.sleep(0.0001)


@contextmanager
def _asked(callers: Callers) -> Iterator[tuple[Asked, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        runner = SimpleNamespace(scheduler=SimpleNamespace(callers=callers, runs_now=None))
        connection = Asked(cast(Any, SimpleNamespace(runner=runner, registry=None)), ours)
        connection._opened = cast(Any, "opened")
        callers.came()
        yield connection, theirs


def test_who_is_alone_and_asks_at_once_again_leaves_the_loop_to_others_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where client and server share a core there is always a next request."""
    monkeypatch.setattr("edgeward_agent.serving.frames.connection._TURN_NS", 300_000)
    with _asked(Callers()) as (connection, theirs):
        for _ in range(64):
            for _ in range(8):
                theirs.send(b"next")
            before = connection.runs
            connection.readable()
            assert 1 <= connection.runs - before <= 4
            while connection.runs % 8:
                connection.readable()
        assert connection.runs == 64 * 8


def test_who_needs_no_waiting_for_has_his_whole_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client and server share a core: the next request is there before anybody would look."""
    monkeypatch.setattr("edgeward_agent.serving.frames.connection._TURN_NS", 10**12)
    monkeypatch.setattr(Patience, "pays", lambda _: False)
    monkeypatch.setattr(Patience, "wait", lambda _: pytest.fail("it does not pay"))
    with _asked(Callers()) as (connection, theirs):
        for _ in range(8):
            theirs.send(b"next")
        connection.readable()
        assert connection.runs == 8


def test_with_others_there_each_has_one_request_and_then_the_next_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "wait", lambda _: pytest.fail("somebody else waits too"))
    with _asked(Callers(others=1)) as (connection, theirs):
        for _ in range(8):
            theirs.send(b"next")
        for number in range(8):
            connection.readable()
            assert connection.runs == number + 1


def test_the_next_request_of_who_is_alone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeward_agent.serving.frames.connection._TURN_NS", 10**12)
    with _asked(Callers()) as (connection, theirs):
        sent = iter(range(20))

        def client(_: object) -> bool:
            if next(sent, None) is None:
                return False
            theirs.send(b"next")
            return True

        connection._patience = cast(Any, SimpleNamespace(pays=lambda: True, wait=partial(client, None)))
        theirs.send(b"first")
        connection.readable()
        assert connection.runs == 21


def test_inputs_are_copied_once_also_for_a_model_that_is_not_quick(
    host: FramesHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Opened] = []
    copy = Opened.take_inputs

    def counted(opened: Opened) -> None:
        copies.append(opened)
        copy(opened)

    monkeypatch.setattr(Opened, "take_inputs", counted)
    monkeypatch.setattr(Scheduler, "runs_now", lambda *_: False)
    with _toy(host) as client:
        for number in range(1, 4):
            assert client.ask().status == 200
            assert len(copies) == number


# -- who may connect


@pytest.mark.parametrize(
    ("mode", "uid", "gids", "allowed"),
    [
        (0o600, 1000, {1000}, True),
        (0o400, 1000, {1000}, False),
        (0o660, 2000, {1000}, True),
        (0o660, 2000, {3, 1000}, True),
        (0o660, 2000, {2000}, False),
        (0o606, 2000, {1000}, False),  # in the group: the group's bits count, as for a file
        (0o606, 2000, {2000}, True),
        (0o000, 0, {0}, True),
        (0o000, os.geteuid(), {2000}, True),
    ],
)
def test_the_mode_of_the_file_is_held_to_who_has_connected(mode: int, uid: int, gids: set[int], allowed: bool) -> None:
    access = Access(uid=1000, gid=1000, mode=mode)
    assert access.allows(uid, frozenset(gids)) is allowed


# -- the wire


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x82", bytes(24), bytes([Kind.ANSWER]) + struct.pack("<xHII4x", 200, 1, 1) + b"\x01\0\0\0"],
    ids=["empty", "short", "another kind", "a cut shape"],
)
def test_an_answer_that_is_none_is_said(packet: bytes) -> None:
    with pytest.raises(FrameError, match="expected"):
        wire.read_answer(packet)


def test_the_answer_to_a_plan_that_is_none_is_said() -> None:
    head = bytes([Kind.OPENED]) + struct.pack("<xHII4x", 200, 0, 0)
    for packet in (b"", head + b"{", bytes(40)):
        with pytest.raises(FrameError, match="expected"):
            wire.read_opened(packet)


def test_a_client_takes_no_memory_for_addresses() -> None:
    """Text has none of its own there: numpy would follow whatever bytes it finds."""
    layout = lay_out(("m", 1, (), "", CaptureMode.OFF, 0, 0), {"x": ONES}, {"y": 64})
    output: JsonValue = {"name": "y", "datatype": "BYTES", "shape": [-1]}
    opened = wire.opened_packet(200, {"model": "m", "version": "1", "outputs": [output]})
    with mmap.mmap(-1, 4096) as memory, pytest.raises(FrameError, match="expected elements of a fixed size"):
        ClientPlan(layout, memory, opened)
