"""The frames socket: who may connect, how many, how much memory, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import struct
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.serving.frames.connection import FrameConnection
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.registry import Registry
from edgeward_agent.wire.frames import opened_packet

_log: Final = logging.getLogger(__name__)

_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h, since Linux 4.13
_MAX_OPTION_BYTES: Final = 1024  # of socket.getsockopt
_GID_BYTES: Final = 4
_POLL_S: Final = 0.01
_REST_S: Final = 0.5


class FrameLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client, and all together, may take. Sizes in bytes, times in seconds."""

    connections: int = 64
    memory_bytes: int = 128 << 20  # that one client shares
    all_memory_bytes: int = 512 << 20  # of all, with the copies of their inputs
    open_s: float = 5.0  # from the connection to its plan
    idle_s: float = 600.0


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use a socket: what the mode of its file says, held again to the one who has connected."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, listener: socket.socket) -> Access:
        """Of the superuser and ourselves alone when the file is gone."""
        try:
            found = Path(listener.getsockname()).stat()
        except OSError:
            return cls(uid=os.geteuid(), gid=os.getegid(), mode=0)
        return cls(uid=found.st_uid, gid=found.st_gid, mode=found.st_mode)

    def allows(self, uid: int, gids: frozenset[int]) -> bool:
        """The superuser and this process' own user always may."""
        if uid in (0, os.geteuid()):
            return True
        if uid == self.uid:
            return bool(self.mode & stat.S_IWUSR)
        return bool(self.mode & (stat.S_IWGRP if self.gid in gids else stat.S_IWOTH))


class FrameServer:
    """Accepts from a listening SOCK_SEQPACKET socket. Touched on the loop's thread alone."""

    def __init__(self, registry: Registry, runner: Runner, limits: FrameLimits | None = None) -> None:
        self.registry = registry
        self.runner = runner
        self.limits = limits or FrameLimits()
        self.connections: set[FrameConnection] = set()
        self._listeners: dict[socket.socket, Access] = {}
        self._taken_bytes = 0

    def listen(self, listener: socket.socket) -> None:
        """Accept from now on. The socket stays its owner's."""
        listener.setblocking(False)
        access = Access.of(listener)
        self._listeners[listener] = access
        self._watch(listener, access)

    # -- called by connections

    def room_bytes(self, beside_bytes: int) -> int:
        return min(self.limits.memory_bytes, self.limits.all_memory_bytes - self._taken_bytes - beside_bytes)

    def opened(self, memory_bytes: int) -> None:
        self._taken_bytes += memory_bytes

    def lost(self, connection: FrameConnection) -> None:
        asyncio.get_running_loop().remove_reader(connection.socket)
        self.connections.remove(connection)
        self.runner.scheduler.callers.left()
        self._taken_bytes -= connection.memory_bytes

    # -- time

    async def keep_time(self) -> None:
        """Close connections that bring no plan, or have not asked for long."""
        limits = self.limits
        while True:
            await asyncio.sleep(min(1.0, limits.open_s / 2, limits.idle_s / 2))
            now_ns = time.perf_counter_ns()
            for each in tuple(self.connections):
                allowed_s = limits.idle_s if each.memory_bytes else limits.open_s
                if not each.busy and now_ns - each.last_ns > allowed_s * 1e9:
                    each.close()

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, answer what has been asked, then close."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
        self._listeners.clear()
        for each in tuple(self.connections):
            if each.busy:
                loop.remove_reader(each.socket)  # what it asks after this is not answered here
            else:
                each.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(each.busy for each in self.connections):  # noqa: ASYNC110  # once, at the end
                    await asyncio.sleep(_POLL_S)
        for each in tuple(self.connections):
            each.close()

    # -- inside

    def _watch(self, listener: socket.socket, access: Access) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, access)

    def _rest(self, listener: socket.socket, access: Access) -> None:
        """A listener that cannot be served stays readable: to look on would take the whole loop."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(_REST_S, self._watch, listener, access)

    def _accept(self, listener: socket.socket, access: Access) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # gone again
            return
        except OSError as error:  # no descriptor left, mostly: the backlog keeps the rest
            _log.error("no frames connection can be accepted for now: %s", error.strerror)
            self._rest(listener, access)
            return
        accepted.setblocking(False)
        uid, gids = _peer(accepted)
        if not access.allows(uid, gids):
            _log.warning("refused a frames connection of user %d", uid)
            _turn_away(accepted, HTTPStatus.FORBIDDEN, "expected a user who may ask here, got another")
        elif len(self.connections) >= self.limits.connections:
            message = f"expected at most {self.limits.connections} connections, all are taken"
            _turn_away(accepted, HTTPStatus.SERVICE_UNAVAILABLE, message)
        else:
            connection = FrameConnection(self, accepted)
            self.connections.add(connection)
            self.runner.scheduler.callers.came()
            asyncio.get_running_loop().add_reader(accepted, connection.readable)


def _turn_away(accepted: socket.socket, status: HTTPStatus, message: str) -> None:
    with accepted, suppress(OSError):
        accepted.send(opened_packet(status, {"error": message}))


def _peer(connection: socket.socket) -> tuple[int, frozenset[int]]:
    """User and groups of who has connected, as the system knew them then."""
    _, uid, gid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION_BYTES)
    except OSError:  # in more groups than Python can be told: only the first counts
        more = b""
    return uid, frozenset({gid, *struct.unpack(f"{len(more) // _GID_BYTES}I", more)})
