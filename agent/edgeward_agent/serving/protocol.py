"""The Open Inference Protocol v2: bytes to requests, results to bytes. Pure: no socket, no clock, no runtime.

Source: KServe Open Inference Protocol v2 and Triton's binary tensor data extension. Where they leave a choice, this
does what `tritonclient` expects: errors are `{"error": "…"}`, success is 200, JSON may carry flat or nested data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Final

import msgspec

from edgeward_agent.serving import tensors
from edgeward_agent.serving.interface import NO_JSON, Interface, fits
from edgeward_agent.serving.refusal import invalid
from edgeward_agent.serving.tensors import Array, Buffer, Scalar, TensorError
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec

_MAX_TEXT: Final = 120


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that fits the model: arrays by input name, and for each wanted output whether it goes as bytes."""

    id: str
    feeds: dict[str, Array]
    outputs: dict[str, bool]
    capture: CaptureMode
    timeout_us: int | None = None  # 0: no deadline; None: the caller does not say
    priority: int = 0  # 1 is the highest, 0 the default


class _InputParameters(msgspec.Struct, frozen=True, gc=False):
    binary_data_size: int | None = None
    shared_memory_region: str | None = None


class _OutputParameters(msgspec.Struct, frozen=True, gc=False):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class _Parameters(msgspec.Struct, frozen=True, gc=False):
    binary_data_output: bool = False
    capture: CaptureMode = CaptureMode.OFF
    timeout: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: _InputParameters = _InputParameters()


class _Output(msgspec.Struct):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = []
    parameters: _Parameters = _Parameters()


_INFER: Final = msgspec.json.Decoder(_Infer)
_FLAT: Final[Mapping[str, msgspec.json.Decoder[list[Scalar]]]] = {
    "b": msgspec.json.Decoder(list[bool]),
    "i": msgspec.json.Decoder(list[int]),
    "u": msgspec.json.Decoder(list[int]),
    "f": msgspec.json.Decoder(list[float]),
    "O": msgspec.json.Decoder(list[str]),
}
_ELEMENT: Final[Mapping[str, type]] = {
    "b": list[bool],
    "i": list[int],
    "u": list[int],
    "f": list[float],
    "O": list[str],
}


def parse_infer(interface: Interface, body: bytes | bytearray, header_length: int | None) -> InferRequest:
    """Read an inference request for a model.

    Args:
        body: the HTTP body.
        header_length: value of `Inference-Header-Content-Length`: how much of the body is JSON; None is all of it,
            0 a raw body for the only input of a model.

    Raises:
        Refusal: 400 and one sentence that says what was expected and what was found.
    """
    if header_length == 0:
        return _raw_request(interface, body)
    header, binary = _split(body, header_length)
    request = _decode(header)
    outputs = _wanted(interface, request)
    feeds = _feeds(interface, request.inputs, binary)
    asked = request.parameters
    return InferRequest(request.id, feeds, outputs, asked.capture, asked.timeout, asked.priority)


def build_infer(
    interface: Interface, head: bytes, request: InferRequest, results: Sequence[Array]
) -> tuple[int | None, list[Buffer]]:
    """The body of an answer in pieces, and the length of its JSON if bytes follow (else None).

    `head` is what `response_head` made for this version; `results` are in the order of `request.outputs`.
    """
    pieces: list[Buffer] = [head]
    binary: list[Buffer] = []
    if request.id:
        pieces += b'"id":', msgspec.json.encode(request.id), b","
    separator = b'"outputs":['
    for (name, as_bytes), array in zip(request.outputs.items(), results, strict=True):
        pieces += separator, interface.outputs_json[name], str(list(array.shape)).encode()
        pieces.append(_parameters_json(binary, array) if as_bytes else _data_json(array))
        separator = b","
    pieces.append(b"]}" if request.outputs else b'"outputs":[]}')
    json = b"".join(pieces)
    return (len(json), [json, *binary]) if binary else (None, [json])


def _parameters_json(binary: list[Buffer], array: Array) -> bytes:
    data = tensors.to_bytes(array)
    binary.append(data)
    return b',"parameters":{"binary_data_size":%d}}' % len(data)


def _data_json(array: Array) -> bytes:
    # NaN and infinities become null: JSON has no word for them, and numpy reads null as NaN.
    return b',"data":' + msgspec.json.encode(tensors.to_elements(array)) + b"}"


def _split(body: bytes | bytearray, header_length: int | None) -> tuple[Buffer, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return body, view[len(body) :]
    if header_length > len(body):
        raise invalid(
            f"expected Inference-Header-Content-Length up to the body's {len(body)} bytes, got {header_length}"
        )
    return view[:header_length], view[header_length:]


def _decode(header: Buffer) -> _Infer:
    try:
        return _INFER.decode(header)
    except RecursionError:
        raise invalid("expected JSON of a few levels, got one nested too deep") from None
    except UnicodeDecodeError as error:
        raise invalid(f"expected JSON in UTF-8, got byte {error.object[error.start]:#04x}") from None
    except msgspec.ValidationError as error:
        raise invalid(f"inference request: {_lower(error)}") from None
    except msgspec.DecodeError as error:
        raise invalid(_json_problem(bytes(header), error)) from None


def _lower(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:_MAX_TEXT]


def _json_problem(header: bytes, error: msgspec.DecodeError) -> str:
    """NaN and Infinity are what numpy users send by mistake: say that, instead of "malformed"."""
    position = str(error).rpartition("(byte ")[2].rstrip(")")
    if position.isdecimal():
        at = int(position)
        for word in ("NaN", "Infinity"):
            if header.startswith(word.encode(), at):
                return f"expected finite numbers in JSON, got {word} at byte {at}; send the tensor as binary data"
    return f"expected JSON, got: {_lower(error)}"


def _wanted(interface: Interface, request: _Infer) -> dict[str, bool]:
    as_bytes = request.parameters.binary_data_output
    wanted = {} if request.outputs else dict.fromkeys(interface.outputs, as_bytes)
    for output in request.outputs:
        _check_output(interface, wanted, output)
        asked = output.parameters.binary_data
        wanted[output.name] = as_bytes if asked is None else asked
    if not interface.all_in_json:
        _check_json(interface, wanted)
    return wanted


def _check_json(interface: Interface, wanted: Mapping[str, bool]) -> None:
    for name, as_bytes in wanted.items():
        if not as_bytes and interface.outputs[name].datatype in NO_JSON:
            datatype = interface.outputs[name].datatype
            raise invalid(f"output '{name}': expected binary_data for {datatype}, which JSON cannot carry")


def _check_output(interface: Interface, wanted: Mapping[str, bool], output: _Output) -> None:
    if output.name not in interface.outputs:
        raise invalid(f"expected outputs of {_names(interface.outputs)}, got '{_short(output.name)}'")
    if output.name in wanted:
        raise invalid(f"expected each output once, got '{output.name}' twice")
    if output.parameters.classification is not None:
        raise invalid(f"output '{output.name}': classification is not supported")
    if output.parameters.shared_memory_region is not None:
        raise invalid(f"output '{output.name}': shared memory is not enabled")


def _feeds(interface: Interface, inputs: Sequence[_Input], binary: memoryview) -> dict[str, Array]:
    feeds: dict[str, Array] = {}
    at = 0
    for each in inputs:
        spec = _expected(interface, feeds, each)
        size = each.parameters.binary_data_size
        data = None if size is None else _slice(each, binary, at, size)
        at += size or 0
        try:
            feeds[each.name] = _tensor(spec, each, data)
        except TensorError as error:
            raise invalid(f"input '{each.name}': {error}") from None
    if at != len(binary):
        raise invalid(f"expected {at} bytes of binary data for the inputs, got {len(binary)}")
    if len(feeds) != len(interface.inputs):
        missing = [name for name in interface.inputs if name not in feeds]
        raise invalid(f"expected inputs {_names(interface.inputs)}, got none for {_names(missing)}")
    return feeds


def _expected(interface: Interface, feeds: Mapping[str, Array], given: _Input) -> TensorSpec:
    spec = interface.inputs.get(given.name)
    if spec is None:
        raise invalid(f"expected inputs {_names(interface.inputs)}, got '{_short(given.name)}'")
    if given.name in feeds:
        raise invalid(f"expected each input once, got '{given.name}' twice")
    if given.datatype != spec.datatype:
        raise invalid(f"input '{given.name}': expected datatype {spec.datatype}, got {_short(given.datatype)}")
    if not fits(spec.shape, given.shape):
        raise invalid(f"input '{given.name}': expected shape {list(spec.shape)}, got {_short(str(given.shape))}")
    if given.parameters.shared_memory_region is not None:
        raise invalid(f"input '{given.name}': shared memory is not enabled")
    return spec


def _slice(given: _Input, binary: memoryview, at: int, size: int) -> memoryview:
    if given.data is not msgspec.UNSET:
        raise invalid(f"input '{given.name}': expected either data or binary_data_size, got both")
    if not 0 <= size <= len(binary) - at:
        raise invalid(f"input '{given.name}': expected binary_data_size up to {len(binary) - at}, got {size}")
    return binary[at : at + size]


def _tensor(spec: TensorSpec, given: _Input, data: memoryview | None) -> Array:
    if data is not None:
        return tensors.from_bytes(spec.datatype, given.shape, data)
    if given.data is msgspec.UNSET:
        raise TensorError("expected data or binary_data_size, got neither")
    if spec.datatype in NO_JSON:
        raise TensorError(f"expected binary data for {spec.datatype}, which JSON cannot carry")
    elements = _elements(tensors.NUMPY[spec.datatype].kind, given.data, len(given.shape))
    return tensors.from_elements(spec.datatype, given.shape, elements)


def _elements(kind: str, data: msgspec.Raw, rank: int) -> list[Scalar]:
    """Values of a JSON tensor, flat. Nested lists are allowed by the protocol but rare: tried second."""
    try:
        return _FLAT[kind].decode(data)
    except msgspec.ValidationError as error:
        problem = _lower(error)
    try:
        return _nested(kind, data, rank)
    except (msgspec.ValidationError, RecursionError):
        raise TensorError(f"data: {problem}") from None


def _nested(kind: str, data: msgspec.Raw, rank: int) -> list[Scalar]:
    values: list[Scalar | list[Scalar]] = msgspec.json.decode(data, type=list)
    for _ in range(rank - 1):
        if not values or not all(isinstance(each, list) for each in values):
            break
        values = list(chain.from_iterable(each for each in values if isinstance(each, list)))
    flat: list[Scalar] = msgspec.convert(values, type=_ELEMENT[kind])
    return flat


def _raw_request(interface: Interface, body: bytes | bytearray) -> InferRequest:
    if len(interface.inputs) != 1:
        raise invalid(f"expected a JSON header for the {len(interface.inputs)} inputs of the model, got a raw body")
    (spec,) = interface.inputs.values()
    try:
        array = tensors.from_bytes(spec.datatype, _raw_shape(spec, len(body)), body)
    except TensorError as error:
        raise invalid(f"input '{spec.name}': {error}") from None
    return InferRequest("", {spec.name: array}, dict.fromkeys(interface.outputs, True), CaptureMode.OFF)


def _raw_shape(spec: TensorSpec, size_bytes: int) -> tuple[int, ...]:
    """The shape of a raw body: one free dimension takes what is there."""
    if spec.shape.count(-1) > 1 or spec.datatype is Datatype.BYTES:
        raise TensorError(f"expected a JSON header for {spec.datatype} {list(spec.shape)}, got a raw body")
    fixed = math.prod(dim for dim in spec.shape if dim != -1)
    itemsize = tensors.NUMPY[spec.datatype].itemsize
    return tuple(dim if dim != -1 else size_bytes // max(fixed * itemsize, 1) for dim in spec.shape)


def _names(names: Iterable[str]) -> str:
    return _short(", ".join(f"'{name}'" for name in names))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
