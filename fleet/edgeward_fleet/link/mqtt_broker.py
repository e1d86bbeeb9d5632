"""A folder from which mosquitto runs for this fleet: configuration, certificates, and the plugin's first file."""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.data_dir import write_private
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.errors import SettingsError
from edgeward_fleet.link.mqtt_identity import broker_certificate
from edgeward_fleet.link.mqtt_roles import initial_config

PLUGIN: Final = "mosquitto_dynamic_security.so"
_PLACES: Final = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
SERVICE: Final = "systemd.conf"
_ACCESS: Final = "dynamic-security.json"
# Without the domain a WebSocket listens on every address, whatever it is told.
_LISTENER: Final = """
listener {port} {host}
socket_domain ipv{version}
{protocol}cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
max_connections {max_connections}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPlan:
    """How the broker is to be. `folder` is where it will find its files.

    There is no broker of WebSockets alone: mosquitto 2.0.11 does not start without a listener of the other kind.
    """

    folder: Path
    plugin: Path
    listen: str = "0.0.0.0"  # noqa: S104  # a broker that no device reaches is none; certificates decide who may come
    port: int = 8883
    websocket_port: int = 0  # none
    user: str = "mosquitto"  # whom the broker becomes when root starts it
    max_connections: int = 5000


def find_plugin() -> Path:
    """Where Debian, Ubuntu and Homebrew put the plugin. Raises SettingsError."""
    for place in map(Path, _PLACES):
        for found in (place / PLUGIN, *sorted(place.glob(f"*/{PLUGIN}"))):
            if found.exists():
                return found
    raise SettingsError(
        f"expected mosquitto's plugin {PLUGIN} below {', '.join(_PLACES)}, found none",
        hint="Install mosquitto (`sudo apt install mosquitto`), or name the file with --plugin.",
    )


def configuration(plan: BrokerPlan) -> str:
    """The text of mosquitto.conf. Raises SettingsError."""
    listeners = [_listener(plan, plan.port, "")]
    if plan.websocket_port:
        listeners.append(_listener(plan, plan.websocket_port, "protocol websockets\n"))
    template = _template("mosquitto.conf")
    return template.format(folder=plan.folder, plugin=plan.plugin, user=plan.user, listeners="".join(listeners))


def service(plan: BrokerPlan) -> str:
    """The text of a drop-in for Debian's mosquitto.service."""
    return _template("mosquitto.service.conf").format(folder=plan.folder, user=plan.user)


def by_hand(plan: BrokerPlan) -> str:
    """The command that starts the broker for root: never as root, but with the right to ports below 1024."""
    may = "--inh-caps +net_bind_service --ambient-caps +net_bind_service"
    who = f"--reuid {plan.user} --regid {plan.user} --init-groups"
    return f"setpriv {who} {may} mosquitto -c {plan.folder / 'mosquitto.conf'}"


def write_broker(
    out: Path,
    plan: BrokerPlan,
    authority: Authority,
    devices: Iterable[DeviceId],
    *,
    hosts: tuple[str, ...],
    now: datetime,
    life: timedelta,
) -> None:
    """Write the files into `out`. What the plugin has learnt since the last time is kept.

    Raises:
        SettingsError: the folder cannot be written.
    """
    key, certificate = broker_certificate(authority, hosts, now, life)
    files = {
        "mosquitto.conf": configuration(plan).encode(),
        SERVICE: service(plan).encode(),
        "ca.pem": authority.trusted_pem.encode(),
        "server.pem": certificate,
        "server.key": key,
    }
    try:
        (out / "data").mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_private(out / name, data)
        if not (out / _ACCESS).exists():
            write_private(out / _ACCESS, initial_config(devices))
        _give(out, plan.user)
    except OSError as error:
        raise SettingsError(f"{out}: expected a folder that can be written, got: {error.strerror}") from None


def _give(out: Path, user: str) -> None:
    """The broker must read its keys and rewrite the plugin's file. Only root can give files away, or needs to."""
    if os.geteuid() != 0 or user == "root":
        return
    try:
        shutil.chown(out, user, user)
        for file in out.iterdir():
            shutil.chown(file, user, user)
    except LookupError:
        raise SettingsError(
            f"expected a user {user} on this machine, there is none",
            hint="Install mosquitto first, or name the broker's user with --user.",
        ) from None


def _listener(plan: BrokerPlan, port: int, protocol: str) -> str:
    try:
        host = ipaddress.ip_address(plan.listen)
    except ValueError:
        raise SettingsError(f"--listen: expected an IP address, got {plan.listen!r}") from None
    return _LISTENER.format(
        port=port,
        host=host,
        version=host.version,
        protocol=protocol,
        folder=plan.folder,
        max_connections=plan.max_connections,
    )


def _template(name: str) -> str:
    return resources.files("edgeward_fleet.link").joinpath(name).read_text()
