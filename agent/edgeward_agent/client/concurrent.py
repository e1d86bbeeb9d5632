"""The client for asyncio: many questions at once over a few connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, cast

from edgeward_agent.client.address import DEFAULT, Ways, checked_timeout
from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.connecting import connect_unix_in_loop
from edgeward_agent.client.dialogue import READY, Dialogue, Request, model_path
from edgeward_agent.client.errors import InvalidAddress, Unreachable
from edgeward_agent.client.forms import NO_FORM, Form
from edgeward_agent.client.http import NotHttp, Response, ResponseReader
from edgeward_agent.client.turns import Turns
from edgeward_agent.client.wish import WishFields, wish_of
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode

if TYPE_CHECKING:
    from edgeward_agent.client.concurrent_frames import AsyncFrames


class AsyncClient:
    """Connections to a server, opened when they are needed. For one event loop; in another it raises InvalidRequest.

    Args:
        address: `http://127.0.0.1:8500`, `unix:/path/of/serving.sock` or `frames:/path/of/frames.sock`.
        timeout_s: for a whole question, from the moment that its turn has come; it waits for that as long at most.
        connections: how many requests may be under way at once; more wait for their turn.
        token: what the agent was configured to ask for on its port.
        http: beside `frames:`, as for `Client`.

    Raises:
        InvalidAddress: the address, the time-out, the token or the number of connections is none.
    """

    def __init__(
        self,
        address: str = DEFAULT,
        *,
        timeout_s: float = 10.0,
        connections: int = 4,
        token: str | None = None,
        http: str | None = None,
    ) -> None:
        ways = Ways.parse(address, http)
        self._address = ways.http
        self._timeout_s = checked_timeout(timeout_s)
        self._dialogue = Dialogue(self._address.text, token=token)
        if not (isinstance(connections, int) and connections > 0):
            raise InvalidAddress(f"expected at least 1 connection, got {connections!r}")
        self._turns = Turns(connections, self._timeout_s)
        self._frames = _frames(ways.frames)
        self._idle: list[_Line] = []
        self._generation = 0  # how often it was closed

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave. Questions that are under way are answered, and their connections end then; the next one opens a new
        connection.

        Raises:
            InvalidRequest: this is another event loop than that of its questions.
        """
        self._turns.check_loop()
        self._generation += 1
        if self._frames is not None:
            self._frames.close()
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # a transport closes on the loop's next turn

    async def infer(
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
        """Run a model; arguments and errors are those of `Client.infer`."""
        wish = wish_of(model, inputs, version, outputs, request_id, capture, deadline_us, priority)
        generation = self._generation  # of when the question was put: it may wait for its turn
        async with self._turns as ends_s:
            if self._frames is None:
                return await self._over_http(generation, ends_s, wish, inputs)
            over_http = partial(self._over_http, generation, ends_s)
            return await self._frames.infer(wish, inputs, generation, ends_s, over_http)

    async def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        """Raises ClientError."""
        return self._dialogue.understand_model(await self._get(model_path(model, version)))

    async def ready(self) -> bool:
        """Whether the server is there and every model that it should have can answer."""
        try:
            return self._dialogue.understand_ready(await self._get(READY))
        except Unreachable:
            return False

    @property
    def plans(self) -> int:
        """How many plans in shared memory wait for a question; what has none goes over HTTP."""
        return self._frames.plans if self._frames is not None else 0

    async def _over_http(self, generation: int, ends_s: float, wish: WishFields, inputs: Mapping[str, Array]) -> Answer:
        form, request = self._dialogue.ask(wish, inputs)
        heard = await self._exchange(request, form, generation, ends_s)
        return heard if isinstance(heard, Answer) else self._dialogue.understand(form, heard)

    async def _get(self, path: str) -> Response:
        request, generation = self._dialogue.get(path), self._generation
        async with self._turns as ends_s:
            heard = await self._exchange(request, NO_FORM, generation, ends_s)
        assert isinstance(heard, Response)
        return heard

    async def _exchange(self, request: Request, form: Form, generation: int, ends_s: float) -> Answer | Response:
        try:
            return await self._ask(request, form, generation, ends_s)
        except TimeoutError as error:
            raise self._unreachable(str(error) or "timed out") from None
        except (OSError, NotHttp) as error:
            raise self._unreachable(str(error) or type(error).__name__) from None

    async def _ask(self, request: Request, form: Form, generation: int, ends_s: float) -> Answer | Response:
        """Ask, and on a new connection when a kept one turns out to be closed; safe, see `Client`."""
        while self._idle:
            try:
                return await self._talk(self._idle.pop(), request, form, ends_s)
            except (BrokenPipeError, ConnectionResetError):
                continue
        return await self._talk(await self._connect(generation, ends_s), request, form, ends_s)

    async def _talk(self, line: _Line, request: Request, form: Form, ends_s: float) -> Answer | Response:
        """Keep the connection for the next question, unless this one was given up: what still comes answers nobody.

        Nor is one kept that was opened before the client was closed: nobody would close it.
        """
        try:
            async with asyncio.timeout_at(ends_s):
                heard = await line.ask(request, form)
        except BaseException:
            line.close()
            raise
        if line.usable and line.generation == self._generation:
            self._idle.append(line)
        else:
            line.close()
        return heard

    async def _connect(self, generation: int, ends_s: float) -> _Line:
        loop, made = asyncio.get_running_loop(), partial(_Line, generation)
        if self._address.path:
            connection = await connect_unix_in_loop(self._address.path, socket.SOCK_STREAM, ends_s)
            _, line = await loop.create_unix_connection(made, sock=connection)
        else:
            async with asyncio.timeout_at(ends_s):
                _, line = await loop.create_connection(made, self._address.host, self._address.port)
        return line

    def _unreachable(self, reason: str) -> Unreachable:
        return Unreachable(f"{self._address.text}: expected an answer, got: {reason}")


def _frames(path: str) -> AsyncFrames | None:
    """Imported only where it is asked for: it rests on what Linux alone has."""
    if not path:
        return None
    from edgeward_agent.client.concurrent_frames import AsyncFrames

    return AsyncFrames(path)


class _Line(asyncio.Protocol):
    """One connection, one question at a time. `generation` is that of the client for whose question it was opened."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._reader = ResponseReader()
        self._form = NO_FORM
        self._waiting: asyncio.Future[Answer | Response] | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer = self._form.recognise(data) if not self._reader.begun else None
        if answer is not None:
            self._tell(answer)
            return
        try:
            response = self._reader.feed(data)
        except NotHttp as error:
            self._fail(error)
            return
        if response is not None:
            self.usable = response.keep_alive
            self._tell(response)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reader.begun:
            self._fail(OSError("the answer was cut short"))
        else:
            self._fail(ConnectionResetError("the connection was closed"))

    async def ask(self, request: Request, form: Form) -> Answer | Response:
        if not self.usable:
            raise ConnectionResetError("the connection was closed")
        self._reader = ResponseReader()
        self._form = form
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.writelines((request,) if isinstance(request, bytes) else request)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        self.usable = False
        self._transport.close()

    def _tell(self, heard: Answer | Response) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(heard)
        else:
            self.usable = False  # an answer that nobody asked for

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
