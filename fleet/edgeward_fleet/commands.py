"""`edgeward-fleet`: the service and what is done to it while it stands still. Every error is one line and a way out."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from edgeward_contract.mqtt.broker import BrokerAddress
from edgeward_contract.version import __version__
from edgeward_fleet import data_dir, log
from edgeward_fleet.accounts.service import new_setup_secret
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.clock import utc_now
from edgeward_fleet.enrolment import authority, passphrase
from edgeward_fleet.errors import Conflict, FleetError, SettingsError
from edgeward_fleet.hosts import host_name
from edgeward_fleet.link import mqtt_broker
from edgeward_fleet.link.mqtt_devices import ours
from edgeward_fleet.opening import opened
from edgeward_fleet.settings import Settings
from edgeward_fleet.usage import usage_error

if TYPE_CHECKING:
    from edgeward_fleet.serve import Ready

_FAILED: Final = 1
_USAGE: Final = 2

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EDGEWARD_FLEET_DATA_DIR",
    help="Folder for the database, the artifacts and the keys.",
)
database_option = click.option(
    "--database-url",
    envvar="EDGEWARD_FLEET_DATABASE_URL",
    help="PostgreSQL instead of SQLite in the data folder: postgresql+psycopg://…",
)


def run() -> None:
    """Entry point; a FleetError becomes one line, its hint the next."""
    try:
        main(prog_name="edgeward-fleet", standalone_mode=False)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(_USAGE)
    except click.ClickException as error:
        _complain(*usage_error(error, "edgeward-fleet"))
        sys.exit(_USAGE)
    except FleetError as error:
        _complain(str(error), error.hint)
        sys.exit(_USAGE if isinstance(error, SettingsError) else _FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}", "Check the path, its rights and the room on its disk.")
        sys.exit(_FAILED)


def _complain(message: str, hint: str) -> None:
    click.echo(f"error: {message}\n  {hint}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The Edgeward fleet service."""


@main.command()
@data_dir_option
@database_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option("--admin-port", default=8443, show_default=True, type=click.IntRange(0, 65535))
@click.option("--device-port", default=8444, show_default=True, type=click.IntRange(0, 65535))
@click.option("--enrolment-port", default=8445, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--public-host",
    type=host_name,
    metavar="HOST",
    help="Name or address by which people and devices reach --host, as their links and certificates have it."
    "  [default: localhost]",
)
@click.option("--mqtt", "mqtt_broker", metavar="HOST:PORT", help="Broker to use as well; mqtts://… and wss://… too.")
@click.option("--mqtt-public-url", help="How devices reach that broker.  [default: mqtts://PUBLIC-HOST:PORT]")
@click.option(
    "--enrolments-per-minute",
    default=20,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="From one address, as a whole site may have.",
)
@click.option("--ready-file", type=click.Path(path_type=Path, dir_okay=False), help="Written as JSON when listening.")
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", default="text", type=click.Choice(["text", "json"]))
def serve(
    data_dir: Path | None,
    database_url: str | None,
    host: str,
    admin_port: int,
    device_port: int,
    enrolment_port: int,
    public_host: str | None,
    mqtt_broker: str | None,
    mqtt_public_url: str | None,
    enrolments_per_minute: int,
    ready_file: Path | None,
    log_level: str,
    log_format: Literal["text", "json"],
) -> None:
    """Run the fleet until SIGTERM or Ctrl-C. A port of 0 takes any free one."""
    log.set_up(log_level, log_format)
    settings = Settings(
        data_dir=_chosen(data_dir),
        database_url=database_url,
        host=host,
        admin_port=admin_port,
        device_port=device_port,
        enrolment_port=enrolment_port,
        public_host=public_host or _public_host(host),
        mqtt_broker=_broker(mqtt_broker, "--mqtt"),
        mqtt_public_url=str(_broker(mqtt_public_url, "--mqtt-public-url") or "") or None,
        enrolments_per_minute=enrolments_per_minute,
        ready_file=ready_file,
    )
    from edgeward_fleet.listeners import allow_files, new_loop, settle_memory  # as in `_serve`

    allow_files()
    settle_memory()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(settings))


@main.command("setup-link")
@data_dir_option
@database_option
@click.option("--url", default="https://localhost:8443", show_default=True, help="Where the admin port will be.")
def setup_link(data_dir: Path | None, database_url: str | None, url: str) -> None:
    """Print a new one-time link for the first admin; the fleet must be stopped. `serve` prints one, too."""
    with opened(_settings(data_dir, database_url)) as database:
        secret = database.run_sync(new_setup_secret)
    if secret is None:
        raise Conflict("expected a fleet without an admin, this one has one", hint="An admin can make more accounts.")
    click.echo(f"{url.rstrip('/')}/setup?token={secret}")


@main.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@data_dir_option
@database_option
def db_upgrade(data_dir: Path | None, database_url: str | None) -> None:
    """Bring the database to this version's schema; `serve` does it too."""
    log.set_up()
    settings = _settings(data_dir, database_url)
    with opened(settings):
        click.echo(f"{settings.data_dir}: the database is at the newest schema")


@main.group()
def ca() -> None:
    """The fleet's own certificate authority; the fleet must be stopped."""


@ca.command("backup")
@data_dir_option
@database_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def ca_backup(data_dir: Path | None, database_url: str | None, file: Path) -> None:
    """Write the CA's key and certificates to FILE (PKCS #12), under the same passphrase."""
    if file.exists():
        raise SettingsError(f"{file}: expected a new file, there is one already", hint="Choose another name.")
    settings = _settings(data_dir, database_url)
    with opened(settings) as database:
        secret = passphrase.find(os.environ, settings.data_dir)
        data = database.run_sync(lambda session: authority.backup(session, _operator(), secret, utc_now()))
    _write(file, data)
    click.echo(
        f"{file}: written; it opens with the passphrase of {secret.origin}. Keep the two apart, and off this machine."
    )


@ca.command("restore")
@data_dir_option
@database_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def ca_restore(data_dir: Path | None, database_url: str | None, file: Path) -> None:
    """Take the CA from a backup into a new data folder, before its first `serve`."""
    settings = _settings(data_dir, database_url)
    with opened(settings) as database:
        secret = passphrase.find(os.environ, settings.data_dir)
        data = file.read_bytes()
        made = database.run_sync(lambda session: authority.restore(session, _operator(), data, secret, utc_now()))
    click.echo(f"restored: {made.fingerprint}")


@ca.command("rotate")
@data_dir_option
@database_option
def ca_rotate(data_dir: Path | None, database_url: str | None) -> None:
    """Make a new root, signed by the old one too; devices move over as they renew."""
    settings = _settings(data_dir, database_url)
    with opened(settings) as database:
        secret = passphrase.find(os.environ, settings.data_dir)
        made = database.run_sync(lambda session: authority.rotate(session, _operator(), secret, utc_now()))
    click.echo(f"new root: {made.fingerprint}\n  {len(made.trusted)} roots are trusted until every device has renewed")


@main.group()
def mqtt() -> None:
    """A broker for devices that come over MQTT; the fleet must be stopped."""


@mqtt.command("broker-config")
@data_dir_option
@database_option
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the broker will find it.  [default: --out]")
@click.option(
    "--public-host",
    "hosts",
    type=host_name,
    metavar="HOST",
    multiple=True,
    help="Name of the broker; repeatable.  [default: localhost]",
)
@click.option("--listen", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104
@click.option("--port", default=8883, show_default=True, type=click.IntRange(1, 65535), help="MQTT over TLS.")
@click.option("--websocket-port", default=0, type=click.IntRange(0, 65535), help="WebSockets, too, such as 443.")
@click.option("--plugin", type=click.Path(path_type=Path, dir_okay=False), help="mosquitto_dynamic_security.so")
@click.option("--user", default="mosquitto", show_default=True, help="Whom the broker becomes when root starts it.")
@click.option("--days", default=397, show_default=True, type=click.IntRange(1, 3650), help="Life of its certificate.")
def mqtt_broker_config(
    data_dir: Path | None,
    database_url: str | None,
    out: Path,
    folder: Path | None,
    hosts: tuple[str, ...],
    listen: str,
    port: int,
    websocket_port: int,
    plugin: Path | None,
    user: str,
    days: int,
) -> None:
    """Write configuration and certificates for mosquitto. Again: a new certificate; who may do what is kept."""
    settings = _settings(data_dir, database_url)
    plan = mqtt_broker.BrokerPlan(
        folder=(folder or out).absolute(),
        plugin=plugin or mqtt_broker.find_plugin(),
        listen=listen,
        port=port,
        websocket_port=websocket_port,
        user=user,
    )
    names = tuple(dict.fromkeys((*hosts, "localhost", "127.0.0.1")))
    with opened(settings) as database:
        secret = passphrase.find(os.environ, settings.data_dir, make=not database.run_sync(authority.exists))
        known = database.run_sync(lambda session: authority.load_or_create(session, secret, utc_now()))
        devices = database.run_sync(ours)
    mqtt_broker.write_broker(out, plan, known, devices, hosts=names, now=utc_now(), life=timedelta(days=days))
    click.echo(f"{out}: written; its certificate is for {', '.join(names)} and lasts {days} days")
    drop_in = "/etc/systemd/system/mosquitto.service.d/edgeward.conf"
    click.echo("On the broker's machine, now and after each renewal:")
    click.echo(f"  sudo install -D -m 644 {plan.folder / mqtt_broker.SERVICE} {drop_in}")
    click.echo("  sudo systemctl daemon-reload && sudo systemctl restart mosquitto")
    click.echo(f"  (without systemd: sudo {mqtt_broker.by_hand(plan)})")
    click.echo(f"Then: edgeward-fleet serve --mqtt {names[0]}:{port}")


@main.group("audit")
def audit_group() -> None:
    """The audit log."""


@audit_group.command("verify")
@data_dir_option
@database_option
def audit_verify(data_dir: Path | None, database_url: str | None) -> None:
    """Walk the whole chain; exit with 1 when an entry was changed or cut out."""
    with opened(_settings(data_dir, database_url)) as database:
        found = database.run_sync(audit.verify)
    if found.problem is not None:
        raise FleetError(f"audit log: {found.problem}", hint="Compare with a copy from the `backups` folder.")
    click.echo(f"audit log: {found.entries} entries, unbroken; the last digest is {found.head_sha256}")


async def _serve(settings: Settings) -> None:
    from edgeward_fleet.serve import run as serve_fleet  # the web framework doubles the start of every other command

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_fleet(settings, lambda ready: _print(ready, settings), stop)
    click.echo("stopped")


def _print(ready: Ready, settings: Settings) -> None:
    with suppress(OSError):  # who read it may have left, or its disk be full: devices are served all the same
        _print_lines(ready, settings)


def _print_lines(ready: Ready, settings: Settings) -> None:
    click.echo(f"admin      {ready.admin_url}")
    click.echo(f"devices    {ready.device_url}")
    click.echo(f"enrolment  {ready.enrolment_url}")
    click.echo(f"CA         {ready.ca_fingerprint}")
    generated = settings.data_dir / passphrase.GENERATED
    if not (os.environ.get(passphrase.VARIABLE) or os.environ.get(passphrase.FILE_VARIABLE)):
        click.echo(f"CA key     opened with the passphrase in {generated}; keep a copy of it elsewhere")
    if ready.setup_url:
        click.echo(f"no admin yet; open once, or give it to `edgeward setup`:\n  {ready.setup_url}")
    sys.stdout.flush()


def _settings(chosen: Path | None, database_url: str | None) -> Settings:
    return Settings(data_dir=_chosen(chosen), database_url=database_url)


def _chosen(chosen: Path | None) -> Path:
    return chosen or data_dir.default()


def _broker(text: str | None, option: str) -> BrokerAddress | None:
    if not text:
        return None
    try:
        return BrokerAddress.parse(text if "://" in text else f"mqtts://{text}")
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from None


def _public_host(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "::1", "localhost") else socket.getfqdn()


def _operator() -> Actor:
    """Whoever may read the data folder; the name of the login is all there is."""
    return Actor(name=f"cli:{os.environ.get('USER', 'unknown')}"[:64])


def _write(file: Path, data: bytes) -> None:
    try:
        data_dir.write_private(file, data)
    except OSError as error:
        raise SettingsError(f"{file}: expected a file that can be written, got: {error.strerror}") from None
