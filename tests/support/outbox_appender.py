"""A process that appends durably until it is killed, and says each number once it is safe.

Usage: python outbox_appender.py FOLDER FIRST_NUMBER
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from edgeward_agent.outbox.model import StoreOptions
from edgeward_agent.outbox.store import Store, open_store
from support.outbox import DEVICE, draft

LANES = 4


async def lane(store: Store, number: int) -> None:
    """Append for ever, one record at a time."""
    while True:
        await store.append([draft(number, padding=number % 7000)])
        os.write(1, f"{number}\n".encode())
        number += LANES


async def main(folder: Path, first: int) -> None:
    options = StoreOptions(max_bytes=256 << 20, ballast_bytes=0)
    async with open_store(folder, device=DEVICE, options=options) as store, asyncio.TaskGroup() as lanes:
        for index in range(LANES):
            lanes.create_task(lane(store, first + index))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
