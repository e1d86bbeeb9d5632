"""How a thread is scheduled, as the system tells it."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

import pytest

_SCHED_GETATTR: Final = {"x86_64": 315, "aarch64": 275}
_SCHED_ATTR: Final = struct.Struct("<IIQiIQQQ")


def turn(thread: int = 0) -> tuple[int, int, int]:
    """Policy, nice and length of a turn in ns of a thread; 0 is this one."""
    call = _SCHED_GETATTR.get(os.uname().machine)
    told = ctypes.create_string_buffer(_SCHED_ATTR.size)
    if call is None or ctypes.CDLL(None).syscall(call, thread, told, _SCHED_ATTR.size, 0) != 0:
        pytest.skip("the system does not tell here")
    _, policy, _, nice, _, turn_ns, _, _ = _SCHED_ATTR.unpack(told.raw)
    return policy, nice, turn_ns


def turns_are_known() -> bool:
    """Whether this kernel lets a thread say how long its turns are: Linux 6.12 and later."""
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 12)
