"""A broker for the demonstration: Debian's mosquitto, with what `edgeward-fleet mqtt broker-config` writes for it."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_fleet.demo.narrator import Narrator
from edgeward_fleet.demo.processes import Household, ask, wait_until
from edgeward_fleet.demo.staff import FLEET

_START_S: Final = 15.0
_INSTALL_S: Final = 300.0
_SYSTEM_PATH: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"  # Debian keeps it where only root looks


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs. `options` is what tells `edgeward-fleet serve` of it."""

    port: int
    pid: int

    @property
    def options(self) -> tuple[str, ...]:
        return (f"--mqtt=127.0.0.1:{self.port}",)


def chosen_link(wanted: str, narrator: Narrator) -> str:
    """`mqtt` when it is wanted and there is a broker for it, else `https`; says why."""
    if wanted != "mqtt" or _mosquitto() is not None:
        return wanted
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        narrator.say("mosquitto is not here; installing it with apt")
        if _installed():
            return wanted
    narrator.say("mosquitto is not here, so the devices come over https. To see mqtt: sudo apt install mosquitto")
    return "https"


def start_broker(folder: Path, household: Household) -> Broker:
    """Before the fleet is started: both use its data folder. Raises DemoFailed."""
    program, port = _mosquitto(), _free_port()
    assert program is not None
    files = folder / "broker"
    ask(
        FLEET,
        "mqtt",
        "broker-config",
        f"--data-dir={folder / 'fleet'}",
        f"--out={files}",
        f"--port={port}",
        "--listen=127.0.0.1",
        f"--user={getpass.getuser()}",
    )
    started = household.run("broker", [program, "-c", str(files / "mosquitto.conf")])
    wait_until(lambda: _listens(port), household, "the broker to listen", timeout_s=_START_S)
    return Broker(port, started.process.pid)


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_SYSTEM_PATH)


def _installed() -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "mosquitto"]):
        try:
            subprocess.run(command, check=True, capture_output=True, env=environment, timeout=_INSTALL_S)
        except (OSError, subprocess.SubprocessError):
            return False
    return _mosquitto() is not None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
