"""The sockets on which a device answers. The control process opens them and the serving process inherits them.

So a restart of the serving process refuses nobody: connections wait in the backlog, which outlives it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from edgeward_agent.addresses import host_and_port, is_loopback
from edgeward_agent.errors import ConfigError, PortInUse

FRAMES_WORK: Final = sys.platform == "linux"
"""Elsewhere there are no memory files whose size can be sealed."""
_BACKLOG: Final = 512
_GROUP_TOO: Final = 0o660
_MAX_UNIX_PATH_BYTES: Final = 107  # unix(7): sun_path has 108 bytes, the last is the end mark


class UnixPathTooLong(ConfigError):
    """The operating system has no room for the path of a socket."""

    hint = "Choose a shorter --state-dir, or a shorter serving.unix."


class OpenToAll(ConfigError):
    """Other machines could ask, and nobody would know who they are."""

    hint = (
        "Make a token with `edgeward-agent token new` and name it (serving.token_file, or --token-file), or serve on"
        " 127.0.0.1. Where the network itself is guarded: serving.without_token = true, or --without-token."
    )


class CannotListen(ConfigError):
    """The operating system gives no socket at that address."""

    hint = (
        "Choose an address of this machine with --http or --unix, or in agent.toml with serving.http or serving.unix."
    )


class NoFileLeft(ConfigError):
    """The disk takes no new name. A socket needs nothing else of it, and a disk without one may have gigabytes."""

    hint = "Free some files on this disk; `df -i` shows how many more it takes."


class GrpcMissing(ConfigError):
    """gRPC is asked for, and the library is not installed."""

    hint = "Install it: pip install 'edgeward[agent,grpc]'; or leave out --grpc, and serving.grpc in agent.toml."


def check_unix_path(path: Path) -> None:
    """Raises UnixPathTooLong."""
    size = len(bytes(path))
    if size > _MAX_UNIX_PATH_BYTES:
        raise UnixPathTooLong(f"{path}: expected a socket path of at most {_MAX_UNIX_PATH_BYTES} bytes, got {size}")


def listen_tcp(address: str) -> socket.socket:
    """Listen on `HOST:PORT`; port 0 takes a free one. Raises PortInUse, ConfigError."""
    family, where = _tcp_address(address, "serving.http")
    try:
        return socket.create_server(where, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _refused(address, error) from None


def reserve_grpc(address: str) -> socket.socket:
    """Take `HOST:PORT` for gRPC, which opens its own socket there and cannot be given one; port 0 takes a free one.

    The socket that is returned does not listen. As long as it is open, nobody can listen there but gRPC of this user,
    who shares it (SO_REUSEPORT): the port stays ours while no serving process runs.

    Raises GrpcMissing, PortInUse, ConfigError.
    """
    if not (_installed("grpc") and _installed("google.protobuf")):
        raise GrpcMissing(f"gRPC on {address}: expected the packages grpcio and protobuf, found them not installed")
    family, where = _tcp_address(address, "serving.grpc")
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        if where[1]:  # another agent of this user shares its port too: to listen alone finds whoever has it
            socket.create_server(where, family=family).close()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # not SO_REUSEADDR: that lets anybody in
        reserved.bind(where)
    except OSError as error:
        reserved.close()
        raise _refused(address, error) from None
    return reserved


def listen_unix(path: Path, *, group: str = "", mode: int = _GROUP_TOO) -> socket.socket:
    """Listen on a unix socket that its group may use; a socket that nobody serves any more is replaced.

    Others may pass through a folder that is made for it, since the socket itself says who may connect. Only the folder
    that it lies in is made: whoever has to make more has mistyped the path.

    Args:
        group: of the socket; empty is the group of this process.
        mode: of the socket's file; who may write to it may connect.

    Raises PortInUse, UnixPathTooLong, ConfigError.
    """
    return _listen_at(path, socket.SOCK_STREAM, group, mode)


def listen_frames(path: Path, *, group: str = "", mode: int = _GROUP_TOO) -> socket.socket:
    """The same for packets (docs/spec/frames.md)."""
    return _listen_at(path, socket.SOCK_SEQPACKET, group, mode)


def _listen_at(path: Path, kind: socket.SocketKind, group: str, mode: int) -> socket.socket:
    check_unix_path(path)
    gid = _group_id(group) if group else None
    if _answers(path, kind):
        raise PortInUse(f"{path}: expected a free address, found somebody listening")
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        _make_folder(path.parent)
        _remove_socket(path)
        listener.bind(str(path))  # nobody can connect before `listen`, whatever the mode
        if gid is not None:
            _give(path, gid, group)
        path.chmod(mode)
        listener.listen(_BACKLOG)
    except ConfigError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise _refused(str(path), error) from None
    return listener


def bound_address(listener: socket.socket) -> str:
    """`127.0.0.1:8500`, with the port that was taken."""
    name = listener.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def exposure(address: str, *, token: bool = False) -> str:
    """A warning when others than this machine can reach the address; empty when they cannot."""
    if not _reachable(address):
        return ""
    if token:
        return (
            f"serving on {address}: token and answers go over the network as they are; anybody on the way can read them"
        )
    return f"serving on {address}: everyone who reaches this machine can ask its models; there is no password"


def check_exposed(address: str, *, token: bool, without_token: bool) -> None:
    """Other machines may ask only with a token, or where somebody has said that they need none.

    Raises OpenToAll.
    """
    if _reachable(address) and not (token or without_token):
        raise OpenToAll(f"serving on {address}: expected a token, since other machines reach it, found none configured")


def _reachable(address: str) -> bool:
    try:
        return bool(address) and not is_loopback(host_and_port(address)[0])
    except ValueError:  # who listens there says what is wrong with it
        return False


def _tcp_address(address: str, setting: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        host, port = host_and_port(address)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)


def _installed(package: str) -> bool:
    """Without importing it: that takes memory, and the control process has no use for it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask


def _remove_socket(path: Path) -> None:
    """Raises CannotListen: what is there is no socket, and not ours to take away."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"{path}: expected a free path or an old socket, found something else there")
        path.unlink()


def _group_id(name: str) -> int:
    import grp  # not on Windows

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"serving.unix_group: expected a group of this machine, got '{name}'") from None


def _give(path: Path, gid: int, group: str) -> None:
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        raise ConfigError(
            f"serving.unix_group: expected a group that the agent's user is a member of, got '{group}'"
        ) from None


def _answers(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def no_file_left(where: str, error: OSError) -> NoFileLeft | None:
    """The error of a socket for whose name the disk has no room; None when it failed for another reason."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return NoFileLeft(f"{where}: expected a disk that takes one more file, got: {(error.strerror or '').lower()}")


def _refused(where: str, error: OSError) -> PortInUse | ConfigError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{where}: expected a free address, found it in use")
    if lack := no_file_left(where, error):
        return lack
    return CannotListen(f"{where}: cannot listen there: {(error.strerror or str(error)).lower()}")
