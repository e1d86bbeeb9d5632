"""A device whose disk is full: run in a process of its own, because it needs a small disk or a limit of its own.

Usage: python outbox_full_disk.py fills|crowded|limited FOLDER, where FOLDER is on a disk of 4 MiB (`limited`: any).
Ends with status 0 when everything held; an assertion names what did not.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from edgeward_agent.errors import OutboxFull
from edgeward_agent.outbox.model import StoreOptions
from edgeward_agent.outbox.store import Store, open_store
from support.outbox import DEVICE, accept, draft, number_of

OPTIONS = StoreOptions(max_bytes=64 << 20, ballast_bytes=512 << 10)
NO_BALLAST = StoreOptions(max_bytes=64 << 20, ballast_bytes=0)


async def fill(store: Store, first: int) -> list[int]:
    """Append until there is no room; the numbers that are safe."""
    safe: list[int] = []
    with suppress(OutboxFull):
        for number in count(first):
            await store.append([draft(number, padding=3000)])
            safe.append(number)
    return safe


async def drain(store: Store) -> list[int]:
    """Deliver everything."""
    numbers: list[int] = []
    while batch := await store.head(limit_records=40):
        numbers += [number_of(record) for record in batch.records]
        assert (await store.apply(accept(batch))).removed == len(batch.records)
    return numbers


async def fills(folder: Path) -> None:
    """The outbox itself fills the disk, twice, with a restart on the full disk in between."""
    async with open_store(folder, device=DEVICE, options=OPTIONS) as store:
        safe = await fill(store, 0)
        assert len(safe) > 300, len(safe)
        assert "outbox_full" in (await store.stats()).alarms
    async with open_store(folder, device=DEVICE, options=OPTIONS) as store:
        assert (await store.stats()).alarms == (), "a full disk is no damage"
        safe += await fill(store, 10_000)
        assert await drain(store) == safe
        await store.maintain()
        again = await fill(store, 20_000)
        assert len(again) > 300, f"the room did not come back: {len(again)}"
        assert await drain(store) == again


async def crowded(folder: Path) -> None:
    """Something else takes the last byte of the disk while records wait."""
    async with open_store(folder, device=DEVICE, options=OPTIONS) as store:
        safe = [number for number in range(100) if await store.append([draft(number, padding=3000)])]
        crowd = folder / "someone-elses.log"
        await asyncio.to_thread(_take_the_rest, crowd)
        more = await fill(store, 1000)
        assert len(more) < 400
        assert await drain(store) == safe + more, "a full disk could not be emptied"
        await asyncio.to_thread(crowd.unlink)
        await store.maintain()
        await store.append([draft(6000)])
        assert await drain(store) == [6000]
        assert (await store.stats()).alarms == ()


async def limited(folder: Path) -> None:
    """No file may grow beyond 2 MiB, until it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with open_store(folder, device=DEVICE, options=NO_BALLAST) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
        safe = await fill(store, 0)
        assert len(safe) > 100
        assert (await store.stats()).alarms == ("outbox_unwritable",), "there is room"
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await store.append([draft(5000)])
        assert await drain(store) == [*safe, 5000]


def _take_the_rest(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    file.write(os.urandom(size))


SCENARIOS: dict[str, Callable[[Path], Awaitable[None]]] = {"fills": fills, "crowded": crowded, "limited": limited}


async def main(scenario: str, folder: Path) -> None:
    await SCENARIOS[scenario](folder)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
