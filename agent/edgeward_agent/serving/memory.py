"""Memory comes in large pages, and what was freed goes back to the system. What is glibc's alone is here; elsewhere
nothing happens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
_TUNABLES: Final = "GLIBC_TUNABLES"
_HUGE_PAGES: Final = "glibc.malloc.hugetlb"
_ALGEBRA_THREADS: Final = "OPENBLAS_NUM_THREADS"


def serving_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a serving process: huge pages, no threads for algebra; what somebody has set himself stays.

    numpy's OpenBLAS starts a thread for each core but one when it is loaded, and they spin for a while: 90 ms of a
    processor at each start on two cores, beside models that may be answering. Models run in ONNX Runtime, which has
    threads of its own; nothing here multiplies matrices with numpy.
    """
    return {_ALGEBRA_THREADS: "1", **with_huge_pages(environment)}


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to have its heap in pages of 2 MiB, where the system lends them when asked.

    glibc reads it once, at the very start. A model of 14 MB of weights took 1 to 2 % less, and its time depended less
    on where its 4 KiB pages happened to lie; the process grew by 3 MiB. What somebody has set himself stays.
    Source: the GNU C Library's manual, "Memory Allocation Tunables" (since 2.35).
    """
    tunables = [each for each in environment.get(_TUNABLES, "").split(":") if each]
    if not any(each.startswith(f"{_HUGE_PAGES}=") for each in tunables):
        tunables.append(f"{_HUGE_PAGES}=1")
    return {**environment, _TUNABLES: ":".join(tunables)}


def share_one_heap() -> bool:
    """Let all threads of this process allocate from one heap; False where the C library has no say in it.

    Call before the first thread starts. glibc gives threads heaps of their own, and what the loading thread frees in
    its own does not serve the others: after 100 swaps the process was 9 % larger, with one heap it stays as it was.
    The tensors of inferences are not concerned: they come from the runtime's arena.
    """
    option = _function("mallopt")
    return option is not None and option(_M_ARENA_MAX, 1) == 1


def give_back() -> bool:
    """Return what the heap holds free to the system; False where the C library has no way.

    glibc keeps freed memory that is not at the end of the heap: after a model of many small tensors is released, the
    process would stay as large as it was. Whoever allocates meanwhile waits: 1 ms after a model of 5 MB, 2 after 14.
    """
    trim = _function("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


def _function(name: str) -> Callable[..., int] | None:
    """None where the C library has no such function: musl and macOS have neither."""
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)
