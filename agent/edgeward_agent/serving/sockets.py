"""Listening sockets of the serving process that nobody else opens: inherited ones, and the private control socket.

Those for clients are opened in `edgeward_agent.listening`, by the control process, so that a restart refuses nobody.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from edgeward_agent.errors import ConfigError, PortInUse

BACKLOG: Final = 1024
_NOT_OWNER: Final = 0o177
_MAX_UNIX_PATH_BYTES: Final = 107  # unix(7): sun_path has 108 bytes, the last is the end mark


def open_control(path: Path) -> socket.socket:
    """Listen for commands, for the owner alone. A socket that a killed process left behind is replaced.

    Raises:
        ConfigError: the path is too long for a socket, or cannot be written.
        PortInUse: another serving process listens there.
    """
    if len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        raise ConfigError(f"{path}: expected a socket path of at most {_MAX_UNIX_PATH_BYTES} bytes, got a longer one")
    if path.is_socket() and _answers(path):
        raise PortInUse(f"{path}: expected a free address, another process listens there")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(_NOT_OWNER)  # for nobody else, not even between bind and chmod
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: expected a path for a socket, got: {error.strerror}") from None
    finally:
        os.umask(mask)
    return listener


def inherit(descriptor: int) -> socket.socket:
    """A listening socket that the starter of this process holds open.

    Raises:
        ConfigError: the descriptor is no listening socket.
    """
    try:
        listener = socket.socket(fileno=descriptor)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"expected a listening socket as descriptor {descriptor}, got: {error.strerror}") from None
    if not listening:
        raise ConfigError(f"expected a listening socket as descriptor {descriptor}, got another kind")
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
