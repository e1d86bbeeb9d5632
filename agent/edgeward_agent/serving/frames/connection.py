"""One client of the frames socket: first a plan with its memory, then one request at a time.

A request costs one `recv`, the copies between the shared memory and our own, the model and one `send`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from array import array
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, Protocol

from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.frames.memory import map_sealed
from edgeward_agent.serving.frames.opened import Opened
from edgeward_agent.serving.frames.plan import check_fits_memory, opened_document, read_open
from edgeward_agent.serving.frames.wire import (
    ANSWER_HEAD,
    MAX_ID_BYTES,
    MAX_OPEN_BYTES,
    NO_DEADLINE,
    RUN_HEAD,
    Kind,
    opened_packet,
)
from edgeward_agent.serving.inference import Inference, Runner
from edgeward_agent.serving.refusal import Refusal, invalid
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.tensors import Array
from edgeward_contract.schema import JsonValue

_log: Final = logging.getLogger(__name__)

# On Python 3.11 a member of an enum costs a call to look up; these are looked up for every request.
_RUN: Final = int(Kind.RUN)
_ANSWER: Final = int(Kind.ANSWER)
_OK: Final = int(HTTPStatus.OK)
_INTERNAL: Final = "internal error: see the log of the serving process"
_MAX_RUN_BYTES: Final = RUN_HEAD.size + MAX_ID_BYTES
_MAX_TIMEOUT_US: Final = (1 << 63) - 1
_MAX_ERROR_BYTES: Final = 1024
_TURN_NS: Final = 300_000
"""Where client and server share a core, the next request is here before the `send` of the answer returns: to look for
it at once saves a turn of the loop. For so long, then others have theirs."""
_LOOK_EVERY: Final = 32  # wakes, once it was in vain
_FDS: Final = 8  # room for more than may come, so that we see and close them


class Owner(Protocol):
    """The server of a connection."""

    registry: Registry
    runner: Runner

    @property
    def memory_room_bytes(self) -> int:
        """How much memory one more client may share."""

    def opened(self, memory_bytes: int) -> None:
        """Count memory that a client shares, until its connection is lost."""

    def lost(self, connection: FrameConnection) -> None:
        """The connection has ended."""


class FrameConnection:
    """Touched on the loop's thread alone; `readable` is called when there is something to read."""

    def __init__(self, owner: Owner, connection: socket.socket) -> None:
        self.socket = connection
        self.closed = False
        self.busy = False
        self.memory_bytes = 0
        self.last_ns = time.perf_counter_ns()
        self._owner = owner
        self.runner = owner.runner
        self._registry = owner.registry
        self._recv = connection.recv
        self._send = connection.send
        self._opened: Opened | None = None
        self._wakes = 0
        self._looks_again = False

    def readable(self) -> None:
        """Something has come: the plan, or a request."""
        opened = self._opened
        if opened is None:
            self._read_open()
            return
        if not self._read_run(opened):
            return
        self._wakes += 1
        until_ns = self.last_ns + _TURN_NS
        if self._wakes % _LOOK_EVERY == 0:
            self._looks_again = True
        while self._looks_again and not (self.busy or self.closed) and time.perf_counter_ns() < until_ns:
            self._looks_again = self._read_run(opened)

    def close(self) -> None:
        """End it now; a request that runs is answered to nobody."""
        if not self.closed:
            self.closed = True
            self._owner.lost(self)
            self.socket.close()
            self._opened = None

    # -- the plan

    def _read_open(self) -> None:
        try:
            packet, control, flags, _ = self.socket.recvmsg(
                MAX_OPEN_BYTES + 1, socket.CMSG_SPACE(_FDS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        descriptors = _descriptors(control)
        try:
            if not packet:
                self.close()
                return
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise invalid(f"expected a plan of at most {MAX_OPEN_BYTES} bytes with one descriptor, got more")
            self._open(packet, descriptors)
        except Refusal as refusal:
            self._refuse_open(refusal.status, str(refusal))
        except Exception:
            _log.exception("a plan could not be opened")
            self._refuse_open(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL)
        finally:
            for each in descriptors:
                os.close(each)

    def _open(self, packet: bytes, descriptors: Sequence[int]) -> None:
        plan = read_open(packet)
        if len(descriptors) != 1:
            raise invalid(f"expected one descriptor with the plan, got {len(descriptors)}")
        version = self._registry.find(plan.model, plan.version)
        memory = map_sealed(descriptors[0], limit_bytes=self._owner.memory_room_bytes)
        check_fits_memory(plan, len(memory))
        opened = Opened(plan, memory, version, self.runner)
        self.memory_bytes = len(memory)
        self._owner.opened(self.memory_bytes)
        self._opened = opened
        self._tell_opened(_OK, opened_document(plan, version.name, version.version, version.interface))

    def _refuse_open(self, status: HTTPStatus, message: str) -> None:
        self._tell_opened(status, {"error": message})
        self.close()

    def _tell_opened(self, status: int, document: JsonValue) -> None:
        self._put(opened_packet(status, document))

    # -- requests

    def _read_run(self, opened: Opened) -> bool:
        """Returns whether there was one."""
        try:
            packet = self._recv(_MAX_RUN_BYTES + 1)  # descriptors that come along are closed by the system
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            packet = b""
        if not packet:
            self.close()
            return False
        self._run(opened, packet)
        return True

    def _run(self, opened: Opened, packet: bytes) -> None:
        now_ns = self.last_ns = time.perf_counter_ns()
        sequence = 0
        try:
            size = len(packet)
            if not RUN_HEAD.size <= size <= _MAX_RUN_BYTES:
                raise invalid(f"expected {RUN_HEAD.size} to {_MAX_RUN_BYTES} bytes, got others")
            kind, priority, sequence, timeout_us = RUN_HEAD.unpack_from(packet)
            if kind != _RUN:
                raise invalid(f"expected a request, got kind {kind}; another plan wants another connection")
            if self.busy:
                raise Refusal(HTTPStatus.CONFLICT, "expected one request at a time, the one before is not answered yet")
            version = self._registry.find(opened.plan.model, opened.plan.version)
            if version is not opened.version:
                opened.bind(version)
            opened.take_inputs()
            usual = size == RUN_HEAD.size and not (timeout_us or priority)
            standing = opened.standing
            if usual and standing is not None and (results := standing.run()) is not None:
                self.answer(opened, sequence, results)
                standing.answered(results, now_ns)
            else:
                self._ask(opened, sequence, timeout_us, priority, packet[RUN_HEAD.size :], now_ns)
        except Refusal as refusal:
            if refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                opened.version.traffic.invalid += 1
            self._refuse(sequence, refusal.status, str(refusal))
        except Exception:
            _log.exception("a request failed")
            self._refuse(sequence, HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL)

    def _ask(
        self, opened: Opened, sequence: int, timeout_us: int, priority: int, name: bytes, received_ns: int
    ) -> None:
        asked = opened.request(_text(name), _timeout(timeout_us), priority)
        inference = _FrameInference(self, opened, sequence, asked, received_ns)
        self.busy = True
        try:
            self.runner.submit(inference)
        except Refusal:
            self.busy = False
            raise

    # -- answers, called by inferences

    def answer(self, opened: Opened, sequence: int, results: Sequence[Array]) -> None:
        """Raises Refusal when a result does not fit its place."""
        shapes = opened.give_outputs(results)
        self.busy = False
        self._put(ANSWER_HEAD.pack(_ANSWER, 0, _OK, sequence, opened.version.version) + shapes)

    def refuse(self, sequence: int, status: HTTPStatus, message: str) -> None:
        self.busy = False
        self._refuse(sequence, status, message)

    # -- inside

    def _refuse(self, sequence: int, status: int, message: str) -> None:
        self._put(ANSWER_HEAD.pack(_ANSWER, 0, status, sequence, 0) + message.encode()[:_MAX_ERROR_BYTES])

    def _put(self, packet: bytes) -> None:
        """A client that leaves so many answers unread that the socket is full has gone wrong: it is cut off."""
        if self.closed:
            return
        try:
            self._send(packet)
        except OSError:
            self.close()


class _FrameInference(Inference):
    """An inference whose answer is a packet, and whose outputs go to shared memory."""

    __slots__ = ("_connection", "_opened", "_sequence")

    def __init__(
        self, connection: FrameConnection, opened: Opened, sequence: int, asked: InferRequest, received_ns: int
    ) -> None:
        super().__init__(
            connection.runner, opened.version, asked, size_bytes=opened.plan.input_bytes, received_ns=received_ns
        )
        self._connection = connection
        self._opened = opened
        self._sequence = sequence

    @property
    def abandoned(self) -> bool:
        return self._connection.closed

    def answer(self, results: list[Array]) -> None:
        self._connection.answer(self._opened, self._sequence, results)

    def refuse(self, status: HTTPStatus, message: str) -> None:
        self._connection.refuse(self._sequence, status, message)

    def compute(self) -> list[Array]:
        return self._opened.run(self.version.session)


def _descriptors(control: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def _timeout(timeout_us: int) -> int | None:
    """As `InferRequest` says it: None is the model's budget, 0 no deadline."""
    if timeout_us == 0:
        return None
    if timeout_us == NO_DEADLINE:
        return 0
    if timeout_us > _MAX_TIMEOUT_US:
        raise invalid(f"expected a timeout of at most {_MAX_TIMEOUT_US} µs, got {timeout_us}")
    return timeout_us


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise invalid("expected the id of a request in UTF-8, got other bytes") from None
