"""A unix socket for this user alone, and a task for each of its connections."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from edgeward_agent.errors import ConfigError
from edgeward_agent.listening import check_unix_path, no_file_left

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]
"""Talks on one connection to its end, and closes it."""

_NOT_OWNER: Final = 0o177
_LINE_BYTES: Final = 1 << 16  # what asyncio takes without being told


@asynccontextmanager
async def private_socket(
    path: Path, converse: Converse, *, name: str, limit_bytes: int = _LINE_BYTES, last_words_s: float = 0.0
) -> AsyncIterator[None]:
    """Listen on `path` until the end of the block, which also ends every conversation.

    Args:
        name: of the socket, in the task names and in errors.
        limit_bytes: of a line that `StreamReader.readline` takes.
        last_words_s: for so long those who have hung up are heard to their end, when nothing else has failed.

    Raises:
        ConfigError: no socket can be made there; UnixPathTooLong when its name is why.
    """
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(converse(reader, writer), name=name)
        connections.add(task)
        task.add_done_callback(connections.discard)

    check_unix_path(path)
    try:
        server = await asyncio.start_unix_server(connected, sock=_bind(path), limit=limit_bytes)
    except OSError as error:
        what = f"{name} socket {path}"
        raise no_file_left(what, error) or ConfigError(f"{what}: expected to listen there, got: {error}") from error
    try:
        yield
        server.close()
        if connections and last_words_s:
            await asyncio.wait(connections, timeout=last_words_s)
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        _remove(path)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # left by an agent that was killed; one agent owns the folder
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_NOT_OWNER)  # nobody else may connect in the moment before a chmod
    try:
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _remove(path: Path) -> None:
    with suppress(OSError):  # a disk that says no would be heard in place of what ended the block
        path.unlink()
