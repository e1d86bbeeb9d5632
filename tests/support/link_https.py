"""The HTTPS link in front of a fleet that misbehaves to order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from edgeward_agent.identity import tls
from edgeward_agent.link.https import HttpsLink
from edgeward_agent.link.wire import Wire
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import MAX_BATCH_BYTES
from edgeward_contract.reported import ReportedState
from support.stub_fleet import StubFleet


class StubHarness:
    """See `support.link.LinkHarness`."""

    limit_bytes = MAX_BATCH_BYTES

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()
        self.stub = StubFleet(folder)
        self.link: HttpsLink

    async def __aenter__(self) -> StubHarness:
        await self._stack.enter_async_context(self.stub)
        identity = self.stub.ca.enrolled(self._folder / "identity", self.stub.device_url)
        self.link = HttpsLink(Wire(self.stub.device_url, tls.mutual(identity), timeout_s=10), park_s=30)
        self._stack.push_async_callback(self.link.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def set_desired(self, desired: DesiredState) -> None:
        await self.stub.fleet.set_desired(desired)

    async def reports(self) -> Sequence[ReportedState]:
        return tuple(self.stub.fleet.reports)

    async def records(self) -> Sequence[tuple[str, int]]:
        return tuple(self.stub.fleet.records)

    async def go_offline(self) -> None:
        await self.stub.fleet.set_online(False)
        await self.stub.cut_connections()

    async def come_back(self) -> None:
        self.stub.fleet.retry_after_s, self.stub.fleet.refusal = None, ""
        await self.stub.fleet.set_online(True)

    async def lose_next_answer(self) -> None:
        self.stub.fleet.lose_answers += 1

    async def answer_later(self, retry_after_s: float) -> None:
        self.stub.fleet.retry_after_s = retry_after_s
        await self.stub.fleet.wake()

    async def refuse(self) -> None:
        self.stub.fleet.refusal = "the device is revoked"
        await self.stub.fleet.wake()
