"""The calls of `inference.GRPCInferenceService`, each as a handler of bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Final, NoReturn, TypeVar

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from edgeward_agent.serving.management import Management
from edgeward_agent.serving.refusal import Full, Refusal, internal_error
from edgeward_agent.serving.routes import Route, What
from edgeward_agent.serving.rpc import inference_pb2 as pb
from edgeward_agent.serving.rpc.asking import Asking
from edgeward_agent.serving.rpc.places import Share
from edgeward_agent.serving.rpc.reading import read
from edgeward_agent.serving.rpc.room import Room
from edgeward_agent.serving.rpc.streaming import Streams
from edgeward_agent.serving.rpc.writing import Context, answered, refuse
from edgeward_contract.schema import JsonValue

_log: Final = logging.getLogger(__name__)

NAME: Final = "inference.GRPCInferenceService"
FOR_ALL: Final = (f"/{NAME}/ServerLive", f"/{NAME}/ServerReady")
"""What is answered without the token: a probe of a supervisor has none, and learns no more than yes or no."""

T = TypeVar("T")
Work = Callable[[Context], Coroutine[None, None, T]]
"""Answers one call. Raises Refusal."""
_OfModel = pb.ModelReadyRequest | pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest


class Calls:
    """How many run, until their answers are read; more are refused. Probes do not count, and are answered in any case.

    Touched on the loop's thread alone.
    """

    def __init__(self, most: int) -> None:
        self._share = Share(most)

    def begin(self, peer: str) -> None:
        """Count the call of this task, which ends when its answer was read or the caller left. Raises Full."""
        task = asyncio.current_task()
        assert task is not None
        if not self._share.has_room(peer):
            raise Full(f"expected at most {self._share.own(peer)} calls of a connection at a time, got another")
        self._share.take(peer)
        task.add_done_callback(lambda _: self._share.give(peer))


def service(asking: Asking, management: Management, streams: Streams, calls: Calls) -> grpc.GenericRpcHandler:
    """All calls, answered by what answers them over HTTP too."""
    managing = management_calls(management).items()
    handlers = {name: _handler(_counted(_management(answer, asking.room), calls)) for name, answer in managing}
    handlers |= {name: _handler(_probe(answer)) for name, answer in probes(management).items()}
    handlers["ModelInfer"] = _handler(_counted(_infer(asking), calls))
    handlers["ModelStreamInfer"] = _stream(_counted(streams.serve, calls))
    return grpc.method_handlers_generic_handler(NAME, handlers)


def _handler(work: Work[bytes]) -> grpc.RpcMethodHandler[bytes, bytes]:
    """As if many messages could come: of a call with one gRPC would take it in before anybody is asked."""

    async def handle(_: object, context: Context) -> bytes:
        try:
            return await work(context)
        except Refusal as refusal:
            denied = _alone(refusal)
        await refuse(context, denied)

    return grpc.stream_unary_rpc_method_handler(handle)


def _stream(work: Work[None]) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def handle(_: object, context: Context) -> None:
        try:
            await work(context)
            return
        except Refusal as refusal:
            denied = _alone(refusal)
        await refuse(context, denied)

    return grpc.stream_stream_rpc_method_handler(handle)


def _alone(refusal: Refusal) -> Refusal:
    """What it says, without what led to it.

    The context keeps the error that ends the call, and that the refusal it was raised from: with its traceback, which
    keeps the context and the whole message, until the collector comes by.
    """
    return Refusal(refusal.status, str(refusal))


def _counted(work: Work[T], calls: Calls) -> Work[T]:
    async def counted(context: Context) -> T:
        calls.begin(context.peer())
        return await work(context)

    return counted


def _infer(asking: Asking) -> Work[bytes]:
    async def infer(context: Context) -> bytes:
        body = await asking.room.read(context)
        # Nobody waits behind this future but the call: when the caller leaves, it is given up with it.
        waiting = asking.ask(body, context.time_remaining(), answered).reply
        del body  # it may be large, and was read
        try:
            reply = await waiting
        except asyncio.CancelledError:
            asking.give_up(waiting)
            raise
        if isinstance(reply, Refusal):
            await refuse(context, reply)
        asking.room.let_go_with_the_call(len(reply))
        return reply

    return infer


def _management(answer: Callable[[bytes], Message], room: Room) -> Work[bytes]:
    async def manage(context: Context) -> bytes:
        body = await room.read(context)
        try:
            return answer(body).SerializeToString()
        except Refusal:
            raise
        except Exception:
            _log.exception("a call failed")
            raise internal_error() from None

    return manage


def _probe(answer: Callable[[bytes], Message]) -> Work[bytes]:
    """Nothing of its message is read."""

    async def probe(_: Context) -> bytes:
        return answer(b"").SerializeToString()

    return probe


# -- everything but inference


def probes(management: Management) -> Mapping[str, Callable[[bytes], Message]]:
    """By name: those of `FOR_ALL`."""
    return {
        "ServerLive": lambda _: pb.ServerLiveResponse(live=True),
        "ServerReady": lambda _: pb.ServerReadyResponse(ready=_holds(management.ready, Route(What.READY))),
    }


def management_calls(management: Management) -> Mapping[str, Callable[[bytes], Message]]:
    """By name; each may raise Refusal."""
    return {
        "ServerMetadata": lambda _: ParseDict(management.server(Route(What.SERVER)), pb.ServerMetadataResponse()),
        "ModelReady": lambda body: pb.ModelReadyResponse(
            ready=_holds(management.model_ready, _route(read(pb.ModelReadyRequest, body)))
        ),
        "ModelMetadata": lambda body: ParseDict(
            management.model(_route(read(pb.ModelMetadataRequest, body))),
            pb.ModelMetadataResponse(),
            ignore_unknown_fields=True,  # labels and units, which the message has no place for
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
    """What is a status over HTTP too is a yes or no here."""
    try:
        check(route)
    except Refusal:
        return False
    return True


def _by_name(entries: JsonValue) -> dict[str, JsonValue]:
    listed = entries if isinstance(entries, list) else []
    return {str(each["name"]): each for each in listed if isinstance(each, dict)}
