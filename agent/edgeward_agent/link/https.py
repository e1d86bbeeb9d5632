"""The embedded default: HTTPS to the fleet's device port with the device's certificate; needs the fleet and no more."""

from __future__ import annotations

from typing import Final

from edgeward_agent.clock import Clock, SystemClock
from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_agent.link.wire import Call, Wire
from edgeward_contract.desired import MAX_DESIRED_BYTES, DesiredState
from edgeward_contract.record import MAX_BATCH_BYTES, Acknowledgement, Batch
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import MAX_DOCUMENT_BYTES, ContractError
from edgeward_contract.topics import RECORDS, REPORTED, desired_path

_SOONEST_S: Final = 1.0  # between two polls, when something on the way answers at once with nothing
_MAX_EMPTY_BYTES: Final = 4096


class HttpsLink:
    """Long poll for desired state, one request for each report and batch. See `ports.Link`."""

    def __init__(self, wire: Wire, *, park_s: int, clock: Clock | None = None) -> None:
        self._wire = wire
        self._park_s = park_s
        self._clock = clock or SystemClock()
        self._closed = False

    @property
    def max_batch_bytes(self) -> int:
        return MAX_BATCH_BYTES

    async def next_desired(self, after: int) -> DesiredState:
        while not self._closed:
            asked_s = self._clock.monotonic()
            desired = await self._poll(after)
            if desired is not None and desired.generation > after:
                return desired
            early_s = _SOONEST_S - (self._clock.monotonic() - asked_s)
            if early_s > 0:
                await self._clock.sleep(early_s)
        raise LinkLost(f"fleet at {self._wire.where}: the link was closed")

    async def report(self, reported: ReportedState) -> None:
        body = reported.canonical()
        await self._wire.request(Call(method="POST", path=REPORTED, body=body, limit_bytes=_MAX_EMPTY_BYTES))

    async def deliver(self, batch: Batch) -> Acknowledgement:
        call = Call(method="POST", path=RECORDS, body=batch.canonical(), limit_bytes=MAX_DOCUMENT_BYTES)
        answer = await self._wire.request(call)
        try:
            acknowledgement = Acknowledgement.parse(answer.body)
        except ContractError as error:
            raise LinkLost(f"fleet at {self._wire.where}: acknowledgement: {error}") from None
        if acknowledgement.batch_id != batch.batch_id:
            raise LinkLost(
                f"fleet at {self._wire.where}: expected the acknowledgement of {batch.batch_id}, "
                f"got that of {acknowledgement.batch_id}"
            )
        return acknowledgement

    async def aclose(self) -> None:
        self._closed = True
        self._wire.close()

    async def _poll(self, after: int) -> DesiredState | None:
        path = desired_path(after, self._park_s)
        call = Call(method="GET", path=path, limit_bytes=MAX_DESIRED_BYTES, wait_s=self._park_s)
        answer = await self._wire.request(call)
        if answer.status == 204:
            return None
        try:
            return DesiredState.parse(answer.body)
        except ContractError as error:
            raise LinkRefused(f"fleet at {self._wire.where}: desired state: {error}") from None


def hello() -> Call:
    """A question that changes nothing and is answered at once: does the fleet take this certificate?

    From generation 0 on: a fleet that was restored takes a high one for news and counts on from there.
    """
    return Call(method="GET", path=desired_path(0, 0), limit_bytes=MAX_DESIRED_BYTES)
