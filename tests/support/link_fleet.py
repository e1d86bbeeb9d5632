"""The HTTPS link in front of the real fleet. What a real fleet must never do is done around it: a proxy that cuts
connections, and a layer before its device port that answers "later".
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar
from unittest import mock
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeward_agent.identity import tls
from edgeward_agent.link.https import HttpsLink
from edgeward_agent.link.wire import Wire
from edgeward_agent.ports import Link
from edgeward_contract.artifact import DeviceId, sha256_of
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.record import MAX_BATCH_BYTES
from edgeward_contract.reported import ReportedState
from edgeward_fleet import app as fleet_app
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.clock import utc_now
from edgeward_fleet.db.schema import DesiredRow, RecordRow
from edgeward_fleet.services import Services
from edgeward_fleet.states.desired import set_model
from edgeward_fleet.states.reported import reported_of
from support.fleet import EnrolledDevice, Fleet, running_fleet

T = TypeVar("T")

_numbers = itertools.count(1)


@dataclass(slots=True)
class OpenFleet:
    """A running fleet with its insides in reach. While `retry_after_s` is set, the device port answers "later"."""

    fleet: Fleet
    services: Services
    busy: Busy


class Busy:
    """An ASGI layer that answers for the app while it is told to."""

    def __init__(self, app: ASGIApp) -> None:
        self.retry_after_s: float | None = None
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.retry_after_s is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(b"retry-after", str(int(self.retry_after_s)).encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def open_fleet(folder: Path, **changes: object) -> Iterator[OpenFleet]:
    """The real composition root, with one layer more; `changes` are fields of Settings."""
    seen: list[tuple[Services, Busy]] = []
    build = fleet_app.build_device_app

    def build_with_layer(services: Services) -> Busy:
        busy = Busy(build(services))
        seen.append((services, busy))
        return busy

    with (
        mock.patch.object(fleet_app, "build_device_app", build_with_layer),
        running_fleet(folder, utc_now, **changes) as fleet,
    ):
        ((services, busy),) = seen
        yield OpenFleet(fleet, services, busy)


def push(opened: OpenFleet, release: Path) -> None:
    """Into the registry, as `edgeward model push` does it."""
    client = opened.fleet.client(Role.OPERATOR)
    for name in ("model.onnx", "golden.npz"):
        data = (release / name).read_bytes()
        assert client.put(f"/artifacts/{sha256_of(data)}", content=data).is_success
    manifest = base64.b64encode((release / "manifest.json").read_bytes()).decode()
    assert client.post("/releases", json={"manifest": manifest}).status_code in (200, 201)


class Proxy:
    """Passes bytes on between a device and its fleet, until it does not."""

    def __init__(self, host: str, port: int) -> None:
        self.online = True
        self.swallow_next = False
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if not self.online:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, far_writer}
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, far_writer, up=True), self._pass(far_reader, writer, up=False))
        for each in (writer, far_writer):
            each.transport.abort()
            self._writers.discard(each)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, up: bool) -> None:
        while data := await source.read(1 << 16):
            if not up and self.swallow_next:
                self.swallow_next = False
                break
            target.write(data)
            await target.drain()
        raise ConnectionAbortedError


class FleetHarness:
    """See `support.link.LinkHarness`. A device of its own for each."""

    limit_bytes = MAX_BATCH_BYTES

    def __init__(self, opened: OpenFleet) -> None:
        self._opened = opened
        self._stack = AsyncExitStack()
        self.link: Link
        self.device: EnrolledDevice
        self.wire: Wire

    async def __aenter__(self) -> Self:
        self.device = device = await asyncio.to_thread(self._opened.fleet.enrol, f"bed-{next(_numbers)}")
        self._device = DeviceId(device.device_id)
        self._proxy = Proxy(*self._target(device))
        port = await self._proxy.start()
        self._stack.push_async_callback(self._proxy.close)
        self.link = await self._open(device, port)
        self._stack.push_async_callback(self.link.aclose)
        return self

    def _target(self, device: EnrolledDevice) -> tuple[str, int]:
        """Where the proxy leads."""
        parts = urlsplit(device.device_url)
        return str(parts.hostname), int(parts.port or 0)

    async def _open(self, device: EnrolledDevice, port: int) -> Link:
        """A link that takes its way through the proxy at `port`."""
        self.wire = Wire(f"https://localhost:{port}", context_of(device), timeout_s=10)
        return HttpsLink(self.wire, park_s=30)

    async def __aexit__(self, *_: object) -> None:
        self._opened.busy.retry_after_s = None
        await self._stack.aclose()

    async def set_desired(self, desired: DesiredState) -> None:
        """As the fleet stores it: its generation only ever grows."""

        def work(session: Session) -> None:
            row = session.get(DesiredRow, self._device)
            if row is None:
                row = DesiredRow(device_id=self._device, generation=0, fetched_generation=0)
                session.add(row)
            if desired.generation > row.generation:
                row.generation, row.document, row.changed_at = desired.generation, desired.canonical(), utc_now()

        await self._stored(work)
        self._opened.services.wakeups.notify(self._device)

    async def restore(self, desired: DesiredState) -> None:
        """As if the database came from a backup of the time when the device should be this."""

        def work(session: Session) -> None:
            row = session.get_one(DesiredRow, self._device)
            row.generation, row.fetched_generation, row.document = desired.generation, 0, desired.canonical()

        await self._stored(work)

    async def want(self, wanted: DesiredModel) -> None:
        """As a rollout does it: from now on the device may fetch the release."""
        await self._stored(lambda session: set_model(session, self._device, wanted.release.name, wanted, now=utc_now()))

    async def reports(self) -> Sequence[ReportedState]:
        newest = await self._stored(lambda session: reported_of(session, self._device))
        return (newest,) if newest else ()

    async def records(self) -> Sequence[tuple[str, int]]:
        query = select(RecordRow.epoch, RecordRow.sequence).where(RecordRow.device_id == self._device)
        return await self._stored(lambda session: [(epoch, number) for epoch, number in session.execute(query)])

    async def go_offline(self) -> None:
        self._proxy.online = False
        self._proxy.cut()

    async def come_back(self) -> None:
        self._proxy.online = True
        self._opened.busy.retry_after_s = None

    async def lose_next_answer(self) -> None:
        self._proxy.swallow_next = True

    async def answer_later(self, retry_after_s: float) -> None:
        self._opened.busy.retry_after_s = retry_after_s

    async def refuse(self) -> None:
        admin = self._opened.fleet.client(Role.ADMIN)
        answer = await asyncio.to_thread(admin.post, f"/devices/{self._device}/revoke", json={"reason": "lost"})
        assert answer.status_code == 200, answer.text

    async def _stored(self, work: Callable[[Session], T]) -> T:
        return await asyncio.to_thread(self._opened.services.database.run_sync, work)


def context_of(device: EnrolledDevice) -> ssl.SSLContext:
    return tls.mutual_of(device.ca_file, device.certificate_file, device.key_file)
