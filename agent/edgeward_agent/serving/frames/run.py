"""What a packet that asks for a run says. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from edgeward_agent.serving.refusal import invalid
from edgeward_agent.wire.frames import MAX_ID_BYTES, NO_DEADLINE, RUN_HEAD, SEQUENCE, Kind

MAX_RUN_BYTES: Final = RUN_HEAD.size + MAX_ID_BYTES
_RUN: Final = int(Kind.RUN)
_USUAL: Final = RUN_HEAD.pack(_RUN, 0, 0, 0)
USUAL_BEGIN: Final = _USUAL[: SEQUENCE.start]
"""A request without priority, time limit or id is this, its sequence, and `USUAL_END`."""
USUAL_END: Final = _USUAL[SEQUENCE.stop :]
_NO_SEQUENCE: Final = bytes(4)
_MAX_TIMEOUT_US: Final = (1 << 63) - 1


class Wish(NamedTuple):
    """What comes with the inputs. `timeout_us` as in `InferRequest`: None is the model's budget, 0 no deadline."""

    request_id: str
    timeout_us: int | None
    priority: int


def read_run(packet: bytes) -> Wish:
    """Raises Refusal for what is no request."""
    if not RUN_HEAD.size <= len(packet) <= MAX_RUN_BYTES:
        raise invalid(f"expected {RUN_HEAD.size} to {MAX_RUN_BYTES} bytes, got others")
    kind, priority, _, timeout_us = RUN_HEAD.unpack_from(packet)
    if kind != _RUN:
        raise invalid(f"expected a request, got kind {kind}; another plan wants another connection")
    return Wish(_text(packet[RUN_HEAD.size :]), _timeout(timeout_us), priority)


def sequence_of(packet: bytes) -> bytes:
    """As it came; zeros for what is too short, or too long, to be a request."""
    return packet[SEQUENCE] if RUN_HEAD.size <= len(packet) <= MAX_RUN_BYTES else _NO_SEQUENCE


def _timeout(timeout_us: int) -> int | None:
    if timeout_us == 0:
        return None
    if timeout_us == NO_DEADLINE:
        return 0
    if timeout_us > _MAX_TIMEOUT_US:
        raise invalid(f"expected a timeout of at most {_MAX_TIMEOUT_US} µs, got {timeout_us}")
    return timeout_us


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise invalid("expected the id of a request in UTF-8, got other bytes") from None
