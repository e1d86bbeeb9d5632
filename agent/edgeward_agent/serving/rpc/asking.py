"""Inferences that come over gRPC: bytes of a message to a reply that is there now or later."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from edgeward_agent.serving.asked import InferRequest, Terms
from edgeward_agent.serving.inference import Inference, Runner
from edgeward_agent.serving.refusal import Refusal, internal_error
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.rpc.reading import read_infer, read_request
from edgeward_agent.serving.rpc.room import Room
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode

_log: Final = logging.getLogger(__name__)

_OFF: Final = CaptureMode.OFF
Reply = asyncio.Future[bytes | Refusal]
Write = Callable[[Version, InferRequest, Sequence[Array]], bytes]


class Pending(NamedTuple):
    """A request that was read. Whoever does not wait any more gives it up: then it need not run.

    An answer has its room until it is written, or given up.
    """

    id: str
    reply: Reply


class Asking:
    """Takes requests. Touched on the loop's thread alone."""

    def __init__(self, registry: Registry, runner: Runner, *, terms: Terms, room: Room) -> None:
        self._registry = registry
        self._runner = runner
        self._terms = terms
        self.room = room

    def ask(self, body: bytes, left_s: float | None, write: Write) -> Pending:
        """Read a request and have it run.

        Args:
            left_s: until the deadline of the call; None when it has none.
            write: makes the answer.
        """
        received_ns = time.perf_counter_ns()
        reply: Reply = asyncio.get_running_loop().create_future()
        request_id = ""
        try:
            self._take_in(len(body), reply)
            request = read_request(body, self._terms)
            request_id = request.id
            version = self._registry.find(request.model_name, request.model_version or None)
            try:
                read = read_infer(version.interface, request, self._terms)
                if read.capture is not _OFF:  # and can be recorded at all
                    self._runner.capture.mode(version.capture.mode, read.capture)
            except Refusal:
                version.traffic.invalid += 1
                raise
            asked = _within(read, left_s, version.budget_ns)
            size_bytes = len(body) + (asked.aside.size_bytes if asked.aside is not None else 0)
            inference = _RpcInference(self._runner, version, asked, size_bytes=size_bytes, received_ns=received_ns)
            inference.reply_to(reply, write, self.room, own_bytes=len(body))
            self._runner.submit(inference)
        except Refusal as refusal:
            # Its traceback would keep this frame, and that the message and `reply`, which keeps the refusal: a ring
            # that only the collector opens, and it counts objects and not bytes.
            reply.set_result(refusal.with_traceback(None))
        except Exception:
            _log.exception("a request failed")
            reply.set_result(internal_error())
        return Pending(request_id, reply)

    def give_up(self, reply: Reply) -> None:
        """Nobody waits for it any more."""
        if reply.cancel() or reply.cancelled():
            return
        answer = reply.result()
        if isinstance(answer, bytes):
            self.room.let_go(len(answer))

    def _take_in(self, size: int, reply: Reply) -> None:
        self.room.take_in(size)
        reply.add_done_callback(lambda _: self.room.let_go(size))


class _RpcInference(Inference):
    """An inference whose answer is a message."""

    __slots__ = ("_own_bytes", "_reply", "_room", "_write")

    def reply_to(self, reply: Reply, write: Write, room: Room, *, own_bytes: int) -> None:
        """Say who waits, before it is submitted. `own_bytes` is what the request counts for."""
        self._reply = reply
        self._write = write
        self._room = room
        self._own_bytes = own_bytes

    @property
    def abandoned(self) -> bool:
        return self._reply.done()

    def answer(self, results: list[Array]) -> None:
        message = self._write(self.version, self.asked, results)
        if not self._reply.done():  # a durable record takes a while, and the caller may leave meanwhile
            self._room.take_in(len(message), own_bytes=self._own_bytes)
            self._reply.set_result(message)

    def refuse(self, status: HTTPStatus, message: str) -> None:
        if not self._reply.done():
            self._reply.set_result(Refusal(status, message))


def _within(asked: InferRequest, left_s: float | None, budget_ns: int) -> InferRequest:
    """The same with the deadline of the call, when that is earlier: nobody waits beyond it."""
    if left_s is None:
        return asked
    left_us = max(1, int(left_s * 1e6))
    given_us = asked.timeout_us
    own_us = budget_ns // 1000 if given_us is None else given_us
    # 0 in a request is no deadline.
    return asked if own_us and own_us <= left_us else msgspec.structs.replace(asked, timeout_us=left_us)
