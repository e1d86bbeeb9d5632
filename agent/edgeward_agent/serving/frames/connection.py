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
from edgeward_agent.serving.frames.memory import map_sealed, sealed_bytes
from edgeward_agent.serving.frames.opened import Opened
from edgeward_agent.serving.frames.plan import check_fits_memory, check_fits_model, opened_document, read_open
from edgeward_agent.serving.frames.run import MAX_RUN_BYTES, USUAL_BEGIN, USUAL_END, read_run, sequence_of
from edgeward_agent.serving.inference import Inference, Runner
from edgeward_agent.serving.patience import Patience
from edgeward_agent.serving.refusal import Refusal, internal_error, invalid
from edgeward_agent.serving.registry import Registry
from edgeward_agent.wire.frames import (
    ANSWER_BEGIN,
    ANSWER_END,
    MAX_OPEN_BYTES,
    SEQUENCE,
    Kind,
    opened_packet,
)
from edgeward_agent.wire.tensors import Array
from edgeward_contract.schema import JsonValue

_log: Final = logging.getLogger(__name__)
_now_ns: Final = time.perf_counter_ns

_ANSWERED: Final = ANSWER_BEGIN.pack(Kind.ANSWER, 0, HTTPStatus.OK)
_NO_VERSION: Final = ANSWER_END.pack(0)
_ONE_TOO_MANY: Final = MAX_RUN_BYTES + 1
_MAX_ERROR_BYTES: Final = 1024
_BEGIN: Final = slice(SEQUENCE.start)
_END: Final = slice(SEQUENCE.stop, None)
_TURN_NS: Final = 4_000_000
"""Who is alone and asks at once is answered without a turn of the loop, for so long; then whoever may have come has
his."""
_FDS: Final = 8  # room for more than may come, so that we see and close them


class Owner(Protocol):
    """The server of a connection."""

    registry: Registry
    runner: Runner

    def room_bytes(self, beside_bytes: int) -> int:
        """How much memory one more client may share that takes so much beside it."""

    def opened(self, memory_bytes: int) -> None:
        """Count memory of a client, until its connection is lost."""

    def lost(self, connection: FrameConnection) -> None:
        """The connection has ended."""


class FrameConnection:
    """Touched on the loop's thread alone; `readable` is called when there is something to read."""

    def __init__(self, owner: Owner, connection: socket.socket) -> None:
        self.socket = connection
        self.closed = False
        self.busy = False
        self.memory_bytes = 0
        self.last_ns = _now_ns()
        self._owner = owner
        self.runner = owner.runner
        self._registry = owner.registry
        self._runs_now = owner.runner.scheduler.runs_now
        self._recv = connection.recv
        self._send = connection.send
        self._opened: Opened | None = None
        self._patience = Patience(connection)

    def readable(self) -> None:
        """Something has come: the plan, or a request."""
        opened = self._opened
        if opened is None:
            self._read_open()
            return
        if not self._read_run(opened):
            return
        if not self._owner.runner.scheduler.callers.alone:
            return
        patience, until_ns = self._patience, self.last_ns + _TURN_NS
        while not (self.busy or self.closed):
            over = self.last_ns > until_ns
            # Where client and server share a core it is here already.
            if not over and self._read_run(opened):
                continue
            if self.closed or not patience.pays() or not patience.wait() or over:  # and then the loop finds it
                return

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
            self._refuse_open(refusal)
        except Exception:
            _log.exception("a plan could not be opened")
            self._refuse_open(internal_error())
        finally:
            for each in descriptors:
                os.close(each)

    def _open(self, packet: bytes, descriptors: Sequence[int]) -> None:
        plan = read_open(packet)
        if len(descriptors) != 1:
            raise invalid(f"expected one descriptor with the plan, got {len(descriptors)}")
        version = self._registry.find(plan.model, plan.version)
        check_fits_model(plan, version.interface)
        # Beside what is shared there is a copy of the inputs that the client cannot reach.
        size = sealed_bytes(descriptors[0], limit_bytes=self._owner.room_bytes(plan.input_bytes))
        check_fits_memory(plan, size)
        opened = Opened(plan, map_sealed(descriptors[0], size), version, self.runner)
        self.memory_bytes = size + plan.input_bytes
        self._owner.opened(self.memory_bytes)
        self._opened = opened
        self._tell_opened(HTTPStatus.OK, opened_document(plan, version.name, version.version, version.interface))

    def _refuse_open(self, refusal: Refusal) -> None:
        self._tell_opened(refusal.status, {"error": str(refusal)})
        self.close()

    def _tell_opened(self, status: int, document: JsonValue) -> None:
        self._put(opened_packet(status, document))

    # -- requests

    def _read_run(self, opened: Opened) -> bool:
        """Returns whether there was one."""
        try:
            packet = self._recv(_ONE_TOO_MANY)  # descriptors that come along are closed by the system
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
        now_ns = self.last_ns = _now_ns()
        try:
            # As one expression and in place: to call for it would take a twentieth of the whole.
            standing, taken = opened.standing, False
            if (
                packet[_BEGIN] == USUAL_BEGIN
                and packet[_END] == USUAL_END
                and standing is not None
                and not self.busy
                and not opened.version.retired
                and self._runs_now(standing.learned)
            ):
                opened.take_inputs()
                taken = True
                results = standing.run(opened.rerun)
                if results is not None:
                    answer = _ANSWERED + packet[SEQUENCE] + opened.give_outputs(results)
                    try:
                        self._send(answer)
                    except OSError:  # as in `_put`
                        self.close()
                    standing.answered(results, now_ns)
                    return
            self._ask(opened, packet, now_ns, taken=taken)
        except Refusal as refusal:
            if refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                opened.version.traffic.invalid += 1
            self._refuse(sequence_of(packet), refusal)
        except Exception:
            _log.exception("a request failed")
            self._refuse(sequence_of(packet), internal_error())

    def _ask(self, opened: Opened, packet: bytes, received_ns: int, *, taken: bool) -> None:
        """Args:
            taken: the inputs are copied already.

        Raises:
            Refusal: it cannot be run.
        """
        wish = read_run(packet)
        if self.busy:
            raise Refusal(HTTPStatus.CONFLICT, "expected one request at a time, the one before is not answered yet")
        version = self._registry.find(opened.plan.model, opened.plan.version)
        if version is not opened.version:
            opened.bind(version)
        if not taken:
            opened.take_inputs()
        asked = opened.request(*wish)
        inference = _FrameInference(self, opened, packet[SEQUENCE], asked, received_ns)
        self.busy = True
        try:
            self.runner.submit(inference)
        except Refusal:
            self.busy = False
            raise

    # -- answers, called by inferences

    def answer(self, opened: Opened, sequence: bytes, results: Sequence[Array]) -> None:
        """Raises Refusal when a result does not fit its place."""
        end = opened.give_outputs(results)
        self.busy = False
        self._put(_ANSWERED + sequence + end)

    def refuse(self, sequence: bytes, status: HTTPStatus, message: str) -> None:
        self.busy = False
        self._refuse(sequence, Refusal(status, message))

    # -- inside

    def _refuse(self, sequence: bytes, refusal: Refusal) -> None:
        begin = ANSWER_BEGIN.pack(Kind.ANSWER, 0, refusal.status)
        self._put(begin + sequence + _NO_VERSION + str(refusal).encode()[:_MAX_ERROR_BYTES])

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
        self, connection: FrameConnection, opened: Opened, sequence: bytes, asked: InferRequest, received_ns: int
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
