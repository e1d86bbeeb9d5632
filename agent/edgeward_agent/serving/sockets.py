"""Listening sockets that this process was given: the control process opens them, so that a restart refuses nobody."""

from __future__ import annotations

import socket
from typing import Final

from edgeward_agent.errors import ConfigError

BACKLOG: Final = 1024


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
