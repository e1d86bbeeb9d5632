"""Answers what is asked on the agent's own socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from edgeward_agent import status
from edgeward_agent.health import Device
from edgeward_agent.link.observed import ObservedLink
from edgeward_agent.outbox import inspect
from edgeward_agent.status import AgentStatus, Status
from edgeward_contract.schema import ContractError, Fields, canonical_json


class Desk:
    """See `agent_socket.Answer`."""

    def __init__(self, device: Device, link: ObservedLink) -> None:
        self._device = device
        self._link = link
        self._began_s = device.clock.monotonic()

    async def answer(self, question: Fields) -> AsyncIterator[str]:
        """Raises ContractError for a question that nobody knows."""
        wanted = question.text("ask")
        if wanted == "status":
            yield (await self.status()).json()
        elif wanted in ("outbox", "quarantine"):
            async for line in inspect.lines(self._device.store, quarantined=wanted == "quarantine"):
                yield line
        elif wanted == "requeue":
            count = await self._device.store.requeue(question.integers("rows", minimum=-(1 << 62), max_items=10_000))
            yield canonical_json({"requeued": count}).decode()
        else:
            raise ContractError("ask", f"expected status, outbox, quarantine or requeue, got {wanted!r}")

    async def status(self) -> Status:
        device, now_s = self._device, self._device.clock.wall()
        stats = await device.store.stats()
        seen = await device.snapshot()
        return Status(
            agent=AgentStatus(pid=os.getpid(), uptime_s=round(device.clock.monotonic() - self._began_s)),
            device=status.device_status(device.renewal.identity, now_s),
            link=status.link_status(self._link.condition, now_s),
            serving=status.serving_status(
                device.supervisor.pid, device.supervisor.addresses, device.supervisor.restarts
            ),
            models=status.model_statuses(seen.models),
            outbox=status.outbox_status(stats, seen.health.results_not_kept),
            disk_free_bytes=seen.health.disk_free_bytes,
            alarms=tuple(seen.health.alarms.split()),
        )
