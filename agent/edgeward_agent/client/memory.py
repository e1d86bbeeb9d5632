"""Memory that is shared with a server: a file without a name, whose size nobody can change. Linux alone."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from typing import Final

from edgeward_agent.client.plan import Layout
from edgeward_agent.wire.frames import open_packet

# The server would be ended by a page that its owner has cut off, so it takes no file without these.
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def offer(connection: socket.socket, layout: Layout) -> mmap.mmap:
    """Make the memory of a plan and hand it over with the plan; the server's answer is yet to be received.

    The memory outlives the connection and the server. Raises OSError.
    """
    descriptor = os.memfd_create("edgeward-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, layout.memory_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        memory = mmap.mmap(descriptor, layout.memory_bytes)
        socket.send_fds(connection, [open_packet(layout.document)], [descriptor])
    finally:
        os.close(descriptor)
    return memory
