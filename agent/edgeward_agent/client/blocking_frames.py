"""Shared memory for programs that wait: a connection for each form of question, and HTTP for what has none."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final

from edgeward_agent.client.address import reason
from edgeward_agent.client.answers import Answer
from edgeward_agent.client.connecting import connect_unix
from edgeward_agent.client.errors import ClientError, ServerFailed, Unreachable
from edgeward_agent.client.learnt import Learnt, carried, form_of
from edgeward_agent.client.memory import offer
from edgeward_agent.client.plan import Layout, Plan, PlanOver
from edgeward_agent.client.waits import NEVER, Waits
from edgeward_agent.client.wish import WishFields
from edgeward_agent.wire.frames import MAX_ANSWER_BYTES, MAX_OPEN_BYTES, FrameError
from edgeward_agent.wire.tensors import Array

_log: Final = logging.getLogger(__name__)
MAX_PLANS: Final = 8  # of the 64 connections that a server has for all
NOT_THERE: Final = (FileNotFoundError, ConnectionRefusedError, PermissionError)
"""Nobody listens, or not for us: HTTP may still answer."""
OverHttp = Callable[[WishFields, Mapping[str, Array], float], Answer]


class Frames:
    """The plans of one client."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._learnt = Learnt()
        self._lines: dict[Hashable, _Line] = {}

    @property
    def plans(self) -> int:
        return len(self._lines)

    def close(self) -> None:
        while self._lines:
            self._lines.popitem()[1].close()

    def infer(self, wish: WishFields, inputs: Mapping[str, Array], ends_s: float, over_http: OverHttp) -> Answer:
        """Ask through shared memory where that is known to go, else over HTTP, which shows whether it does.

        Raises:
            ClientError: one of its kinds.
        """
        form, arrays = form_of(wish, inputs)
        if not carried(wish):
            return over_http(wish, inputs, ends_s)
        answer = self._infer(form, wish, arrays, ends_s)
        if answer is None:
            answer = over_http(wish, inputs, ends_s)
            self._learnt.learn(form, arrays, answer)
        return answer

    def _infer(self, form: Hashable, wish: WishFields, arrays: Mapping[str, Array], ends_s: float) -> Answer | None:
        try:
            return self._ask(form, wish, arrays, ends_s)
        except PlanOver:
            self._drop(form)
            return None
        except ClientError:  # the server's answer: the connection goes on
            raise
        except FrameError as error:
            self._drop(form)
            raise ServerFailed(f"frames:{self._path}: expected an answer of the protocol, got: {error}") from None
        except OSError as error:
            self._drop(form)
            raise Unreachable(f"frames:{self._path}: expected an answer, got: {reason(error, ends_s)}") from None
        except BaseException:  # Ctrl-C in the middle: what comes next on this connection answers another question
            self._drop(form)
            raise

    def _ask(self, form: Hashable, wish: WishFields, arrays: Mapping[str, Array], ends_s: float) -> Answer | None:
        """Ask, and once more on a new connection when the kept one turns out to be closed, as over HTTP."""
        line = self._lines.get(form)
        if line is not None:
            try:
                return line.ask(wish, arrays.values(), ends_s)
            except (BrokenPipeError, ConnectionResetError):
                self._drop(form)
        line = self._open(form, wish, arrays, ends_s)
        return line.ask(wish, arrays.values(), ends_s) if line is not None else None

    def _open(self, form: Hashable, wish: WishFields, arrays: Mapping[str, Array], ends_s: float) -> _Line | None:
        now_s = time.monotonic()
        layout = self._learnt.layout(form, wish, arrays, now_s)
        if layout is None:
            return None
        try:
            line = _Line(self._path, layout, self._timeout_s, ends_s)
        except (PlanOver, *NOT_THERE) as error:
            if self._learnt.refused(form, getattr(error, "status", 0), now_s):
                _log.warning("frames:%s: expected a plan that is taken, got: %s. HTTP it is", self._path, error)
            return None
        if len(self._lines) >= MAX_PLANS:
            self._drop(next(iter(self._lines)))
        self._lines[form] = line
        return line

    def _drop(self, form: Hashable) -> None:
        line = self._lines.pop(form, None)
        if line is not None:
            line.close()


class _Line:
    """One plan on one connection."""

    def __init__(self, path: str, layout: Layout, timeout_s: float, ends_s: float) -> None:
        """Raises OSError, PlanOver or FrameError."""
        self._socket = connect_unix(path, socket.SOCK_SEQPACKET, ends_s)
        try:
            self._waits = Waits(self._socket, timeout_s)
            self._waits.begin(ends_s)
            memory = offer(self._socket, layout)
            self._plan = Plan(layout, memory, _packet(self._socket, MAX_OPEN_BYTES))
        except BaseException:
            self._socket.close()
            raise

    def ask(self, wish: WishFields, arrays: Iterable[Array], ends_s: float) -> Answer:
        """Raises OSError, ClientError, PlanOver or FrameError."""
        connection = self._socket
        question = self._plan.question(wish, arrays)
        self._waits.begin(ends_s)
        connection.send(question)
        self._waits.go_on()
        packet = _packet(connection, MAX_ANSWER_BYTES)
        self._waits.ends_s = NEVER
        return self._plan.answer(wish, packet)

    def close(self) -> None:
        self._socket.close()


def _packet(connection: socket.socket, limit_bytes: int) -> bytes:
    packet = connection.recv(limit_bytes)
    if not packet:
        raise ConnectionResetError("the connection was closed")
    return packet
