"""`kill -9` at any moment: what a caller was told is safe is there, once, in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from edgeward_agent.outbox.model import StoreOptions
from edgeward_agent.outbox.store import open_store
from edgeward_contract.record import Batch
from support.outbox import DEVICE, MemoryFleet, accept, draft, number_of

TESTS = Path(__file__).resolve().parent.parent
LANES = 4
KILLS = 8
OPTIONS = StoreOptions(max_bytes=256 << 20, ballast_bytes=0)


def append_until_killed(folder: Path, first: int, count: int) -> list[int]:
    """The numbers that were said to be safe before the process was killed, at a random moment after `count` of them."""
    command = [sys.executable, str(TESTS / "support" / "outbox_appender.py"), str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [int(line) for line in said if line.endswith(b"\n")]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS)}


def test_what_was_said_to_be_safe_survives_kill_9(tmp_path: Path) -> None:
    chosen = random.Random(20)
    said: list[int] = []
    for turn in range(KILLS):
        said += append_until_killed(tmp_path, turn * 1_000_000, chosen.randrange(5, 120))

    async def run() -> tuple[MemoryFleet, tuple[str, ...]]:
        fleet = MemoryFleet()
        async with open_store(tmp_path, device=DEVICE, options=OPTIONS) as store:
            alarms = (await store.stats()).alarms
            while batch := await store.head():
                await store.apply((await fleet.deliver(batch)).verdicts)
        return fleet, alarms

    fleet, alarms = asyncio.run(run())
    reasons = [each.read_text() for each in tmp_path.glob("quarantine/*/reason.txt")]
    assert alarms == () and not reasons, f"a killed process leaves no damage: {reasons}"
    assert set(said) <= set(fleet.numbers)
    assert len(fleet.numbers) == len(set(fleet.numbers))
    assert len(fleet.numbers) - len(said) <= LANES * KILLS, "more came than callers were waiting for"
    assert all(earlier.sequence < later.sequence for earlier, later in pairwise(fleet.records))
    assert len({record.epoch for record in fleet.records}) == 1
    for turn in range(KILLS):
        for index in range(LANES):
            in_lane = [each for each in fleet.numbers if each // 1_000_000 == turn and each % LANES == index]
            assert in_lane == sorted(in_lane)


def test_kill_9_between_delivery_and_acknowledgement_sends_again_and_no_more(tmp_path: Path) -> None:
    """A child delivers by printing what it sends, and dies before it can apply the answer."""
    child = f"""
import asyncio, os, signal
from pathlib import Path
from support.outbox import DEVICE
from edgeward_agent.outbox.store import open_store
async def main():
    async with open_store(Path({str(tmp_path)!r}), device=DEVICE) as store:
        batch = await store.head(limit_records=50)
        os.write(1, batch.canonical())
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""

    async def fill() -> None:
        async with open_store(tmp_path, device=DEVICE) as store:
            await store.append([draft(number) for number in range(100)])

    async def rest(sent: bytes) -> list[int]:
        async with open_store(tmp_path, device=DEVICE) as store:
            again = await store.head(limit_records=50)
            assert again is not None
            assert again.records == Batch.parse(sent).records
            numbers: list[int] = []
            while batch := await store.head():
                numbers += [number_of(each) for each in batch.records]
                await store.apply(accept(batch))
            return numbers

    asyncio.run(fill())
    done = subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE, env=_environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert asyncio.run(rest(done.stdout)) == list(range(100))
