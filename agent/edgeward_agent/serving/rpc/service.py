"""The calls of `inference.GRPCInferenceService`, each as a handler of bytes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from edgeward_agent.serving.management import Management
from edgeward_agent.serving.refusal import Refusal, internal_error
from edgeward_agent.serving.routes import Route, What
from edgeward_agent.serving.rpc import inference_pb2 as pb
from edgeward_agent.serving.rpc.asking import Asking
from edgeward_agent.serving.rpc.reading import read
from edgeward_agent.serving.rpc.streaming import Streams
from edgeward_agent.serving.rpc.writing import Context, answered, refuse
from edgeward_contract.schema import JsonValue

_log: Final = logging.getLogger(__name__)

NAME: Final = "inference.GRPCInferenceService"
FOR_ALL: Final = (f"/{NAME}/ServerLive", f"/{NAME}/ServerReady")
"""What is answered without the token: a probe of a supervisor has none, and learns no more than yes or no."""

_OfModel = pb.ModelReadyRequest | pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest


def service(asking: Asking, management: Management, streams: Streams) -> grpc.GenericRpcHandler:
    """All calls, answered by what answers them over HTTP too."""
    handlers = {name: _handler(answer) for name, answer in management_calls(management).items()}
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(_infer(asking))
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(streams.serve)
    return grpc.method_handlers_generic_handler(NAME, handlers)


def _infer(asking: Asking) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def infer(body: bytes, context: Context) -> bytes:
        # Nobody waits behind this future but the call: when the caller leaves, it is cancelled with it.
        reply = await asking.ask(body, context.time_remaining(), answered).reply
        return reply if isinstance(reply, bytes) else await refuse(context, reply)

    return infer


def _handler(answer: Callable[[bytes], Message]) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def handle(body: bytes, context: Context) -> bytes:
        try:
            return answer(body).SerializeToString()
        except Refusal as refusal:
            return await refuse(context, refusal)
        except Exception:
            _log.exception("a call failed")
            return await refuse(context, internal_error())

    return grpc.unary_unary_rpc_method_handler(handle)


# -- everything but inference


def management_calls(management: Management) -> Mapping[str, Callable[[bytes], Message]]:
    """By name; each may raise Refusal."""
    return {
        "ServerLive": lambda _: pb.ServerLiveResponse(live=True),
        "ServerReady": lambda _: pb.ServerReadyResponse(ready=_holds(management.ready, Route(What.READY))),
        "ServerMetadata": lambda _: ParseDict(management.server(Route(What.SERVER)), pb.ServerMetadataResponse()),
        "ModelReady": lambda body: pb.ModelReadyResponse(
            ready=_holds(management.model_ready, _route(read(pb.ModelReadyRequest, body)))
        ),
        "ModelMetadata": lambda body: ParseDict(
            management.model(_route(read(pb.ModelMetadataRequest, body))), pb.ModelMetadataResponse()
        ),
        "ModelConfig": lambda body: ParseDict(
            {"config": management.config(_route(read(pb.ModelConfigRequest, body)))}, pb.ModelConfigResponse()
        ),
        "ModelStatistics": lambda body: ParseDict(
            management.statistics(_route(read(pb.ModelStatisticsRequest, body))), pb.ModelStatisticsResponse()
        ),
        "RepositoryIndex": lambda body: ParseDict(
            {"models": management.listed(ready=read(pb.RepositoryIndexRequest, body).ready)},
            pb.RepositoryIndexResponse(),
        ),
        **_memory(management),
        **_refused(management),
    }


def _memory(management: Management) -> Mapping[str, Callable[[bytes], Message]]:
    def register(body: bytes) -> Message:
        asked = read(pb.SystemSharedMemoryRegisterRequest, body)
        management.register_region(asked.name, key=asked.key, offset=asked.offset, size_bytes=asked.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def unregister(body: bytes) -> Message:
        management.unregister(Route(What.UNREGISTER, read(pb.SystemSharedMemoryUnregisterRequest, body).name), b"")
        return pb.SystemSharedMemoryUnregisterResponse()

    def status(body: bytes) -> Message:
        regions = management.regions(Route(What.REGIONS, read(pb.SystemSharedMemoryStatusRequest, body).name))
        return ParseDict({"regions": _by_name(regions)}, pb.SystemSharedMemoryStatusResponse())

    def cuda_status(body: bytes) -> Message:
        management.cuda_regions(Route(What.CUDA_REGIONS, read(pb.CudaSharedMemoryStatusRequest, body).name))
        return pb.CudaSharedMemoryStatusResponse()

    return {
        "SystemSharedMemoryRegister": register,
        "SystemSharedMemoryUnregister": unregister,
        "SystemSharedMemoryStatus": status,
        "CudaSharedMemoryStatus": cuda_status,
        "CudaSharedMemoryUnregister": lambda _: pb.CudaSharedMemoryUnregisterResponse(),
    }


def _refused(management: Management) -> Mapping[str, Callable[[bytes], Message]]:
    """Calls that a device knows and does not answer: each says why."""

    def refusing(refused: Callable[[Route, bytes], NoReturn], what: What) -> Callable[[bytes], Message]:
        return lambda _: refused(Route(what), b"")

    return {
        "RepositoryModelLoad": refusing(management.load, What.LOAD),
        "RepositoryModelUnload": refusing(management.load, What.LOAD),
        "CudaSharedMemoryRegister": refusing(management.cuda_register, What.CUDA_REGISTER),
        "TraceSetting": refusing(management.change_trace, What.TRACE),
        "LogSettings": refusing(management.change_logging, What.LOGGING),
    }


def _route(asked: _OfModel) -> Route:
    return Route(What.MODEL, asked.name, asked.version or None)


def _holds(check: Callable[[Route], JsonValue], route: Route) -> bool:
    """What has no body over HTTP is a yes or no here."""
    try:
        check(route)
    except Refusal:
        return False
    return True


def _by_name(entries: JsonValue) -> dict[str, JsonValue]:
    listed = entries if isinstance(entries, list) else []
    return {str(each["name"]): each for each in listed if isinstance(each, dict)}
