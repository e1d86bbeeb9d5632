"""The network between devices and fleet, with plugs: every byte of each device goes through a cable of its own.

TLS passes through untouched, so what a device sees when its cable is pulled is what it would see at a clinic.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Final, TypeVar

T = TypeVar("T")
_PIECE_BYTES: Final = 64 * 1024
_PATIENCE_S: Final = 10.0


class Cable:
    """Listens on a port of loopback and passes everything on to the fleet, unless it is unplugged."""

    def __init__(self, cables: Cables, host: str, port: int) -> None:
        self._cables = cables
        self._far = (host, port)
        self._plugged = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    def unplug(self) -> None:
        """Cut what is connected; new connections end at once."""
        self._cables.run(self._set(plugged=False))

    def plug(self) -> None:
        self._cables.run(self._set(plugged=True))

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self._set(plugged=False)
        if self._server is not None:
            self._server.close()

    async def _set(self, *, plugged: bool) -> None:
        self._plugged = plugged
        if not plugged:
            for writer in self._writers:
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass_on(reader, writer)
        except asyncio.CancelledError:  # the end of all; asyncio of Python 3.11 would print it as an error
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._plugged:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._far)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except OSError:
            for end in ends:
                end.transport.abort()
        finally:
            self._writers -= ends
            for end in ends:
                end.close()


class Bundle:
    """Every cable of one device: they are pulled together."""

    def __init__(self, *cables: Cable) -> None:
        self._all = cables

    def unplug(self) -> None:
        for cable in self._all:
            cable.unplug()

    def plug(self) -> None:
        for cable in self._all:
            cable.plug()


class Cables:
    """All cables, driven by one loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cables", daemon=True)
        self._laid: list[Cable] = []

    def __enter__(self) -> Cables:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lay(self, host: str, port: int) -> Cable:
        """A new cable to the fleet at `host` and `port`."""
        cable = Cable(self, host, port)
        self.run(cable.open())
        self._laid.append(cable)
        return cable

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Do `work` on the loop of the cables and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    async def _close(self) -> None:
        for cable in self._laid:
            await cable.close()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
