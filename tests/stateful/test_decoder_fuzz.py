"""Broken gRPC messages and frames packets by the hundred thousand: no error but their own, no hang, no growth."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import pytest

from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.frames.plan import check_fits_memory, check_fits_model, read_open
from edgeward_agent.serving.frames.run import read_run
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.rpc import inference_pb2 as pb
from edgeward_agent.serving.rpc.reading import read, read_infer, read_request
from edgeward_agent.wire import frames
from edgeward_agent.wire.frames import FrameError
from edgeward_contract.manifest import Datatype, TensorSpec
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
        request.raw_input_contents.append(bytes(16))
        yield request.SerializeToString()
        if each.value in _CONTENTS:
            field, values = _CONTENTS[each.value]
            del request.raw_input_contents[:]
            getattr(request.inputs[0].contents, field).extend(values)
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


PLAN = frames.open_packet(
    {
        "model": "m",
        "version": None,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "offset": 0}],
        "outputs": [{"name": "y", "offset": 64, "size": 8}],
    }
)
RUN = frames.RUN_HEAD.pack(frames.Kind.RUN, 1, 7, 1000) + b"an id"
OPENED = frames.opened_packet(200, {"model": "m", "version": 1, "outputs": [{"name": "y"}]})
ANSWER = frames.ANSWER_HEAD.pack(frames.Kind.ANSWER, 0, 200, 7, 1) + frames.shapes_bytes([(1, 2), ()])
_FRAME_WORDS = (
    b"[" * 3000,
    b"-1",
    b"9223372036854775808",
    b"null",
    b"1e999",
    b'"',
    struct.pack("<I", 1 << 31),
    b"\xff" * 8,
)


def _misread(call: Callable[[], object]) -> None:
    try:
        call()
    except FrameError as error:
        assert str(error)


@pytest.mark.timeout(3600)
def test_no_packet_breaks_the_reader_of_frames() -> None:
    def opened(packet: bytes, interface: Interface) -> None:
        plan = read_open(packet)
        check_fits_model(plan, interface)
        check_fits_memory(plan, 4096)

    def one(dice: random.Random, watch: Watch) -> None:
        packet = mutated(dice, dice.choice((PLAN, PLAN, RUN, OPENED, ANSWER)), _FRAME_WORDS)
        interface = dice.choice(INTERFACES)
        watch.run(lambda: _refused(lambda: opened(packet, interface)), packet)
        watch.run(lambda: _refused(lambda: read_run(packet)), packet)
        watch.run(lambda: _misread(lambda: frames.read_answer(packet)), packet)
        watch.run(lambda: _misread(lambda: frames.read_opened(packet)), packet)

    fuzz("frames", one, inputs=40_000, in_soak=800_000)
