"""Memory that was freed goes back to the system. What is glibc's alone is here."""

from __future__ import annotations

import sys


def give_back() -> bool:
    """Return what the heap holds free to the system; False where the C library has no way.

    glibc keeps freed memory that is not at the end of the heap: after a model of many small tensors is released, the
    process would stay as large as it was. The call releases the interpreter's lock; nobody waits for it.
    """
    if sys.platform != "linux":
        return False
    import ctypes  # not needed before the first version is released

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is None:
        return False
    trim(0)
    return True
