"""Bodies that are decompressed beside the loop: who waits too long, or has left, holds up nobody."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from edgeward_agent.serving import codec as codec_module
from edgeward_agent.serving.codec import Codec
from edgeward_agent.serving.exchange import Head, Request
from support.caller import Caller
from support.serving import until

LARGE = gzip.compress(bytes(1 << 20))


def unpack(caller: Caller) -> list[int]:
    """Sizes of the bodies that were handed on."""
    handed: list[int] = []

    async def main() -> None:
        codec = Codec(limit_bytes=2 << 20)
        head = Head(method=b"POST", target=b"/", headers={}, keep_alive=True)
        request = Request(caller, head, LARGE, len(LARGE))
        codec.unpacked(request, b"gzip", lambda request: handed.append(len(request.body)))
        codec._thread.shutdown()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    return handed


def test_a_body_is_handed_on_as_it_was() -> None:
    caller = Caller()
    assert unpack(caller) == [1 << 20]
    assert caller.told == []


def test_who_has_waited_too_long_is_told_when_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_LONGEST_WAIT_NS", -1)
    caller = Caller()
    assert unpack(caller) == []
    ((status, text, fields),) = caller.told
    assert (status, fields) == (503, b"Retry-After: 1\r\n")
    assert b"expected to decompress the body within a second" in text


def test_what_nobody_waits_for_is_not_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr("edgeward_agent.serving.encoding.Inflater.rest", never)
    caller = Caller()
    caller.closed = True
    assert unpack(caller) == []
    assert caller.told == []


def test_many_bombs_hold_up_nobody_for_long() -> None:
    """Each takes tenths of a second; without an end to the wait the last of many came after all of them."""
    bomb = gzip.compress(bytes(64 << 20))
    callers = [Caller() for _ in range(100)]

    async def main() -> None:
        codec = Codec(limit_bytes=(64 << 20) - 1)
        head = Head(method=b"POST", target=b"/", headers={}, keep_alive=True)
        for request in [Request(caller, head, bomb, len(bomb)) for caller in callers]:
            codec.unpacked(request, b"gzip", lambda _: None)
        await until(lambda: all(caller.told for caller in callers))
        codec.close()

    asyncio.run(main())
    statuses = [caller.told[0][0] for caller in callers]
    assert statuses[0] == 413 and statuses[-1] == 503
    assert statuses == sorted(statuses)  # once time is up it is up for all behind
