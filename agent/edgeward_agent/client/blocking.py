"""The client for programs that wait for an answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

from edgeward_agent.client.address import DEFAULT, Ways, checked_timeout, reason
from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.dialogue import READY, Dialogue, Request, model_path
from edgeward_agent.client.errors import Unreachable
from edgeward_agent.client.forms import NO_FORM, Form
from edgeward_agent.client.http import NotHttp, Response, ResponseReader
from edgeward_agent.client.waits import NEVER, Waits
from edgeward_agent.client.wish import WishFields, wish_of
from edgeward_agent.wire.tensors import Array, Buffer
from edgeward_contract.manifest import CaptureMode

if TYPE_CHECKING:
    from edgeward_agent.client.blocking_frames import Frames

_OFF: Final = CaptureMode.OFF
_MOMENT_S: Final = 0.05
_READ_BYTES: Final = 1 << 16  # from 128 KiB on the C library asks the system for each buffer anew
T = TypeVar("T", bytes, int)


class _Gone(OSError):
    """The server closed the connection before it said anything."""


class Client:
    """A connection to a server, opened when it is needed and again when it was lost.

    Threads that share one take turns, so one for each is quicker. A process that is forked off connects anew.

    Args:
        address: `http://127.0.0.1:8500`; `unix:/path/of/serving.sock` (quicker, and guarded by the file's mode); or
            `frames:/path/of/frames.sock` (quicker still: tensors lie in memory that is shared; Linux alone).
        timeout_s: for a whole question, from the moment that its turn has come.
        token: what the agent was configured to ask for on its port.
        http: beside `frames:`, where the same server answers what does not go through shared memory; without it the
            file `serving.sock` in the same folder.

    Raises:
        InvalidAddress: the address, the time-out or the token is none.
    """

    def __init__(
        self, address: str = DEFAULT, *, timeout_s: float = 10.0, token: str | None = None, http: str | None = None
    ) -> None:
        ways = Ways.parse(address, http)
        self._address = ways.http
        self._timeout_s = checked_timeout(timeout_s)
        self._dialogue = Dialogue(self._address.text, token=token)
        self._frames = _frames(ways.frames, self._timeout_s)
        self._line: _Line | None = None
        self._leaving = False
        self._turn = threading.Lock()
        _clients.add(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave: now, or after the question that is under way. The next one opens a new connection."""
        self._leaving = True
        turn = self._turn
        if turn.acquire(timeout=_MOMENT_S):  # who has it only needs to give it back, or leaves when he does
            self._end(turn)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        capture: CaptureMode = _OFF,
        deadline_us: int = 0,
        priority: int = 0,
    ) -> Answer:
        """Run a model.

        Args:
            inputs: arrays by input name; text as an array of str.
            version: a version that is in memory; without it the one that answers now.
            outputs: names of those wanted; all without it.
            capture: asks for more recording than the release does; DURABLE returns after the commit.
            deadline_us: an answer that cannot be there by then is refused at once; 0 leaves it to the model's budget.
            priority: 1 goes before the others.

        Raises:
            ClientError: one of its kinds, see there.
        """
        wish = wish_of(model, inputs, version, outputs, request_id, capture, deadline_us, priority)
        turn = self._turn  # this one is given back, also where a fork has put another in its place
        if not turn.acquire(False):
            self._wait_for(turn)
        try:
            ends_s = time.monotonic() + self._timeout_s
            if self._frames is not None:
                return self._frames.infer(wish, inputs, ends_s, self._over_http)
            return self._over_http(wish, inputs, ends_s)
        finally:
            self._end(turn)

    def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        """Raises ClientError."""
        return self._dialogue.understand_model(self._get(model_path(model, version)))

    def ready(self) -> bool:
        """Whether the server is there and every model that it should have can answer."""
        try:
            return self._dialogue.understand_ready(self._get(READY))
        except Unreachable:
            return False

    @property
    def plans(self) -> int:
        """How many forms of question have a plan in shared memory now; what has none goes over HTTP."""
        return self._frames.plans if self._frames is not None else 0

    def _over_http(self, wish: WishFields, inputs: Mapping[str, Array], ends_s: float) -> Answer:
        form, request = self._dialogue.ask(wish, inputs)
        heard = self._exchange(request, form, ends_s)
        return heard if isinstance(heard, Answer) else self._dialogue.understand(form, heard)

    def _get(self, path: str) -> Response:
        turn = self._turn
        self._wait_for(turn)
        try:
            heard = self._exchange(self._dialogue.get(path), NO_FORM, time.monotonic() + self._timeout_s)
        finally:
            self._end(turn)
        assert isinstance(heard, Response)
        return heard

    def _wait_for(self, turn: threading.Lock) -> None:
        """One question at a time: two on one connection would take each other's answers."""
        if not turn.acquire(timeout=self._timeout_s):
            raise Unreachable(f"expected a turn within {self._timeout_s:g} s, another question on this client has it")

    def _end(self, turn: threading.Lock) -> None:
        try:
            if self._leaving:
                self._leaving = False
                self._leave()
        finally:
            turn.release()

    def _leave(self) -> None:
        self._hang_up()
        if self._frames is not None:
            self._frames.close()

    def _part(self) -> None:
        """In a forked process: the connections go on in the other, whose answers would come to both."""
        self._turn = threading.Lock()
        self._leave()

    def _hang_up(self) -> None:
        kept, self._line = self._line, None
        if kept is not None:
            kept.close()

    def _exchange(self, request: Request, form: Form, ends_s: float) -> Answer | Response:
        try:
            heard = self._ask(request, form, ends_s)
        except (OSError, NotHttp) as error:
            self._hang_up()
            raise Unreachable(f"{self._address.text}: expected an answer, got: {reason(error, ends_s)}") from None
        except BaseException:  # Ctrl-C in the middle: what comes next on this connection answers another question
            self._hang_up()
            raise
        if heard.__class__ is Response and not heard.keep_alive:
            self._hang_up()
        return heard

    def _ask(self, request: Request, form: Form, ends_s: float) -> Answer | Response:
        """Ask, and once more on a new connection when the kept one turns out to be closed, as after a restart of the
        server. Asking twice is safe: an inference changes nothing but the count of its records.
        """
        if self._line is not None:
            try:
                return self._line.ask(request, form, ends_s)
            except (BrokenPipeError, ConnectionResetError, _Gone):
                self._hang_up()
        self._line = _Line(self._address.connect(ends_s), self._timeout_s)
        return self._line.ask(request, form, ends_s)


_clients: Final[WeakSet[Client]] = WeakSet()


def _part_all() -> None:
    for client in tuple(_clients):
        client._part()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_part_all)


def _frames(path: str, timeout_s: float) -> Frames | None:
    """Imported only where it is asked for: it rests on what Linux alone has."""
    if not path:
        return None
    from edgeward_agent.client.blocking_frames import Frames

    return Frames(path, timeout_s)


class _Line:
    """One connection, one question at a time."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._socket = connection
        self._waits = Waits(connection, timeout_s)

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: Request, form: Form, ends_s: float) -> Answer | Response:
        """Raises OSError or NotHttp."""
        self._waits.begin(ends_s)
        if isinstance(request, bytes):
            sent = self._socket.send(request)
            if sent < len(request):
                self._send_rest((request,), sent)
        else:  # in one call, so that head and tensors wake the server once
            self._send_rest(request, self._socket.sendmsg(request))
        self._waits.go_on()
        data = self._socket.recv(form.room)
        heard: Answer | Response | None = form.recognise(data)
        if heard is None:
            heard = self._read_on(data)
        self._waits.ends_s = NEVER
        return heard

    def _send_rest(self, pieces: Sequence[Buffer], sent: int) -> None:
        """What the first call has left over."""
        for piece in pieces:
            size = len(piece)
            while sent < size:
                self._waits.go_on()
                sent += self._socket.send(memoryview(piece)[sent:])
            sent -= size

    def _read_on(self, data: bytes) -> Response:
        if not data:
            raise _Gone("the connection was closed")
        reader = ResponseReader()
        response = reader.feed(data)
        while response is None:
            self._waits.go_on()
            room = reader.room
            if room is None:
                response = reader.feed(_more(self._socket.recv(_READ_BYTES)))
            else:
                response = reader.filled(_more(self._socket.recv_into(room)))
        return response


def _more(got: T) -> T:
    if not got:
        raise OSError("the answer was cut short")
    return got
