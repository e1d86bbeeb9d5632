"""Wait for a newer desired state. A parked poll costs a future: no thread, no transaction."""

from __future__ import annotations

import asyncio

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.link.inbound import Check, Inbound, anybody
from edgeward_fleet.wakeups import Wakeups


async def parked(
    inbound: Inbound, wakeups: Wakeups, device: DeviceId, after: int, wait_s: float, check: Check = anybody
) -> bytes | None:
    """The first desired state with a generation above `after`; None when `wait_s` have passed without one.

    Raises Forbidden as soon as `check` does: a revocation wakes the poll, too.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    with wakeups.watch(device) as watch:
        while True:
            document = await inbound.desired(device, after, check)
            left_s = deadline - clock()
            if document is not None or left_s <= 0 or wakeups.closing:
                return document
            if not await watch.wait(left_s) and wakeups.hears_all:
                return None
