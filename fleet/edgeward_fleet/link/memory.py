"""The link without a network: a device in the process of the fleet, for tests and for the fleet's own rehearsals."""

from __future__ import annotations

from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState
from edgeward_contract.topics import MAX_PARK_S
from edgeward_fleet.link.inbound import Inbound
from edgeward_fleet.link.parking import parked
from edgeward_fleet.wakeups import Wakeups


class MemoryLink:
    """Everything that a device can do over a link. Documents cross it as bytes, as they would a wire."""

    def __init__(self, inbound: Inbound, wakeups: Wakeups, device: DeviceId) -> None:
        self._inbound: Final = inbound
        self._wakeups: Final = wakeups
        self._device: Final = device

    @property
    def device(self) -> DeviceId:
        return self._device

    async def next_desired(self, after: int) -> DesiredState:
        """Wait for a generation above `after`."""
        while True:
            document = await parked(self._inbound, self._wakeups, self._device, after, MAX_PARK_S)
            if document is not None:
                return DesiredState.parse(document)

    async def desired_now(self, after: int) -> DesiredState | None:
        """The newest desired state, if its generation is above `after`."""
        document = await self._inbound.desired(self._device, after)
        return DesiredState.parse(document) if document else None

    async def report(self, reported: ReportedState) -> None:
        await self._inbound.report(self._device, ReportedState.parse(reported.canonical()))

    async def deliver(self, batch: Batch) -> Acknowledgement:
        answer = await self._inbound.deliver(self._device, Batch.parse(batch.canonical()))
        return Acknowledgement.parse(answer.canonical())

    async def aclose(self) -> None:
        """Nothing to close."""
