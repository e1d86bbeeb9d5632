"""The gRPC server of the serving process: grpc's own, on the loop that serves everything else."""

from __future__ import annotations

import logging
from typing import Final

from grpc import aio

from edgeward_agent.errors import PortInUse
from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.callers import MANY
from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.rpc.asking import Asking
from edgeward_agent.serving.rpc.guard import TokenGuard
from edgeward_agent.serving.rpc.room import Room
from edgeward_agent.serving.rpc.service import FOR_ALL, Calls, service
from edgeward_agent.serving.rpc.streaming import Streams

_CALLS: Final = 1024
_CALLS_OF_ONE: Final = _CALLS
"""More than are answered to one: the client would keep the rest to itself, where no deadline is seen."""
_ALIVE_MS: Final = 60_000
"""Who says nothing for so long is asked whether he is there: a peer that is gone would hold its calls for ever."""
_HELLO_S: Final = 10.0
"""For a connection to say that it speaks HTTP/2, as each client does at once: silent ones take the place of others."""
_GRPC_LOG: Final = "grpc._cython.cygrpc"
_OF_CLIENTS: Final = "ExecuteBatchError raised in core"


class RpcServer:
    """Serves one address."""

    def __init__(
        self, registry: Registry, runner: Runner, *, management: Management, terms: Terms, limits: Limits
    ) -> None:
        self._room = Room(limits)
        asking = Asking(registry, runner, terms=terms, room=self._room)
        self._streams = Streams(asking, limits)
        self._callers = runner.scheduler.callers
        guards = [TokenGuard(limits.token, for_all=FOR_ALL)] if limits.token else []
        logging.getLogger(_GRPC_LOG).addFilter(_is_ours)  # once, however often
        self._server = aio.server(interceptors=guards, options=_options(limits))
        self._server.add_generic_rpc_handlers((service(asking, management, self._streams, Calls(_CALLS)),))

    async def listen(self, address: str) -> None:
        """Answer on HOST:PORT. Raises PortInUse."""
        try:
            self._server.add_insecure_port(address)
        except RuntimeError:
            raise PortInUse(f"{address}: expected a free address for gRPC, found it in use") from None
        await self._server.start()
        self._callers.came(MANY)

    async def keep_time(self) -> None:
        """End calls whose message does not come."""
        await self._room.keep_time()

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, answer what has been asked, then close; what is not done in time is cut."""
        self._streams.finish()
        await self._server.stop(timeout_s)
        self._callers.left(MANY)


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.head_bytes),
        ("grpc.absolute_max_metadata_size", limits.head_bytes),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", _CALLS_OF_ONE),
        ("grpc.http2.bdp_probe", 0),  # else the window grows to megabytes, and with it what waits unread here
        ("grpc.keepalive_time_ms", _ALIVE_MS),
        ("grpc.max_connection_idle_ms", round(limits.idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", round(_HELLO_S * 1000)),
        ("grpc.so_reuseport", 1),  # the control process keeps the port while no serving process runs
    ]


def _is_ours(record: logging.LogRecord) -> bool:
    """Not that a client has left in the middle of its answer: each would be an error with a traceback."""
    return _OF_CLIENTS not in record.getMessage()
