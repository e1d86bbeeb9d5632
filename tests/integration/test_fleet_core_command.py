"""`edgeward-fleet` as people run it: start, stop, the CA's care, and every way in which a start can fail."""

from __future__ import annotations

import os
import resource
import socket
import sqlite3
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from edgeward_contract.topics import desired_path
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.listeners import MAX_FILES
from support.fleet import EnrolledDevice, fleet_process, running_fleet, signing_request

NOW = desired_path(0, 0)


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeward_fleet", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, **environment},
    )


def serve(data_dir: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ports = ("--admin-port", "0", "--device-port", "0", "--enrolment-port", "0")
    return command("serve", "--data-dir", data_dir, *ports, *options, **environment)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode in (1, 2), done
    assert len(lines) == 2, done.stderr  # the message, then the way out
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in done.stderr


def test_it_serves_until_sigterm_keeps_secrets_out_of_its_log_and_starts_again_with_what_it_had(tmp_path: Path) -> None:
    with fleet_process(tmp_path) as (fleet, process):
        device = fleet.enrol("bed-1")
        secrets = [fleet.device_token().token, *fleet.tokens.values()]
        assert fleet.device_client(device).get(NOW).status_code == 204
        process.terminate()
        assert process.wait(10) == 0
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("fleet/fleet.db*"))
    log = (tmp_path / "fleet.log").read_text()
    for secret in secrets:
        assert secret not in log
        assert secret.encode() not in kept
    with fleet_process(tmp_path) as (fleet, _):
        assert fleet.ready.setup_url is None
        moved = EnrolledDevice(
            device_id=device.device_id,
            site=device.site,
            key_file=device.key_file,
            certificate_file=device.certificate_file,
            ca_file=device.ca_file,
            device_url=fleet.ready.device_url,
        )
        assert fleet.device_client(moved).get(NOW).status_code == 204


def test_a_stop_does_not_wait_for_parked_polls(tmp_path: Path) -> None:
    with fleet_process(tmp_path) as (fleet, process), ThreadPoolExecutor(1) as threads:
        link = fleet.device_client(fleet.enrol("bed-1"))
        assert link.get(NOW).status_code == 204
        poll = threads.submit(link.get, desired_path(0, 55), timeout=60)
        process.terminate()
        assert process.wait(8) == 0
        with suppress(httpx.TransportError):  # the stop may have come before the poll was in
            assert poll.result(5).status_code in (204, 503)


def test_it_allows_itself_more_files_than_a_shell_does(tmp_path: Path) -> None:
    """1,200 devices that wait are 1,200 open files; the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))
    try:
        with fleet_process(tmp_path) as (_, process):
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (min(MAX_FILES, hard), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("serve", "--data-dir", tmp_path / "fleet", "--admin-port", str(port))
    assert_one_line(done, f"127.0.0.1:{port}: expected a free port, got: Address already in use", "ss -ltnp")


def test_a_host_of_another_machine_is_named(tmp_path: Path) -> None:
    assert_one_line(serve(tmp_path / "fleet", "--host", "192.0.2.1"), "--host: expected an address of this machine")


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (("nonsense",), "No such command 'nonsense'", "`edgeward-fleet --help`"),
        (("serve", "--nonsense"), "No such option", "`edgeward-fleet serve --help`"),
        (("serve", "--admin-port", "x"), "'--admin-port': 'x' is not a valid integer", "`edgeward-fleet serve --help`"),
        (
            ("serve", "--public-host", "bad host!"),
            "expected a host name or an IP address",
            "`edgeward-fleet serve --help`",
        ),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_like_every_error(
    arguments: tuple[str, ...], words: str, hint: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert_one_line(done, words, f"\n  {hint} shows what it takes.")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = serve(tmp_path / "file" / "fleet")
    assert_one_line(done, "expected a folder that can be written, got: Not a directory", "--data-dir")


def test_one_process_owns_a_data_folder(tmp_path: Path) -> None:
    with running_fleet(tmp_path):
        done = command("audit", "verify", "--data-dir", tmp_path / "fleet")
    assert_one_line(done, "expected a folder that no fleet uses", f"process {os.getpid()} does")


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "fleet.db").write_bytes(b"x" * 8192)
    assert_one_line(serve(tmp_path / "fleet"), "expected a sound database, got: file is not a database", "backups")


def test_what_is_lost_or_cannot_be_written_is_named_and_nothing_new_takes_its_place(tmp_path: Path) -> None:
    """A new CA is one that no device knows, a new passphrase opens no CA that is there."""
    folder = tmp_path / "fleet"
    with running_fleet(tmp_path):
        pass
    passphrase = folder / "ca.passphrase"
    passphrase.rename(tmp_path / "copy")
    assert_one_line(serve(folder), f"{passphrase}: expected a readable file with the passphrase", "EDGEWARD_CA_PASSPHR")
    assert not passphrase.exists()
    (tmp_path / "copy").rename(passphrase)
    nowhere = tmp_path / "nowhere" / "ready"
    assert_one_line(serve(folder, "--ready-file", str(nowhere)), f"--ready-file {nowhere}: expected a file that can be")
    (folder / "uploads" / "x.part").mkdir()
    assert_one_line(serve(folder), "uploads: expected a folder for uploads, got: Is a directory")
    (folder / "fleet.db").write_bytes(b"")
    gone = serve(folder)
    assert_one_line(gone, "fleet.db: expected the database of the fleet that has run here, found none", "your backup")
    assert (folder / "fleet.db").stat().st_size == 0


def test_a_database_url_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    done = serve(tmp_path / "fleet", "--database-url", "nonsense")
    assert done.returncode == 2
    assert_one_line(done, "--database-url: expected one such as postgresql+psycopg://", "got 'nonsense'")


def test_another_passphrase_does_not_open_the_ca(tmp_path: Path) -> None:
    first = {"EDGEWARD_CA_PASSPHRASE": "the first passphrase"}
    assert command("db", "upgrade", "--data-dir", tmp_path / "fleet", **first).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWARD_CA_PASSPHRASE", "the first passphrase")
        with running_fleet(tmp_path):
            pass
    done = serve(tmp_path / "fleet", EDGEWARD_CA_PASSPHRASE="another passphrase")
    assert_one_line(done, "expected the passphrase of the CA's key, the one of EDGEWARD_CA_PASSPHRASE is not it")
    assert "another passphrase" not in done.stderr


def test_a_setup_link_is_given_while_there_is_no_admin(tmp_path: Path) -> None:
    first = command("setup-link", "--data-dir", tmp_path / "fleet", "--url", "https://fleet.example:8443/")
    assert first.returncode == 0
    assert first.stdout.startswith("https://fleet.example:8443/setup?token=ews_")
    with running_fleet(tmp_path):
        pass
    done = command("setup-link", "--data-dir", tmp_path / "fleet")
    assert_one_line(done, "expected a fleet without an admin, this one has one")


def test_a_rotation_lets_old_devices_in_until_they_have_renewed(tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet:
        device = fleet.enrol("bed-1")
        before = fleet.ready.ca_fingerprint
    for _ in range(2):  # the root in between has no device at all, but the way leads over it
        done = command("ca", "rotate", "--data-dir", tmp_path / "fleet")
        assert done.returncode == 0, done.stderr
    assert "2 roots are trusted" in done.stdout
    with running_fleet(tmp_path) as fleet:
        assert fleet.ready.ca_fingerprint != before
        with old_device(fleet.ready.device_url, device) as link:  # it knows the old root alone
            assert link.get(NOW).status_code == 204
            answer = link.post("/device/v1/certificate", json={"csr_pem": _csr()})
        assert answer.json()["ca_pem"] == fleet.ca_file.read_text()
        newcomer = fleet.enrol("bed-2")
        assert fleet.device_client(newcomer).get(NOW).status_code == 204
        fleet.client(Role.ADMIN).post("/devices/bed-1/revoke")
    with running_fleet(tmp_path) as fleet, old_device(fleet.ready.device_url, device) as link:
        with pytest.raises(httpx.TransportError):  # nobody needs the old root any more: it is not trusted
            link.get(NOW)
        assert fleet.client(Role.VIEWER).get("/health").status_code == 200


def old_device(device_url: str, device: EnrolledDevice) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(device.ca_file))
    context.load_cert_chain(device.certificate_file, device.key_file)
    return httpx.Client(base_url=device_url, verify=context, trust_env=False, timeout=20)


def _csr() -> str:
    return signing_request(ec.generate_private_key(ec.SECP256R1()))


def test_a_backup_of_the_ca_opens_with_the_passphrase_and_restores(tmp_path: Path) -> None:
    passphrase = {"EDGEWARD_CA_PASSPHRASE": "the first passphrase"}
    bundle = tmp_path / "ca.p12"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWARD_CA_PASSPHRASE", passphrase["EDGEWARD_CA_PASSPHRASE"])
        with running_fleet(tmp_path) as fleet:
            fingerprint = fleet.ready.ca_fingerprint
    done = command("ca", "backup", "--data-dir", tmp_path / "fleet", bundle, **passphrase)
    assert done.returncode == 0, done.stderr
    assert bundle.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(bundle.read_bytes(), b"a wrong passphrase")
    again = command("ca", "backup", "--data-dir", tmp_path / "fleet", bundle, **passphrase)
    assert_one_line(again, "expected a new file, there is one already")
    wrong = command(
        "ca", "restore", "--data-dir", tmp_path / "new", bundle, EDGEWARD_CA_PASSPHRASE="a wrong passphrase"
    )
    assert_one_line(wrong, "expected a CA backup that the passphrase of EDGEWARD_CA_PASSPHRASE opens")
    restored = command("ca", "restore", "--data-dir", tmp_path / "new", bundle, **passphrase)
    assert restored.stdout.strip() == f"restored: {fingerprint}"
    occupied = command("ca", "restore", "--data-dir", tmp_path / "new", bundle, **passphrase)
    assert_one_line(occupied, "expected a fleet without a CA, this one has its own")


def test_the_audit_log_is_verified_from_outside(tmp_path: Path) -> None:
    with running_fleet(tmp_path):
        pass
    good = command("audit", "verify", "--data-dir", tmp_path / "fleet")
    assert good.returncode == 0
    assert "unbroken" in good.stdout
    with closing(sqlite3.connect(tmp_path / "fleet" / "fleet.db")) as intruder:
        intruder.execute("DROP TRIGGER audit_no_delete")
        intruder.execute("DELETE FROM audit WHERE sequence = 3")
        intruder.commit()
    bad = command("audit", "verify", "--data-dir", tmp_path / "fleet")
    assert_one_line(bad, "expected entry 3, got entry 4: entries in between are gone")
