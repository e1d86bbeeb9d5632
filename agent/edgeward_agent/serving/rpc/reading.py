"""A request over gRPC: from its bytes to what it asks of a model. Pure: no socket, no clock, no runtime.

The encoding alone is of this module; what may be asked is in `asked`, `parameters` and `tensors`, as for JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from edgeward_agent.serving.aside import PENDING, Load
from edgeward_agent.serving.asked import InferRequest, Terms, check_complete, check_output, expected_input
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.json_data import lower
from edgeward_agent.serving.parameters import InputParameters, OutputParameters, Parameters, make_aside, make_load
from edgeward_agent.serving.refusal import Refusal, invalid, too_large
from edgeward_agent.serving.rpc.inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest
from edgeward_agent.serving.rpc.wire import bytes_beside
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array, Scalar, TensorError
from edgeward_contract.manifest import Datatype, TensorSpec

_M = TypeVar("_M", bound=Message)
_P = TypeVar("_P", Parameters, InputParameters, OutputParameters)
_Input = ModelInferRequest.InferInputTensor

_MAX_PARAMETERS: Final = 64  # of one thing; each unknown one is looked at all the same
_NONE: Final = Parameters()
_NONE_OF_INPUT: Final = InputParameters()
_RAW_FIELD: Final = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS: Final[Mapping[Datatype, str]] = {
    Datatype.BOOL: "bool_contents",
    **dict.fromkeys((Datatype.INT8, Datatype.INT16, Datatype.INT32), "int_contents"),
    Datatype.INT64: "int64_contents",
    **dict.fromkeys((Datatype.UINT8, Datatype.UINT16, Datatype.UINT32), "uint_contents"),
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
"""Where the values of each datatype stand, by the protocol. FP16 and BF16 have no place."""


def read(kind: type[_M], body: bytes) -> _M:
    """A message. Raises Refusal 400 for bytes that are none."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise invalid(f"expected a message {kind.__name__}, got other bytes") from None


def read_request(body: bytes, terms: Terms) -> ModelInferRequest:
    """A request, not yet held against any model.

    Raises:
        Refusal: 400 for bytes that are none; 413 for too much beside the raw tensors. Small messages in a large one
            take many times their size once they are read, as JSON does.
    """
    if len(body) > terms.json_bytes:
        beside = bytes_beside(body, _RAW_FIELD, most=terms.json_bytes)
        if beside > terms.json_bytes:
            raise too_large(
                f"expected at most {terms.json_bytes} bytes beside raw_input_contents, got more:"
                " send tensors in raw_input_contents"
            )
    return read(ModelInferRequest, body)


def read_infer(interface: Interface, request: ModelInferRequest, terms: Terms) -> InferRequest:
    """What a request asks of a model.

    Raises:
        Refusal: 400 and one sentence that says what was expected and what was found; 404 for a region of shared
            memory that is not registered, 413 for too many values in `contents`, 501 for what this server does not do.
    """
    wanted, special = _wanted(interface, request)
    feeds, loads = _feeds(interface, request, terms)
    aside = make_aside(interface, loads, special, terms) if loads or special else None
    asked = _parameters(request.parameters, Parameters, "request") if request.parameters else _NONE
    asked.check()
    return InferRequest(request.id, feeds, wanted, asked.capture, asked.timeout, asked.priority, aside)


# -- parameters and outputs


def _parameters(given: Mapping[str, InferParameter], kind: type[_P], of: str) -> _P:
    if len(given) > _MAX_PARAMETERS:
        raise invalid(f"parameters of the {of}: expected at most {_MAX_PARAMETERS}, got {len(given)}")
    values = {key: value for key, each in given.items() if (value := _value(each)) is not None}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise invalid(f"parameters of the {of}: {lower(error)}") from None


def _value(given: InferParameter) -> bool | int | float | str | None:
    choice = given.WhichOneof("parameter_choice")
    if choice is None:
        return None
    value: bool | int | float | str = getattr(given, choice)
    return value


def _wanted(interface: Interface, request: ModelInferRequest) -> tuple[dict[str, bool], dict[str, OutputParameters]]:
    """Outputs, all of them as bytes, and those that go elsewhere or as something else."""
    if not request.outputs:
        return dict.fromkeys(interface.outputs, True), {}
    wanted: dict[str, bool] = {}
    special: dict[str, OutputParameters] = {}
    for output in request.outputs:
        check_output(interface, wanted, output.name)
        wanted[output.name] = True
        if output.parameters:
            given = _parameters(output.parameters, OutputParameters, f"output '{output.name}'")
            if given.special:
                special[output.name] = given
    return wanted, special


# -- inputs


def _feeds(interface: Interface, request: ModelInferRequest, terms: Terms) -> tuple[dict[str, Array], list[Load]]:
    feeds: dict[str, Array] = {}
    loads: list[Load] = []
    raws = iter(request.raw_input_contents) if request.raw_input_contents else None
    room = terms.json_elements
    for each in request.inputs:
        spec = expected_input(interface, feeds, each.name, each.datatype, each.shape)
        given = _NONE_OF_INPUT
        if each.parameters:
            given = _parameters(each.parameters, InputParameters, f"input '{spec.name}'")
        try:
            if given.shared_memory_region is not None:
                loads.append(_load(spec, each, given.shared_memory_region, given, terms))
                feeds[spec.name] = PENDING
            elif raws is not None:
                feeds[spec.name] = _raw(spec, each, raws)
            else:
                feeds[spec.name] = array = _typed(spec, each, room)
                room -= array.size
        except TensorError as error:
            raise invalid(f"input '{spec.name}': {error}") from None
    check_complete(interface, feeds)
    _check_raws(request, len(feeds) - len(loads))
    return feeds, loads


def _check_raws(request: ModelInferRequest, needed: int) -> None:
    given = len(request.raw_input_contents)
    if given and given != needed:
        raise invalid(
            f"expected {needed} raw_input_contents, one for each input that is not in shared memory, got {given}"
        )


def _load(spec: TensorSpec, each: _Input, region: str, given: InputParameters, terms: Terms) -> Load:
    if each.HasField("contents"):
        raise TensorError("expected shared_memory_region without contents, got both")
    return make_load(spec, list(each.shape), region, given, terms)


def _raw(spec: TensorSpec, each: _Input, raws: Iterator[bytes]) -> Array:
    if each.HasField("contents"):
        raise TensorError("expected either contents or raw_input_contents, got both")
    data = next(raws, None)
    if data is None:
        raise TensorError("expected raw_input_contents for each input that is not in shared memory, got too few")
    return tensors.from_bytes(spec.datatype, list(each.shape), data)


def _typed(spec: TensorSpec, each: _Input, room: int) -> Array:
    datatype, shape = spec.datatype, list(each.shape)
    if datatype not in _CONTENTS:
        raise TensorError(f"expected raw_input_contents for {datatype}, which contents cannot carry")
    if not each.HasField("contents") and tensors.element_count(shape):
        raise TensorError("expected contents, raw_input_contents or shared_memory_region, got none of them")
    return tensors.from_elements(datatype, shape, _elements(datatype, each.contents, room))


def _elements(datatype: Datatype, contents: InferTensorContents, room: int) -> list[Scalar]:
    expected = _CONTENTS[datatype]
    for field, values in contents.ListFields():
        if field.name != expected:
            raise TensorError(f"expected values of {datatype} in {expected}, got {field.name}")
        if len(values) > room:
            raise _too_many(len(values), room)
    if datatype is Datatype.BYTES:
        return list[Scalar](tensors.texts(contents.bytes_contents))
    return list(getattr(contents, expected))


def _too_many(found: int, room: int) -> Refusal:
    return too_large(f"expected at most {room} more values in contents, got {found}: send raw_input_contents")
