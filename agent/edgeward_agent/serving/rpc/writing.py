"""Answers over gRPC: results to messages, refusals to codes."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NoReturn, TypeVar

from grpc import StatusCode, aio

from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.rpc.inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import Datatype

_Q = TypeVar("_Q")
_A = TypeVar("_A")
Context = aio.ServicerContext[bytes, bytes]

_CODES: Final = {
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.NOT_IMPLEMENTED: StatusCode.UNIMPLEMENTED,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
}
_MAX_TEXT: Final = 1024  # it travels in a header
_FINAL: Final = "triton_final_response"
_BYTES: Final = Datatype.BYTES.value


async def refuse(context: aio.ServicerContext[_Q, _A], refusal: Refusal) -> NoReturn:
    """End a call with an error; INTERNAL is all that has no name here."""
    code = _CODES.get(refusal.status, StatusCode.INTERNAL)
    await context.abort(code, str(refusal)[:_MAX_TEXT])


def answered(version: Version, asked: InferRequest, results: Sequence[Array]) -> bytes:
    """The answer to one request. `results` are in the order of `asked.outputs`."""
    response = ModelInferResponse()
    _fill(response, version, asked, results)
    return response.SerializeToString()


def streamed(version: Version, asked: InferRequest, results: Sequence[Array]) -> bytes:
    """One answer of a stream. A model here gives one to each request, so each is the last."""
    response = ModelStreamInferResponse()
    _fill(response.infer_response, version, asked, results)
    response.infer_response.parameters[_FINAL].bool_param = True
    return response.SerializeToString()


def streamed_error(request_id: str, message: str) -> bytes:
    """An error that ends one request of a stream, not the stream."""
    response = ModelStreamInferResponse(error_message=message)
    response.infer_response.id = request_id
    response.infer_response.parameters[_FINAL].bool_param = True
    return response.SerializeToString()


def _fill(response: ModelInferResponse, version: Version, asked: InferRequest, results: Sequence[Array]) -> None:
    """Each output has an entry among the raw ones, also one in shared memory: clients find them by their place."""
    aside, known = asked.aside, version.interface.outputs
    response.model_name, response.model_version, response.id = version.name, str(version.version), asked.id
    for name, array in zip(asked.outputs, results if aside is None else aside.shown, strict=True):
        ranked = aside is not None and name in aside.classes
        stored = aside is not None and name in aside.stores
        datatype = _BYTES if ranked else known[name].datatype.value
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(b"" if stored else bytes(tensors.to_bytes(array)))
