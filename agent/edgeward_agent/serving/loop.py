"""The event loop: uvloop where there is one, and what differs between systems and versions of Python."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")


def run(main: Coroutine[None, None, T]) -> T:
    """Run a program to its end."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def stop_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, and a terminal that is closed, unless that is to be outlived (nohup)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        else:
            loop.add_signal_handler(number, stop.set)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop


async def serve_unix(factory: Callable[[], asyncio.Protocol], listener: socket.socket, backlog: int) -> asyncio.Server:
    """Accept from a unix socket whose file stays: its next process listens there too. Python 3.13 would remove it."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 13):
        return await loop.create_unix_server(factory, sock=listener, backlog=backlog, cleanup_socket=False)
    return await loop.create_unix_server(factory, sock=listener, backlog=backlog)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # not on Windows
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
