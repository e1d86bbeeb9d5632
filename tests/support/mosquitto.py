"""Debian's mosquitto with the configuration that the fleet writes, on loopback, to be killed and started at will."""

from __future__ import annotations

import asyncio
import getpass
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from edgeward_contract.mqtt.broker import BrokerAddress
from edgeward_fleet.clock import utc_now
from edgeward_fleet.enrolment import authority, passphrase
from edgeward_fleet.link.mqtt_broker import BrokerPlan, find_plugin, write_broker
from edgeward_fleet.link.mqtt_devices import ours
from edgeward_fleet.opening import opened
from edgeward_fleet.settings import Settings
from support.waiting import until

ABSENT = "mosquitto is absent"


def command() -> str:
    """Debian keeps it where only root's PATH looks. Skips the test when there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(ABSENT)
    return found


class Mosquitto:
    """One broker, at the same ports each time it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.websocket_port = free_port(), free_port()
        self._command = command()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(host="localhost", port=self.port)

    @property
    def websocket_address(self) -> BrokerAddress:
        return BrokerAddress(host="localhost", port=self.websocket_port, transport="websockets")

    def configure(self, settings: Settings) -> None:
        """As `edgeward-fleet mqtt broker-config` does it, before the fleet is started."""
        plan = BrokerPlan(
            folder=self.folder,
            plugin=find_plugin(),
            listen="127.0.0.1",
            port=self.port,
            websocket_port=self.websocket_port,
            user=getpass.getuser(),
        )
        with opened(settings) as database:
            secret = passphrase.find({}, settings.data_dir, make=True)
            known = database.run_sync(lambda session: authority.load_or_create(session, secret, utc_now()))
            devices = database.run_sync(ours)
        hosts = ("localhost", "127.0.0.1")
        write_broker(self.folder, plan, known, devices, hosts=hosts, now=utc_now(), life=timedelta(days=1))

    def start(self) -> None:
        log = self.folder / "log"
        with log.open("ab") as target:
            self._process = subprocess.Popen(
                [self._command, "-c", str(self.folder / "mosquitto.conf")], stdout=target, stderr=target
            )
        for port in (self.port, self.websocket_port):
            until(lambda port=port: self._listens(port), f"mosquitto to listen: {log.read_text()[-2000:]}")  # type: ignore[misc]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    async def restart_killed(self) -> None:
        """As after a crash: what was not saved is gone."""
        self.kill()
        await asyncio.to_thread(self.start)

    def forget(self) -> None:
        """While it is down: sessions and retained messages, as if the disk had lost them."""
        for file in (self.folder / "data").iterdir():
            file.unlink()

    def _listens(self, port: int) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"mosquitto ended: {(self.folder / 'log').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


@contextmanager
def broker(folder: Path, settings: Settings) -> Iterator[Mosquitto]:
    """A running broker for the fleet that will be started with `settings`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Mosquitto(folder)
    made.configure(settings)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
