"""The client for programs that wait for an answer."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from edgeward_agent.client.address import DEFAULT, Ways, reason
from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.dialogue import READY, Dialogue, Request, WishFields, model_path
from edgeward_agent.client.errors import Unreachable
from edgeward_agent.client.forms import NO_FORM, Form
from edgeward_agent.client.http import NotHttp, Response, ResponseReader
from edgeward_agent.serving.tensors import Array, Buffer
from edgeward_contract.manifest import CaptureMode

if TYPE_CHECKING:
    from edgeward_agent.client.blocking_frames import Frames

_OFF: Final = CaptureMode.OFF
_READ_BYTES: Final = 1 << 16  # from 128 KiB on the C library asks the system for each buffer anew
T = TypeVar("T", bytes, int)


class _Gone(OSError):
    """The server closed the connection before it said anything."""


class Client:
    """A connection to a server, opened when it is needed and again when it was lost. Not to be shared by threads.

    Args:
        address: `http://127.0.0.1:8500`; `unix:/path/of/serving.sock` (quicker, and guarded by the file's mode); or
            `frames:/path/of/frames.sock` (quicker still: tensors lie in memory that is shared; Linux alone).
        timeout_s: for each wait on the network, not for a whole request.
        token: what the agent was configured to ask for on its port.
        http: beside `frames:`, where the same server answers what does not go through shared memory; without it the
            file `serving.sock` in the same folder.

    Raises:
        InvalidRequest: the address is none.
    """

    def __init__(
        self, address: str = DEFAULT, *, timeout_s: float = 10.0, token: str | None = None, http: str | None = None
    ) -> None:
        ways = Ways.parse(address, http)
        self._address = ways.http
        self._timeout_s = timeout_s
        self._dialogue = Dialogue(self._address.text, token=token)
        self._frames = _frames(ways.frames, timeout_s)
        self._socket: socket.socket | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave. The next question opens a new connection."""
        self._hang_up()
        if self._frames is not None:
            self._frames.close()

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
        wish = (model, version, tuple(outputs), request_id, capture, deadline_us, priority)
        if self._frames is not None:
            return self._frames.infer(wish, inputs, self._over_http)
        return self._over_http(wish, inputs)

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

    def _over_http(self, wish: WishFields, inputs: Mapping[str, Array]) -> Answer:
        form, request = self._dialogue.ask(wish, inputs)
        heard = self._exchange(request, form)
        return heard if isinstance(heard, Answer) else self._dialogue.understand(form, heard)

    def _get(self, path: str) -> Response:
        heard = self._exchange(self._dialogue.get(path), NO_FORM)
        assert isinstance(heard, Response)
        return heard

    def _hang_up(self) -> None:
        kept, self._socket = self._socket, None
        if kept is not None:
            kept.close()

    def _exchange(self, request: Request, form: Form) -> Answer | Response:
        try:
            return self._ask(request, form)
        except (OSError, NotHttp) as error:
            self._hang_up()
            raise Unreachable(f"{self._address.text}: expected an answer, got: {reason(error)}") from None
        except BaseException:  # Ctrl-C in the middle: what comes next on this connection answers another question
            self._hang_up()
            raise

    def _ask(self, request: Request, form: Form) -> Answer | Response:
        """Ask, and once more on a new connection when the kept one turns out to be closed, as after a restart of the
        server. Asking twice is safe: an inference changes nothing but the count of its records.
        """
        if self._socket is not None:
            try:
                return self._talk(self._socket, request, form)
            except (BrokenPipeError, ConnectionResetError, _Gone):
                self._hang_up()
        self._socket = self._address.connect(self._timeout_s)
        return self._talk(self._socket, request, form)

    def _talk(self, connection: socket.socket, request: Request, form: Form) -> Answer | Response:
        if isinstance(request, bytes):
            connection.sendall(request)
        else:
            _send_pieces(connection, request)
        data = connection.recv(form.room)
        answer = form.recognise(data)
        if answer is not None:
            return answer
        response = _read_on(connection, data)
        if not response.keep_alive:
            self._hang_up()
        return response


def _frames(path: str, timeout_s: float) -> Frames | None:
    """Imported only where it is asked for: it rests on what Linux alone has."""
    if not path:
        return None
    from edgeward_agent.client.blocking_frames import Frames

    return Frames(path, timeout_s)


def _send_pieces(connection: socket.socket, pieces: Sequence[Buffer]) -> None:
    """One call for all of them, so that head and tensors wake the server once; then what it left over."""
    sent = connection.sendmsg(pieces)
    for piece in pieces:
        if sent < len(piece):
            connection.sendall(memoryview(piece)[sent:])
        sent = max(0, sent - len(piece))


def _read_on(connection: socket.socket, data: bytes) -> Response:
    if not data:
        raise _Gone("the connection was closed")
    reader = ResponseReader()
    response = reader.feed(data)
    while response is None:
        room = reader.room
        if room is None:
            response = reader.feed(_more(connection.recv(_READ_BYTES)))
        else:
            response = reader.filled(_more(connection.recv_into(room)))
    return response


def _more(got: T) -> T:
    if not got:
        raise OSError("the answer was cut short")
    return got
