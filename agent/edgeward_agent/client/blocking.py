"""The client for programs that wait for an answer."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

from edgeward_agent.client.address import DEFAULT, Address
from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.dialogue import READY, Dialogue, Wish, model_path
from edgeward_agent.client.errors import Unreachable
from edgeward_agent.client.http import NotHttp, Response, ResponseReader
from edgeward_agent.serving.tensors import Array, Buffer
from edgeward_contract.manifest import CaptureMode

_READ_BYTES: Final = 1 << 18
_JOIN_BELOW_BYTES: Final = 1 << 16


class _Gone(OSError):
    """The server closed the connection before it said anything."""


class Client:
    """A connection to a server, opened when it is needed and again when it was lost. Not to be shared by threads.

    Args:
        address: `http://127.0.0.1:8500`, or `unix:/path/of/the.sock` (quicker, and guarded by the file's mode).
        timeout_s: for each wait on the network, not for a whole request.
        token: what the agent was configured to ask for on its port.

    Raises:
        InvalidRequest: the address is none.
    """

    def __init__(self, address: str = DEFAULT, *, timeout_s: float = 10.0, token: str | None = None) -> None:
        self._address = Address.parse(address)
        self._timeout_s = timeout_s
        self._dialogue = Dialogue(address, token=token)
        self._socket: socket.socket | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave. The next question opens a new connection."""
        kept, self._socket = self._socket, None
        if kept is not None:
            kept.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        capture: CaptureMode = CaptureMode.OFF,
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
        wish = Wish(
            model=model,
            version=version,
            outputs=tuple(outputs),
            request_id=request_id,
            capture=capture,
            deadline_us=deadline_us,
            priority=priority,
        )
        return self._dialogue.understand(self._exchange(self._dialogue.ask(wish, inputs)))

    def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        """Raises ClientError."""
        return self._dialogue.understand_model(self._exchange(self._dialogue.get(model_path(model, version))))

    def ready(self) -> bool:
        """Whether the server is there and every model that it should have can answer."""
        try:
            return self._dialogue.understand_ready(self._exchange(self._dialogue.get(READY)))
        except Unreachable:
            return False

    def _exchange(self, request: Sequence[Buffer]) -> Response:
        try:
            return self._ask(request)
        except (OSError, NotHttp) as error:
            self.close()
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{self._address.text}: expected an answer, got: {reason}") from None
        except BaseException:  # Ctrl-C in the middle: what comes next on this connection answers another question
            self.close()
            raise

    def _ask(self, request: Sequence[Buffer]) -> Response:
        """Ask, and once more on a new connection when the kept one turns out to be closed, as after a restart of the
        server. Asking twice is safe: an inference changes nothing but the count of its records.
        """
        if self._socket is not None:
            try:
                return self._talk(self._socket, request)
            except (BrokenPipeError, ConnectionResetError, _Gone):
                self.close()
        self._socket = self._address.connect(self._timeout_s)
        return self._talk(self._socket, request)

    def _talk(self, connection: socket.socket, request: Sequence[Buffer]) -> Response:
        _send(connection, request)
        response = _receive(connection)
        if not response.keep_alive:
            self.close()
        return response


def _send(connection: socket.socket, request: Sequence[Buffer]) -> None:
    if sum(map(len, request)) < _JOIN_BELOW_BYTES:
        connection.sendall(b"".join(request))
        return
    for part in request:
        connection.sendall(part)


def _receive(connection: socket.socket) -> Response:
    reader = ResponseReader()
    while True:
        data = connection.recv(max(_READ_BYTES, reader.missing))
        if not data:
            raise _Gone("the connection was closed") if not reader.begun else OSError("the answer was cut short")
        response = reader.feed(data)
        if response is not None:
            return response
