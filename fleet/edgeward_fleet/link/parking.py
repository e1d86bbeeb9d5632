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

    A device that asks again what it has just asked in vain costs no transaction, where every wake-up is heard.

    Raises Forbidden as soon as `check` does: a revocation wakes the poll, too.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    with wakeups.watch(device) as watch:
        is_settled = wakeups.is_settled(device, after)
        while True:
            document = None if is_settled else await inbound.desired(device, after, check)
            left_s = deadline - clock()
            if document is not None or left_s <= 0 or wakeups.closing:
                return document
            is_settled = not await watch.wait(left_s) and wakeups.hears_all
            if is_settled:
                wakeups.settle(device, after, watch)
                return None
