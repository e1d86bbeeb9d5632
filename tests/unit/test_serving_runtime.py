"""What runs beside the server, and for how long a drain may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

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


def test_the_front_ends_drain_at_the_same_time_and_once() -> None:
    drained: list[tuple[str, float]] = []

    async def main() -> None:
        drain, met = runtime._Drain(), asyncio.Barrier(2)

        def ends(name: str) -> Callable[[float], Coroutine[None, None, None]]:
            async def end(timeout_s: float) -> None:
                await met.wait()
                drained.append((name, timeout_s))

            return end

        drain.add(ends("http"))
        drain.add(ends("frames"))
        async with asyncio.timeout(5):
            await drain.all()
            await drain.all()

    asyncio.run(main())
    assert sorted(drained) == [("frames", runtime._DRAIN_S), ("http", runtime._DRAIN_S)]
