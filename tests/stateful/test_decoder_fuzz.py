"""Broken gRPC messages and frames packets by the hundred thousand: no error but their own, no hang, no growth."""

from __future__ import annotations

import mmap
import random
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgeward_agent.client.errors import ClientError
from edgeward_agent.client.plan import Plan, PlanOver, lay_out
from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.frames.plan import check_fits_memory, check_fits_model, read_open
from edgeward_agent.serving.frames.run import read_run
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.rpc import inference_pb2 as pb
from edgeward_agent.serving.rpc.reading import read, read_infer, read_request
from edgeward_agent.wire import frames
from edgeward_agent.wire.frames import FrameError
from edgeward_agent.wire.tensors import CARRIER, NUMPY
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec
from edgeward_contract.schema import JsonValue
from support.fuzz import Watch, fuzz, mutated

TERMS = Terms(json_bytes=1 << 16)
INTERFACES = [
    Interface.of(
        [TensorSpec(name="x", datatype=each, shape=(-1, 2))], [TensorSpec(name="y", datatype=each, shape=(-1, 2))]
    )
    for each in Datatype
]
_CONTENTS = {
    "FP32": ("fp32_contents", [1.5, -2.5]),
    "FP64": ("fp64_contents", [1.5, 1e300]),
    "INT8": ("int_contents", [1, -128]),
    "UINT64": ("uint64_contents", [1, (1 << 64) - 1]),
    "BOOL": ("bool_contents", [True, False]),
    "BYTES": ("bytes_contents", [b"ab", b"\xc3\xa9"]),
}


def _messages() -> Iterator[bytes]:
    for each in Datatype:
        request = pb.ModelInferRequest(model_name="m", id="a")
        request.inputs.add(name="x", datatype=each.value, shape=[1, 2])
        request.outputs.add(name="y")
        request.parameters["timeout"].int64_param = 1000
        raw = bytes(8) if each is Datatype.BYTES else bytes(2 * CARRIER[each].itemsize)
        request.raw_input_contents.append(raw)
        yield request.SerializeToString()
        if each.value in _CONTENTS:
            field, values = _CONTENTS[each.value]
            del request.raw_input_contents[:]
            getattr(request.inputs[0].contents, field).extend(values)
            if each not in (Datatype.BOOL, Datatype.BYTES):  # those have no order
                request.outputs[0].parameters["classification"].int64_param = 2
            yield request.SerializeToString()
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).parameters["shared_memory_region"].string_param = "r"
    yield request.SerializeToString()


MESSAGES = list(_messages())
_WIRE_WORDS = (b"\x0a\xff\xff\xff\xff\x0f", b"\x3a\x00" * 20, b"\x0b", b"\x80" * 12, b"\x2a\x00" * 50, b"\xff")


def _refused(call: Callable[[], object]) -> None:
    try:
        call()
    except Refusal as refusal:
        assert 400 <= refusal.status < 600
        assert 0 < len(str(refusal)) < 2000


@pytest.mark.timeout(3600)
def test_no_message_breaks_the_reader_of_grpc() -> None:
    def one(dice: random.Random, watch: Watch) -> None:
        body = mutated(dice, dice.choice(MESSAGES), _WIRE_WORDS)
        if dice.randrange(8) == 0:  # a splice of two: what is said twice
            body += dice.choice(MESSAGES)[dice.randrange(8) :]
        interface = dice.choice(INTERFACES)
        other = dice.choice([pb.ModelMetadataRequest, pb.RepositoryIndexRequest, pb.SystemSharedMemoryRegisterRequest])
        watch.run(lambda: _refused(lambda: read_infer(interface, read_request(body, TERMS), TERMS)), body)
        watch.run(lambda: _refused(lambda: read(other, body)), body)

    fuzz("gRPC", one, inputs=20_000, in_soak=300_000)


def _plan(datatype: Datatype) -> bytes:
    return frames.open_packet(
        {
            "model": "m",
            "version": None,
            "inputs": [{"name": "x", "datatype": datatype.value, "shape": [1, 2], "offset": 0}],
            "outputs": [{"name": "y", "offset": 64, "size_bytes": 8}],
        }
    )


PLANS = [_plan(each) for each in Datatype if each in NUMPY and each is not Datatype.BYTES]
RUN = frames.RUN_HEAD.pack(frames.Kind.RUN, 1, 7, 1000) + b"an id"
_OUTPUT: dict[str, JsonValue] = {"name": "y", "datatype": "FP32", "shape": [-1, 2]}
OPENED = frames.opened_packet(200, {"model": "m", "version": "1", "outputs": [_OUTPUT]})
ANSWER = frames.ANSWER_HEAD.pack(frames.Kind.ANSWER, 0, 200, 7, 1) + frames.shapes_bytes([(1, 2)])
_FRAME_WORDS = (
    b"[" * 3000,
    b"-1",
    b"9223372036854775808",
    b"null",
    b"1e999",
    b'"',
    struct.pack("<I", 1 << 31),
    b"\xff" * 8,
    b"x" * 3000,
    b"BYTES",
)
_WISH = ("m", 1, (), "a", CaptureMode.OFF, 0, 0)


def _misread(call: Callable[[], object]) -> None:
    try:
        call()
    except FrameError as error:
        assert str(error)
    except (PlanOver, ClientError):
        pass  # what a server says, as it says it


def test_what_is_mutated_is_good() -> None:
    """Else nothing but the first check would ever be tried."""
    for packet in PLANS:
        assert any(_fits(packet, each) for each in INTERFACES)
    for body in MESSAGES[:-1]:
        assert any(_fits_rpc(body, each) for each in INTERFACES)


def _fits(packet: bytes, interface: Interface) -> bool:
    try:
        check_fits_model(read_open(packet), interface)
    except Refusal:
        return False
    return True


def _fits_rpc(body: bytes, interface: Interface) -> bool:
    try:
        read_infer(interface, read_request(body, TERMS), TERMS)
    except Refusal:
        return False
    return True


@pytest.mark.timeout(3600)
def test_no_packet_breaks_the_reader_of_frames() -> None:
    def opened(packet: bytes, interface: Interface) -> None:
        plan = read_open(packet)
        check_fits_model(plan, interface)
        check_fits_memory(plan, 4096)

    values = np.zeros((1, 2), np.float32)
    layout, memory = lay_out(_WISH, {"x": values}, {"y": 8}), mmap.mmap(-1, 4096)
    memory[:] = b"\xa5" * 4096  # what is no address

    def told(first: bytes, then: bytes) -> None:
        plan = Plan(layout, memory, first)
        for _ in range(7):
            plan.question(_WISH, [values])
        plan.answer(_WISH, then)

    def one(dice: random.Random, watch: Watch) -> None:
        packet = mutated(dice, dice.choice((dice.choice(PLANS), dice.choice(PLANS), RUN, OPENED, ANSWER)), _FRAME_WORDS)
        interface = dice.choice(INTERFACES)
        watch.run(lambda: _refused(lambda: opened(packet, interface)), packet)
        watch.run(lambda: _refused(lambda: read_run(packet)), packet)
        watch.run(lambda: _misread(lambda: frames.read_answer(packet)), packet)
        watch.run(lambda: _misread(lambda: frames.read_opened(packet)), packet)
        watch.run(lambda: _misread(lambda: told(packet, ANSWER)), packet)
        watch.run(lambda: _misread(lambda: told(OPENED, packet)), packet)

    fuzz("frames", one, inputs=20_000, in_soak=300_000)
