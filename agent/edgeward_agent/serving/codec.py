"""Compresses and decompresses beside the loop: a large body takes tenths of a second that nobody else may wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final

from edgeward_agent.priority import interrupt_nobody
from edgeward_agent.serving.encoding import Inflater, chosen, pack
from edgeward_agent.serving.exchange import Handler, Request
from edgeward_agent.serving.refusal import Full, Refusal
from edgeward_agent.wire.tensors import Buffer

_log: Final = logging.getLogger(__name__)

_INLINE_BYTES: Final = 64 << 10  # about what takes as long as to hand it over and back
_LONGEST_WAIT_NS: Final = 1_000_000_000  # for the thread: what the caller's own deadline is lies in the body
_PLAIN_BELOW_BYTES: Final = 1 << 10  # less than that does not get smaller by more than the header that says so


class Codec:
    """One thread for all bodies: what is being inflated is in no count of memory yet, so it must be one at a time."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="codec", initializer=interrupt_nobody)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def unpacked(self, request: Request, encoding: bytes, handler: Handler) -> None:
        """Hand the request to `handler` when its body is as it was before it was compressed.

        Raises:
            Refusal: the body is not what it was said to be, or too large; or too many wait. Found later, it is sent.
        """
        if not request.body:
            request.replace_body(b"")
            handler(request)
            return
        inflater = Inflater(encoding, request.body, limit_bytes=self._limit_bytes)
        body = inflater.start(_INLINE_BYTES)
        if body is not None:
            request.replace_body(body)
            handler(request)
            return

        def done(future: asyncio.Future[bytes | Refusal]) -> None:
            if not future.cancelled():
                request.serve(lambda request: _go_on(request, future.result(), handler))

        asyncio.get_running_loop().run_in_executor(self._thread, _in_turn, request, inflater).add_done_callback(done)

    def answer(self, request: Request, accepted: bytes, parts: Sequence[Buffer], header_length: int | None) -> None:
        """Answer in the encoding that `Accept-Encoding` asks for, if it names one and it is worth it."""
        encoding = chosen(accepted)
        size = sum(map(len, parts))
        if encoding is None or size < _PLAIN_BELOW_BYTES:
            request.answer(parts, header_length=header_length)
        elif size <= _INLINE_BYTES:
            request.answer(pack(encoding, parts), header_length=header_length, encoding=encoding)
        else:
            self._pack(request, encoding, parts, header_length)

    def _pack(self, request: Request, encoding: bytes, parts: Sequence[Buffer], header_length: int | None) -> None:
        def done(future: asyncio.Future[list[Buffer]]) -> None:
            if future.cancelled():
                return
            if (error := future.exception()) is not None:
                _log.error("an answer could not be compressed", exc_info=error)
                request.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the answer could not be compressed")
            else:
                request.answer(future.result(), header_length=header_length, encoding=encoding)

        asyncio.get_running_loop().run_in_executor(self._thread, pack, encoding, parts).add_done_callback(done)


def _in_turn(request: Request, inflater: Inflater) -> bytes | Refusal:
    """Whoever has waited for too long, or has left, costs the next one nothing."""
    if request.gone or time.perf_counter_ns() - request.received_ns > _LONGEST_WAIT_NS:
        return Full("expected to decompress the body within a second, too many large ones wait for that")
    return _rest(inflater)


def _rest(inflater: Inflater) -> bytes | Refusal:
    """A refusal is returned without its traceback: that would keep what was inflated, for as long as the future lives
    that both hold, which is until the collector comes by.
    """
    try:
        return inflater.rest()
    except Refusal as refusal:
        return refusal.with_traceback(None)


def _go_on(request: Request, inflated: bytes | Refusal, handler: Handler) -> None:
    if request.gone:
        return
    if isinstance(inflated, Refusal):
        raise inflated
    request.replace_body(inflated)
    handler(request)
