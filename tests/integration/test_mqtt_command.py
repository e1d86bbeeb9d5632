"""`edgeward-fleet mqtt broker-config` and `serve --mqtt` as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from support import mosquitto
from support.fleet import fleet_process
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
    assert "listener 443 0.0.0.0\nprotocol websockets\n" in (tmp_path / "broker/mosquitto.conf").read_text()
    for name in ("server.key", "dynamic-security.json"):
        assert (tmp_path / "broker" / name).stat().st_mode & 0o077 == 0


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
