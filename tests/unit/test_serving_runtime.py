"""What runs beside the server, and for how long a drain may take."""

from __future__ import annotations

import asyncio

import pytest

from edgeward_agent.errors import PortInUse
from edgeward_agent.serving import runtime
from edgeward_agent.serving.runtime import beside


def test_a_bug_in_what_runs_beside_ends_the_server_and_not_in_silence() -> None:
    async def fails() -> None:
        raise ZeroDivisionError("a bug")

    async def main() -> None:
        async with beside(fails(), "fails"):
            await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(asyncio.wait_for(main(), 10))


def test_what_the_server_raises_itself_stays_what_it_is() -> None:
    async def main() -> None:
        async with beside(asyncio.sleep(10), "sleeps"):
            raise PortInUse("taken")

    with pytest.raises(PortInUse, match="taken"):
        asyncio.run(main())


def test_what_runs_beside_ends_with_the_server() -> None:
    ended: list[str] = []

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("beside")

    async def main() -> None:
        async with beside(goes_on(), "goes on"):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.append("server")

    asyncio.run(main())
    assert ended == ["beside", "server"]


def test_the_front_ends_share_the_time_for_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    drain = runtime._Drain()
    first = drain.left_s
    now_s[0] += first / 2
    assert drain.left_s == first / 2
    now_s[0] += first
    assert drain.left_s == 0
