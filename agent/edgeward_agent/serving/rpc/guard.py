"""Who may call: whoever shows the token, where the agent was given one. The verdict is that of HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import grpc
from grpc import aio

from edgeward_agent.serving.access import refused
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.rpc.writing import refuse

_Q = TypeVar("_Q")
_A = TypeVar("_A")
_AUTHORIZATION: Final = "authorization"


class TokenGuard(aio.ServerInterceptor):
    """Asked for each call before anything of its message is read: strangers take no room."""

    def __init__(self, token: bytes, *, for_all: Iterable[str]) -> None:
        """`for_all` are paths that need no token."""
        self._token = token
        self._for_all = frozenset(for_all)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Q, _A] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Q, _A] | None:
        if handler_call_details.method not in self._for_all:
            denied = refused(_authorization(handler_call_details), self._token)
            if denied is not None:
                return _refusing(denied)
        return await continuation(handler_call_details)


def _authorization(details: grpc.HandlerCallDetails) -> bytes | None:
    for key, value in details.invocation_metadata:
        if key == _AUTHORIZATION:
            return value if isinstance(value, bytes) else value.encode()
    return None


def _refusing(denied: Refusal) -> grpc.RpcMethodHandler[_Q, _A]:
    async def handle(_: object, context: aio.ServicerContext[_Q, _A]) -> None:
        await refuse(context, denied)

    # As a stream whatever the call is: a handler of a single message would get that first.
    return grpc.stream_stream_rpc_method_handler(handle)
