"""`edgeward-fleet serve`: open resources in order, run the tasks, close in reverse."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from edgeward_fleet import app, data_dir, listeners
from edgeward_fleet.accounts.service import new_setup_secret
from edgeward_fleet.clock import Clock, utc_now
from edgeward_fleet.db.engine import Database
from edgeward_fleet.enrolment import authority, passphrase
from edgeward_fleet.enrolment.passphrase import Passphrase
from edgeward_fleet.errors import DataDirError, FleetError, SettingsError
from edgeward_fleet.listeners import Server
from edgeward_fleet.opening import opened
from edgeward_fleet.services import Services
from edgeward_fleet.settings import Settings
from edgeward_fleet.tls import ServerTls

_log: Final = logging.getLogger(__name__)
_RENEWAL_CHECK_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Where the fleet listens. `setup_url` is there until the first admin has used it."""

    admin_url: str
    device_url: str
    enrolment_url: str
    ca_fingerprint: str
    setup_url: str | None
    pid: int


async def run(
    settings: Settings, announce: Callable[[Ready], None], stop: asyncio.Event, clock: Clock = utc_now
) -> None:
    """Serve until `stop` is set. `announce` is called once, when all three ports answer.

    Raises:
        FleetError: something that the person who starts it can mend; nothing was left half done.
    """
    with ExitStack() as stack:
        database = stack.enter_context(opened(settings, clock))
        secret = _passphrase(settings, database)
        known = database.run_sync(lambda session: authority.load_or_create(session, secret, clock()))
        sockets = [stack.enter_context(each) for each in _bind(settings)]
        settings = _with_ports(settings, sockets)
        services = app.build_services(settings, database, known, clock)
        tls = ServerTls(known, settings, clock)
        servers = (
            listeners.server(app.build_admin_app(services), tls.open),
            listeners.server(app.build_device_app(services), tls.device, peer_certificates=True),
            listeners.server(app.build_enrolment_app(services), tls.open),
        )
        setup_secret = database.run_sync(new_setup_secret)
        ready = _ready(settings, known.fingerprint, setup_secret)
        await _serve(services, tls, servers, sockets, lambda: _announce(settings, ready, announce), stop)


async def _serve(
    services: Services,
    tls: ServerTls,
    servers: tuple[Server, ...],
    sockets: list[socket.socket],
    announce: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    refused: FleetError | None = None
    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(_keep_certificate(tls), name="server-certificate")]
        workers += [tasks.create_task(worker(services), name=worker.__qualname__) for worker in app.WORKERS]
        serving = [
            tasks.create_task(each.serve(sockets=[listening])) for each, listening in zip(servers, sockets, strict=True)
        ]
        for each in servers:
            await each.up.wait()
        try:
            announce()
            await stop.wait()
        except FleetError as error:
            refused = error
        services.wakeups.close()
        for each in servers:
            each.should_exit = True
        await asyncio.wait(serving)
        for worker in workers:
            worker.cancel()
    if refused is not None:
        raise refused


async def _keep_certificate(tls: ServerTls) -> None:
    """Looks by the clock, not by one long sleep: a machine that was suspended must not oversleep."""
    while True:
        await asyncio.sleep(_RENEWAL_CHECK_S)
        look_after(tls)


def look_after(tls: ServerTls) -> None:
    """Renew the certificate when it is time. One that cannot be written is good for a third of its life yet."""
    try:
        if tls.renew_if_due():
            _log.info("the server's certificate was renewed")
    except DataDirError as error:
        _log.error("the server's certificate could not be renewed: %s", error)


def _passphrase(settings: Settings, database: Database) -> Passphrase:
    return passphrase.find(os.environ, settings.data_dir, make=not database.run_sync(authority.exists))


def _bind(settings: Settings) -> Iterator[socket.socket]:
    for port in (settings.admin_port, settings.device_port, settings.enrolment_port):
        yield listeners.bind(settings.host, port)


def _with_ports(settings: Settings, sockets: list[socket.socket]) -> Settings:
    admin, device, enrolment = (each.getsockname()[1] for each in sockets)
    return dataclasses.replace(settings, admin_port=admin, device_port=device, enrolment_port=enrolment)


def _ready(settings: Settings, fingerprint: str, setup_secret: str | None) -> Ready:
    return Ready(
        admin_url=settings.admin_url,
        device_url=settings.device_url,
        enrolment_url=settings.enrolment_url,
        ca_fingerprint=fingerprint,
        setup_url=f"{settings.admin_url}/setup?token={setup_secret}" if setup_secret else None,
        pid=os.getpid(),
    )


def _announce(settings: Settings, ready: Ready, announce: Callable[[Ready], None]) -> None:
    if settings.ready_file is not None:
        try:
            data_dir.write_private(settings.ready_file, json.dumps(dataclasses.asdict(ready)).encode())
        except OSError as error:
            raise SettingsError(
                f"--ready-file {settings.ready_file}: expected a file that can be written, got: {error.strerror}"
            ) from None
    announce(ready)
