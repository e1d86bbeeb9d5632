"""`edgeward-fleet mqtt broker-config` and `serve --mqtt` as a person types them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from pwd import getpwnam
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509

from support import mosquitto
from support.fleet import EnrolledDevice, fleet_process, make_settings, running_fleet
from support.link import reported_state
from support.link_mqtt import let_in, link_of
from support.waiting import until


def edgeward_fleet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeward_fleet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=os.environ)


def broker_config(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    own = ("--data-dir", folder / "fleet", "--out", folder / "broker", "--user", "root")
    return edgeward_fleet("mqtt", "broker-config", *own, *more)


def test_what_is_written_runs_a_broker_that_the_fleet_uses(tmp_path: Path) -> None:
    program, port = mosquitto.command(), mosquitto.free_port()
    done = broker_config(tmp_path, "--port", str(port), "--listen", "127.0.0.1", "--public-host", "broker.example.org")
    assert done.returncode == 0, done.stderr
    assert "its certificate is for broker.example.org, localhost, 127.0.0.1 and lasts 397 days" in done.stdout
    assert f"edgeward-fleet serve --mqtt broker.example.org:{port}" in done.stdout
    with (tmp_path / "broker.log").open("w") as log:
        running = subprocess.Popen([program, "-c", str(tmp_path / "broker/mosquitto.conf")], stdout=log, stderr=log)
    try:
        with fleet_process(tmp_path, "--mqtt", f"127.0.0.1:{port}"):
            until(lambda: "at the broker: 0 devices" in (tmp_path / "fleet.log").read_text(), "the fleet at the broker")
    finally:
        running.terminate()
        running.wait(10)


def test_no_listener_is_open_where_it_was_not_told_to_listen(tmp_path: Path) -> None:
    """A WebSocket of 2.0.11 listens on every address unless it is told of IPv4."""
    with mosquitto.broker(tmp_path / "broker", make_settings(tmp_path)) as running:
        for port in (running.port, running.websocket_port):
            with socket.socket() as here, socket.socket() as elsewhere:
                assert here.connect_ex(("127.0.0.1", port)) == 0
                assert elsewhere.connect_ex(("127.0.0.2", port)) == errno.ECONNREFUSED


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_websockets_have_a_port_below_1024_although_mosquitto_is_not_root(tmp_path: Path) -> None:
    """Started as root it gives up its rights before it listens, and says nothing."""
    mosquitto.command()  # skips
    port = next(each for each in range(443, 1023) if is_free(each))
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # for mosquitto, who is somebody else
        options = ("--listen", "127.0.0.1", "--port", str(mosquitto.free_port()), "--websocket-port", str(port))
        done = edgeward_fleet("mqtt", "broker-config", "--data-dir", tmp_path, "--out", folder, *options)
        (command,) = re.findall(r"\(without systemd: sudo (.*)\)", done.stdout)
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        with (tmp_path / "log").open("w") as log:
            running = subprocess.Popen(command.split(), stdout=log, stderr=log, env=environment)
        try:
            until(lambda: not is_free(port), f"WebSockets on {port}")
            (uid,) = re.findall(r"^Uid:\t(\d+)", Path(f"/proc/{running.pid}/status").read_text(), re.MULTILINE)
            assert int(uid) == getpwnam("mosquitto").pw_uid
        finally:
            running.terminate()
            running.wait(10)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_listener_needs_an_address(tmp_path: Path) -> None:
    done = broker_config(tmp_path, "--plugin", "/somewhere/plugin.so", "--listen", "here")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: --listen: expected an IP address, got 'here'")


def test_a_second_time_renews_the_certificate_and_keeps_who_may_do_what(tmp_path: Path) -> None:
    plugin = ("--plugin", "/somewhere/plugin.so")
    assert broker_config(tmp_path, *plugin).returncode == 0
    access, server = tmp_path / "broker/dynamic-security.json", tmp_path / "broker/server.pem"
    first = x509.load_pem_x509_certificate(server.read_bytes())
    learnt = {**json.loads(access.read_text()), "learnt": True}
    access.write_text(json.dumps(learnt))
    assert broker_config(tmp_path, *plugin, "--days", "30", "--websocket-port", "443").returncode == 0
    assert json.loads(access.read_text()) == learnt
    second = x509.load_pem_x509_certificate(server.read_bytes())
    assert second.serial_number != first.serial_number
    assert (second.not_valid_after_utc - second.not_valid_before_utc).days == 30
    assert (
        "listener 443 0.0.0.0\nsocket_domain ipv4\nprotocol websockets\n"
        in (tmp_path / "broker/mosquitto.conf").read_text()
    )
    for name in ("server.key", "dynamic-security.json"):
        assert (tmp_path / "broker" / name).stat().st_mode & 0o077 == 0


def test_after_a_new_root_and_a_new_configuration_devices_of_before_and_after_come(tmp_path: Path) -> None:
    with mosquitto.broker(tmp_path / "broker", make_settings(tmp_path)) as running:
        with running_fleet(tmp_path, mqtt_broker=running.address) as fleet:
            before = fleet.enrol("bed-1")
        assert edgeward_fleet("ca", "rotate", "--data-dir", tmp_path / "fleet").returncode == 0
        running.configure(make_settings(tmp_path))
        running.stop()
        running.start()
        with running_fleet(tmp_path, mqtt_broker=running.address) as fleet:
            asyncio.run(_report(running, before, fleet.enrol("bed-2")))


async def _report(running: mosquitto.Mosquitto, *devices: EnrolledDevice) -> None:
    for device in devices:
        link = link_of(device, running.address)
        async with asyncio.timeout(20):
            await let_in(link)
            await link.report(reported_state(1))
        await link.aclose()


@pytest.mark.parametrize("address", ["mqtt://broker:1883", "broker:port", "https://broker:8883"])
def test_an_address_that_makes_no_sense_is_refused(tmp_path: Path, address: str) -> None:
    done = edgeward_fleet("serve", "--data-dir", tmp_path / "fleet", "--mqtt", address)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --mqtt: expected mqtts://HOST:PORT or wss://HOST:PORT/PATH, got ")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("a file")
    done = broker_config(tmp_path, "--plugin", "/somewhere/plugin.so")
    assert done.returncode == 2
    assert f"error: {tmp_path}/broker: expected a folder that can be written" in done.stderr or "--out" in done.stderr
