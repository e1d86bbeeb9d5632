"""The Open Inference Protocol v2: the body of a request to what it asks for. Pure: no socket, no clock, no runtime.

Source: KServe Open Inference Protocol v2 and Triton's binary tensor data extension. Where they leave a choice, this
does what `tritonclient` expects: JSON may carry flat or nested data, and parameters that are not known are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Final

import msgspec

from edgeward_agent.serving.aside import PENDING, Load
from edgeward_agent.serving.asked import InferRequest, Terms, check_complete, check_output, expected_input
from edgeward_agent.serving.interface import NO_JSON, Interface
from edgeward_agent.serving.json_data import check_words, json_elements, json_problem, lower, with_words
from edgeward_agent.serving.parameters import InputParameters, OutputParameters, Parameters, make_aside, make_load
from edgeward_agent.serving.refusal import Refusal, invalid, too_large
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array, Buffer, TensorError
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec

_TERMS: Final = Terms()


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: InputParameters = InputParameters()


class _Output(msgspec.Struct):
    name: str
    parameters: OutputParameters = OutputParameters()


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = []
    parameters: Parameters = Parameters()


_INFER: Final = msgspec.json.Decoder(_Infer)


def parse_infer(
    interface: Interface, body: bytes | bytearray, header_length: int | None, terms: Terms = _TERMS
) -> InferRequest:
    """Read an inference request for a model.

    Args:
        body: the HTTP body.
        header_length: value of `Inference-Header-Content-Length`: how much of the body is JSON; None is all of it,
            0 a raw body for the only input of a model.

    Raises:
        Refusal: 400 and one sentence that says what was expected and what was found; 404 for a region of shared
            memory that is not registered, 413 for too much JSON, 501 for what this server does not do.
    """
    if header_length == 0:
        return _raw_request(interface, body)
    header, binary = _split(body, header_length)
    if len(header) > terms.json_bytes:
        raise _too_much_json(len(header), terms)
    request, words = _decode(header)
    literals = words > 0
    outputs, special = _wanted(interface, request)
    feeds, loads = _feeds(interface, request.inputs, binary, terms, literals)
    if literals:
        _check_words(request, words)
    aside = make_aside(interface, loads, special, terms, literals=literals) if loads or special or literals else None
    asked = request.parameters
    if asked.priority or asked.sequence_id or asked.sequence_start or asked.sequence_end:
        asked.check()
    return InferRequest(request.id, feeds, outputs, asked.capture, asked.timeout, asked.priority, aside)


def _split(body: bytes | bytearray, header_length: int | None) -> tuple[Buffer, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return body, view[len(body) :]
    if header_length > len(body):
        raise invalid(
            f"expected Inference-Header-Content-Length up to the body's {len(body)} bytes, got {header_length}"
        )
    return view[:header_length], view[header_length:]


def _decode(header: Buffer, words: int = 0) -> tuple[_Infer, int]:
    """The request, and how many NaN and infinities were written into it bare."""
    try:
        return _INFER.decode(header), words
    except RecursionError:
        raise invalid("expected JSON of a few levels, got one nested too deep") from None
    except UnicodeDecodeError as error:
        raise invalid(_no_text(error)) from None
    except msgspec.ValidationError as error:
        object_found = "got `object`, or NaN or Infinity bare" if words else "got `object`"
        raise invalid(f"inference request: {lower(error).replace('got `object`', object_found)}") from None
    except msgspec.DecodeError as error:
        problem = json_problem(bytes(header), error)
    good, found = with_words(header)
    if not found:
        raise invalid(problem)
    return _decode(good, found)


def _no_text(error: UnicodeDecodeError) -> str:
    return f"expected JSON in UTF-8, got byte {error.object[error.start]:#04x}"


def _check_words(request: _Infer, words: int) -> None:
    try:
        check_words(words, [each.data for each in request.inputs if each.data is not msgspec.UNSET])
    except TensorError as error:
        raise invalid(f"inference request: {error}") from None


def _too_much_json(size: int, terms: Terms) -> Refusal:
    return too_large(
        f"expected at most {terms.json_bytes} bytes of JSON, got {size}: send tensors as binary data"
        " (Inference-Header-Content-Length and binary_data_size)"
    )


# -- outputs


def _wanted(interface: Interface, request: _Infer) -> tuple[dict[str, bool], dict[str, OutputParameters]]:
    """For each output whether it goes as bytes, and those that go neither as bytes nor as JSON as they are."""
    as_bytes = request.parameters.binary_data_output
    wanted = {} if request.outputs else dict.fromkeys(interface.outputs, as_bytes)
    special = {}
    for output in request.outputs:
        check_output(interface, wanted, output.name)
        given = output.parameters
        wanted[output.name] = as_bytes if given.binary_data is None else given.binary_data
        if given.special:
            special[output.name] = given
    if not interface.all_in_json:
        _check_json(interface, wanted, special)
    return wanted, special


def _check_json(interface: Interface, wanted: Mapping[str, bool], elsewhere: Container[str]) -> None:
    for name, as_bytes in wanted.items():
        datatype = interface.outputs[name].datatype
        if not as_bytes and datatype in NO_JSON and name not in elsewhere:
            raise invalid(f"output '{name}': expected binary_data for {datatype}, which JSON cannot carry")


# -- inputs


def _feeds(
    interface: Interface, inputs: Sequence[_Input], binary: memoryview, terms: Terms, literals: bool
) -> tuple[dict[str, Array], list[Load]]:
    feeds: dict[str, Array] = {}
    loads: list[Load] = []
    at = 0
    for each in inputs:
        spec = expected_input(interface, feeds, each.name, each.datatype, each.shape)
        given = each.parameters
        if given.shared_memory_region is not None:
            loads.append(_load(spec, each, given.shared_memory_region, terms))
            feeds[each.name] = PENDING
            continue
        size = given.binary_data_size
        data = None if size is None else _slice(each, binary, at, size)
        at += size or 0
        try:
            feeds[each.name] = _tensor(spec, each, data, literals)
        except TensorError as error:
            raise invalid(f"input '{each.name}': {error}") from None
        except UnicodeDecodeError as error:  # the body as a whole was read without a look at what is in its texts
            raise invalid(f"input '{each.name}': data: {_no_text(error)}") from None
    if at != len(binary):
        raise invalid(f"expected {at} bytes of binary data for the inputs, got {len(binary)}")
    check_complete(interface, feeds)
    return feeds, loads


def _load(spec: TensorSpec, given: _Input, region: str, terms: Terms) -> Load:
    if given.data is not msgspec.UNSET or given.parameters.binary_data_size is not None:
        raise invalid(f"input '{given.name}': expected shared_memory_region without data and binary_data_size")
    return make_load(spec, given.shape, region, given.parameters, terms)


def _slice(given: _Input, binary: memoryview, at: int, size: int) -> memoryview:
    if given.data is not msgspec.UNSET:
        raise invalid(f"input '{given.name}': expected either data or binary_data_size, got both")
    if not 0 <= size <= len(binary) - at:
        raise invalid(f"input '{given.name}': expected binary_data_size up to {len(binary) - at}, got {size}")
    return binary[at : at + size]


def _tensor(spec: TensorSpec, given: _Input, data: memoryview | None, literals: bool) -> Array:
    if data is not None:
        return tensors.from_bytes(spec.datatype, given.shape, data)
    if given.data is msgspec.UNSET:
        raise TensorError("expected data, binary_data_size or shared_memory_region, got none of them")
    if spec.datatype in NO_JSON:
        raise TensorError(f"expected binary data for {spec.datatype}, which JSON cannot carry")
    elements = json_elements(tensors.NUMPY[spec.datatype].kind, given.data, len(given.shape), literals=literals)
    return tensors.from_elements(spec.datatype, given.shape, elements)


# -- a raw body


def _raw_request(interface: Interface, body: bytes | bytearray) -> InferRequest:
    if len(interface.inputs) != 1:
        raise invalid(f"expected a JSON header for the {len(interface.inputs)} inputs of the model, got a raw body")
    (spec,) = interface.inputs.values()
    try:
        array = _raw_tensor(spec, body)
    except TensorError as error:
        raise invalid(f"input '{spec.name}': {error}") from None
    return InferRequest("", {spec.name: array}, dict.fromkeys(interface.outputs, True), CaptureMode.OFF)


def _raw_tensor(spec: TensorSpec, body: bytes | bytearray) -> Array:
    """A raw body is all of a tensor: one free dimension takes what is there. Of BYTES it is the one element."""
    if spec.datatype is Datatype.BYTES:
        shape = tuple(1 if dim == -1 else dim for dim in spec.shape)
        return tensors.from_bytes(spec.datatype, shape, tensors.join_bytes([bytes(body)]))
    if spec.shape.count(-1) > 1:
        raise TensorError(f"expected a JSON header for {spec.datatype} {list(spec.shape)}, got a raw body")
    fixed = math.prod(dim for dim in spec.shape if dim != -1)
    itemsize = tensors.CARRIER[spec.datatype].itemsize
    shape = tuple(dim if dim != -1 else len(body) // max(fixed * itemsize, 1) for dim in spec.shape)
    return tensors.from_bytes(spec.datatype, shape, body)
