"""The gRPC front end without a socket: messages, the size of what is beside tensors, what is made of the .proto."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, cast

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc import StatusCode, aio
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2  # type: ignore[import-untyped]

from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.rpc import inference_pb2 as pb
from edgeward_agent.serving.rpc.asking import Asking, _within
from edgeward_agent.serving.rpc.places import Places
from edgeward_agent.serving.rpc.reading import read_infer, read_request
from edgeward_agent.serving.rpc.room import Room
from edgeward_agent.serving.rpc.service import management_calls, probes
from edgeward_agent.serving.rpc.streaming import Streams
from edgeward_agent.serving.rpc.wire import bytes_beside
from edgeward_agent.serving.rpc.writing import Context, answered
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.serving.shared_memory import NoRegions
from edgeward_contract.manifest import Datatype, TensorSpec
from support.serving import FEATURES, constant_model, until

ROOT: Final = Path(__file__).parents[2]
TERMS: Final = Terms()
RAW: Final = 7
Message = pb.ModelInferRequest


def _interface(*datatypes: Datatype) -> Interface:
    inputs = [TensorSpec(name=each.value, datatype=each, shape=(-1, -1)) for each in datatypes]
    return Interface.of(inputs, [TensorSpec(name="out", datatype=Datatype.FP32, shape=(-1,))])


def _request(datatype: Datatype, shape: Sequence[int], **contents: Sequence[object]) -> Message:
    request = Message()
    given = request.inputs.add(name=datatype.value, datatype=datatype.value, shape=shape)
    if contents:
        given.contents.SetInParent()
    for field, values in contents.items():
        getattr(given.contents, field).extend(values)
    return request


TYPED: Final = [
    (Datatype.BOOL, "bool_contents", [True, False]),
    (Datatype.INT8, "int_contents", [-128, 127]),
    (Datatype.INT16, "int_contents", [-32768, 7]),
    (Datatype.INT32, "int_contents", [-(1 << 31), 7]),
    (Datatype.INT64, "int64_contents", [-(1 << 63), 7]),
    (Datatype.UINT8, "uint_contents", [0, 255]),
    (Datatype.UINT16, "uint_contents", [0, 65535]),
    (Datatype.UINT32, "uint_contents", [0, (1 << 32) - 1]),
    (Datatype.UINT64, "uint64_contents", [0, (1 << 64) - 1]),
    (Datatype.FP32, "fp32_contents", [1.5, float("inf")]),
    (Datatype.FP64, "fp64_contents", [1e300, -0.0]),
    (Datatype.BYTES, "bytes_contents", ["é".encode(), b""]),
]


@pytest.mark.parametrize(("datatype", "field", "values"), TYPED)
def test_typed_contents_of_every_datatype_that_has_them(datatype: Datatype, field: str, values: list[object]) -> None:
    found = read_infer(_interface(datatype), _request(datatype, [1, 2], **{field: values}), TERMS)
    expected = ["é", ""] if datatype is Datatype.BYTES else values
    assert found.feeds[datatype.value].tolist() == [expected]
    assert found.outputs == {"out": True}


def test_typed_contents_of_nothing() -> None:
    for request in (_request(Datatype.FP32, [0, 3]), _request(Datatype.FP32, [0, 3], fp32_contents=[])):
        assert read_infer(_interface(Datatype.FP32), request, TERMS).feeds["FP32"].shape == (0, 3)


def _raw(request: Message, *raws: bytes) -> Message:
    request.raw_input_contents.extend(raws)
    return request


def _crowded() -> Message:
    request = _good()
    for number in range(65):
        request.parameters[f"p{number}"].bool_param = True
    return request


def _parameter(request: Message, of: str, key: str, **value: object) -> Message:
    if of == "output":
        request.outputs.add(name="out")
    parameters = {
        "request": lambda: request.parameters,
        "input": lambda: request.inputs[0].parameters,
        "output": lambda: request.outputs[0].parameters,
    }[of]()
    for field, each in value.items():
        setattr(parameters[key], field, each)
    return request


def _good() -> Message:
    return _raw(_request(Datatype.FP32, [1, 1]), bytes(4))


FP32: Final = Datatype.FP32


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (_request(FP32, [1, 2], fp32_contents=[1]), 400, "expected 2 elements for shape [1, 2], got 1"),
        (_request(FP32, [1, 2], fp32_contents=[1, 2, 3]), 400, "expected 2 elements for shape [1, 2], got 3"),
        (_request(FP32, [1, 2]), 400, "expected contents, raw_input_contents or shared_memory_region, got none"),
        (_request(FP32, [1, 2], fp64_contents=[1, 2]), 400, "values of FP32 in fp32_contents, got fp64_contents"),
        (_request(FP32, [1, 2], fp32_contents=[1, 2], int_contents=[1]), 400, "in fp32_contents, got int_contents"),
        (_request(FP32, [-1, 2], fp32_contents=[1, 2]), 400, "expected dimensions from 0"),
        (_request(FP32, [1 << 62, 1 << 62], fp32_contents=[1]), 400, "elements for shape"),
        (_request(FP32, [1, 1 << 19], fp32_contents=[0.0] * (1 << 19)), 413, "at most 65536 more values in contents"),
        (_raw(_request(FP32, [1, 1], fp32_contents=[1]), bytes(4)), 400, "either contents or raw_input_contents"),
        (_raw(_request(FP32, [1, 2]), bytes(4)), 400, "expected 8 bytes for FP32 [1, 2], got 4"),
        (_raw(_request(FP32, [1, 1]), bytes(4), bytes(4)), 400, "expected 1 raw_input_contents, one for each input"),
        (_raw(_request(FP32, [1 << 62, 1 << 62]), b""), 400, "expected"),
        (_raw(Message(), bytes(4)), 400, "expected inputs 'FP32', got none for 'FP32'"),
        (_parameter(_good(), "request", "timeout", int64_param=-1), 400, "timeout"),
        (_parameter(_good(), "request", "timeout", string_param="x"), 400, "timeout"),
        (_parameter(_good(), "request", "sequence_id", int64_param=1), 501, "sequence"),
        (_crowded(), 400, "parameters of the request: expected at most 64, got 65"),
        (
            _parameter(_good(), "output", "classification", string_param="x"),
            400,
            "'out'",
        ),
        (_parameter(_request(FP32, [1, 1]), "input", "shared_memory_region", string_param="r"), 501, "switched off"),
    ],
)
def test_what_is_wrong_with_a_request(request_: Message, status: int, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_infer(_interface(FP32), request_, TERMS)
    assert (caught.value.status, words in str(caught.value)) == (status, True), caught.value


def test_values_out_of_range_text_and_types_without_contents() -> None:
    cases: list[tuple[Datatype, dict[str, Sequence[object]], str]] = [
        (Datatype.INT8, {"int_contents": [128]}, "expected INT8 from -128 to 127"),
        (Datatype.UINT16, {"uint_contents": [65536]}, "expected UINT16 from 0 to 65535"),
        (Datatype.BYTES, {"bytes_contents": [b"\xff"]}, "expected BYTES elements in UTF-8, got byte 0xff"),
        (Datatype.FP16, {"fp32_contents": [1.0]}, "expected raw_input_contents for FP16"),
        (Datatype.BF16, {"fp32_contents": [1.0]}, "expected raw_input_contents for BF16"),
    ]
    for datatype, contents, words in cases:
        with pytest.raises(Refusal, match=words):
            read_infer(_interface(datatype), _request(datatype, [1, 1], **contents), TERMS)


def test_too_few_raw_contents_and_outputs_twice() -> None:
    both = _request(Datatype.FP32, [1, 1])
    both.inputs.add(name="INT32", datatype="INT32", shape=[1, 1])
    with pytest.raises(Refusal, match="for each input that is not in shared memory, got too few"):
        read_infer(_interface(Datatype.FP32, Datatype.INT32), _raw(both, bytes(4)), TERMS)
    twice = _raw(_request(Datatype.FP32, [1, 1]), bytes(4))
    twice.outputs.add(name="out")
    twice.outputs.add(name="out")
    with pytest.raises(Refusal, match="expected each output once, got 'out' twice"):
        read_infer(_interface(Datatype.FP32), twice, TERMS)


def test_parameters_are_read_whatever_kind_they_come_as() -> None:
    request = _good()
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 5000
    request.parameters["capture"].string_param = "durable"
    request.parameters["unknown"].double_param = 1.5
    request.parameters["empty"].SetInParent()
    found = read_infer(_interface(FP32), request, TERMS)
    assert (found.priority, found.timeout_us, found.capture) == (1, 5000, "durable")


# -- deadlines


@pytest.mark.parametrize(
    ("asked_us", "left_s", "budget_us", "expected_us"),
    [
        (None, None, 10_000, None),
        (None, 5.0, 10_000, None),  # the budget ends sooner, and stays a budget
        (None, 0.005, 10_000, 5_000),
        (None, 0.0, 10_000, 1),
        (20_000, 5.0, 10_000, 20_000),
        (20_000, 0.015, 10_000, 15_000),
        (0, 5.0, 10_000, 5_000_000),
        (0, None, 10_000, 0),
    ],
)
def test_the_earlier_deadline_counts(
    asked_us: int | None, left_s: float | None, budget_us: int, expected_us: int | None
) -> None:
    request = _good()
    if asked_us is not None:
        request.parameters["timeout"].int64_param = asked_us
    asked = read_infer(_interface(FP32), request, TERMS)
    assert _within(asked, left_s, budget_us * 1000).timeout_us == expected_us


# -- what is beside tensors


@given(st.lists(st.binary(max_size=300)), st.text(max_size=200), st.lists(st.text(max_size=20), max_size=5))
def test_bytes_beside_are_what_a_message_without_tensors_has(raws: list[bytes], id: str, names: list[str]) -> None:
    request = Message(id=id, raw_input_contents=raws)
    for name in names:
        request.inputs.add(name=name, shape=[1, 2])
    body = request.SerializeToString()
    tags = sum(1 + len(_varint(len(raw))) for raw in raws)
    assert bytes_beside(body, RAW, most=len(body)) == len(body) - sum(map(len, raws)) == _rest(request) + tags


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _rest(request: Message) -> int:
    rest = Message()
    rest.CopyFrom(request)
    rest.ClearField("raw_input_contents")
    return rest.ByteSize()


@given(st.binary(max_size=200))
def test_no_bytes_trip_it_up(body: bytes) -> None:
    assert bytes_beside(body, RAW, most=1 << 20) >= 0


def test_much_beside_tensors_is_refused_before_it_is_read() -> None:
    many = b"".join([b"\x2a\x00"] * (3 << 20))  # empty inputs: each would be a message of its own
    long_id = Message(id="x" * (2 << 20)).SerializeToString()
    for body in (many, long_id):
        with pytest.raises(Refusal, match="at most 1048576 bytes beside raw_input_contents") as caught:
            read_request(body, TERMS)
        assert caught.value.status == 413
    large = Message(raw_input_contents=[bytes(6 << 20)])
    assert len(read_request(large.SerializeToString(), TERMS).raw_input_contents[0]) == 6 << 20


# -- the .proto


def test_the_committed_files_are_what_the_proto_gives(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "packaging" / "protos.py", tmp_path], check=True, timeout=60)
    made = sorted(tmp_path.iterdir())
    assert [each.name for each in made] == ["inference_pb2.py", "inference_pb2.pyi"]
    for each in made:
        committed = ROOT / "agent" / "edgeward_agent" / "serving" / "rpc" / each.name
        assert each.read_text() == committed.read_text(), "run: python packaging/protos.py"


def test_every_field_is_the_one_of_the_protocol() -> None:
    """Held against the definition that NVIDIA's client was made from."""
    ours = {**pb.DESCRIPTOR.message_types_by_name}
    theirs = {
        **service_pb2.DESCRIPTOR.message_types_by_name,
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
    }
    for name, message in ours.items():
        _compare(message, theirs[name])
    types = pb.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    known = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    assert {each: types[each].number for each in types} == {each: known[each].number for each in known}


def _compare(ours: Descriptor, theirs: Descriptor) -> None:
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert _facts(field) == _facts(other), field.full_name
    for nested in ours.nested_types:
        _compare(nested, theirs.nested_types_by_name[nested.name])


def _facts(field: FieldDescriptor) -> tuple[object, ...]:
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return field.number, field.type, field.is_repeated, kind and kind.full_name, oneof and oneof.name


# -- streams that come while the server ends


class Silent:
    """The call of a client that asks nothing and does not leave."""

    def __init__(self) -> None:
        self.reads = 0
        self.ended: tuple[StatusCode, str] | None = None

    def context(self) -> Context:
        return cast(Context, self)

    async def read(self) -> bytes:
        self.reads += 1
        await asyncio.Event().wait()
        raise AssertionError("expected to wait for ever")

    async def abort(self, code: StatusCode, details: str) -> NoReturn:
        self.ended = code, details
        raise aio.AbortError


def test_a_refusal_keeps_nothing_of_its_message() -> None:
    async def main() -> Refusal:
        runner = Runner(Scheduler(asyncio.get_running_loop()), NoCapture())
        asking = Asking(Registry(), runner, terms=TERMS, room=Room(Limits()))
        message = Message(model_name="nobody", raw_input_contents=[bytes(1 << 20)]).SerializeToString()
        reply = await asking.ask(message, None, answered).reply
        await asyncio.sleep(0)
        assert not asking.room.held_bytes
        assert isinstance(reply, Refusal)
        return reply

    refusal = asyncio.run(main())
    assert refusal.status == 404
    assert refusal.__traceback__ is None


def test_what_can_never_be_recorded_is_refused_before_it_runs(tmp_path: Path) -> None:
    async def main() -> bytes | Refusal:
        registry = Registry()
        registry.adopt(load_file(constant_model(tmp_path / "model.onnx", 1.0)))
        scheduler = Scheduler(asyncio.get_running_loop())  # not started: it would wait for ever
        asking = Asking(registry, Runner(scheduler, NoCapture()), terms=TERMS, room=Room(Limits()))
        message = Message(model_name="model", raw_input_contents=[bytes(4 * FEATURES)])
        message.inputs.add(name="features", datatype="FP32", shape=[1, FEATURES])
        message.parameters["capture"].string_param = "durable"
        async with asyncio.timeout(5):
            reply = await asking.ask(message.SerializeToString(), None, answered).reply
        assert (scheduler.waiting, registry.find("model", None).traffic.invalid) == (0, 1)
        await registry.close()
        return reply

    refusal = asyncio.run(main())
    assert isinstance(refusal, Refusal)
    assert (refusal.status, "this server has no outbox" in str(refusal)) == (501, True)


def test_places_go_to_one_connection_after_the_other() -> None:
    async def main() -> None:
        places, had = Places(4), list[str]()

        async def take(name: str) -> None:
            await places.take(name[0])
            had.append(name)

        await take("a1")
        await take("a2")  # as many as are left for others
        tasks = [asyncio.create_task(take(name)) for name in ("a3", "a4", "a5", "b1", "b2")]
        await asyncio.sleep(0)
        assert had == ["a1", "a2", "b1"]
        tasks[1].cancel()  # while it waits
        places.give("a")
        await until(lambda: len(had) == 4)
        assert had[3:] == ["a3"]
        places.give("b")
        places.give("a")
        await until(lambda: len(had) == 6)
        assert sorted(had[4:]) == ["a5", "b2"]
        late = asyncio.create_task(take("a6"))
        await asyncio.sleep(0)
        places.give("a")
        late.cancel()  # when it has just been given a place
        await asyncio.gather(*tasks, late, return_exceptions=True)
        places.give("a")
        places.give("b")
        async with asyncio.timeout(5):
            for _ in range(2):
                await take("e1")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await take("e1")

    asyncio.run(main())


def test_a_message_that_is_larger_than_all_may_be_comes_in_when_it_is_alone() -> None:
    room = Room(Limits(held_bytes=1 << 20))
    room.take_in(2 << 20)
    room.take_in(4 << 20, own_bytes=2 << 20)  # its own answer
    with pytest.raises(Refusal, match="expected room for a message, too many large ones wait"):
        room.take_in(1 << 17)
    room.take_in(100)
    for size in (2 << 20, 4 << 20, 100):
        room.let_go(size)
    room.take_in(1 << 17)
    assert room.held_bytes == 1 << 17


def _end_streams(calls: dict[str, Silent]) -> None:
    """The server ends with one call that reads, one that is about to, and one that comes right after."""

    async def main() -> None:
        runner = Runner(Scheduler(asyncio.get_running_loop()), NoCapture())
        streams = Streams(Asking(Registry(), runner, terms=TERMS, room=Room(Limits())), Limits())
        served = [asyncio.create_task(streams.serve(calls["reading"].context()))]
        await until(lambda: calls["reading"].reads == 1)
        served.append(asyncio.create_task(streams.serve(calls["about to"].context())))
        await asyncio.sleep(0)
        streams.finish()
        served.append(asyncio.create_task(streams.serve(calls["late"].context())))
        async with asyncio.timeout(5):
            await asyncio.gather(*served, return_exceptions=True)

    asyncio.run(main())


def test_streams_that_come_while_the_server_ends_are_told_and_not_read() -> None:
    calls = {name: Silent() for name in ("reading", "about to", "late")}
    _end_streams(calls)
    told = StatusCode.UNAVAILABLE, "expected a server that stays, this one is ending"
    assert {name: (call.reads, call.ended) for name, call in calls.items()} == {
        "reading": (1, told),
        "about to": (0, told),
        "late": (0, told),
    }


def test_every_call_of_the_protocol_is_answered() -> None:
    calls = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    ours = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(ours) == set(calls)
    management = Management(Registry(), NoRegions(), body_bytes=1)
    assert {*management_calls(management), *probes(management), "ModelInfer", "ModelStreamInfer"} == set(calls)
