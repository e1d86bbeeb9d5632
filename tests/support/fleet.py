"""A real fleet on loopback: three ports, real TLS, its own folder; in this process (quick) or in one of its own.

with running_fleet(tmp_path) as fleet:
    fleet.client(Role.VIEWER).get("/devices")
    device = fleet.enrol("bed-1")
    fleet.device_client(device).get("/device/v1/desired?after=0&wait=0")
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeward_fleet import serve
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.clock import Clock, utc_now
from edgeward_fleet.serve import Ready
from edgeward_fleet.settings import Argon2Cost, Settings

CHEAP = Argon2Cost(time_cost=1, memory_kib=64, parallelism=1)
PASSWORD = "a test has no secrets, only words"
TIMEOUT_S = 20.0


class MovableClock:
    """The real time plus what a test has added."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, by: timedelta) -> None:
        self._ahead += by


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceToken:
    """What an operator hands to the person at a device."""

    token: str
    device_id: str
    enrolment_url: str
    ca_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledDevice:
    """A device's identity as files."""

    device_id: str
    site: str
    key_file: Path
    certificate_file: Path
    ca_file: Path
    device_url: str


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A running fleet whose set-up is done: one account per role, named after it, each with a token."""

    ready: Ready
    folder: Path
    ca_file: Path
    tokens: dict[Role, str] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _clients: dict[Role | None, httpx.Client] = field(default_factory=dict)

    def client(self, role: Role | None) -> httpx.Client:
        """For the admin port, below /api/v1; None sends no token."""
        if role not in self._clients:
            headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
            self._clients[role] = self._open(self.ready.admin_url + "/api/v1", self.tls(), headers)
        return self._clients[role]

    def enrolment_client(self) -> httpx.Client:
        return self._open(self.ready.enrolment_url, self.tls(), {})

    def device_client(self, device: EnrolledDevice) -> httpx.Client:
        context = self.tls()
        context.load_cert_chain(device.certificate_file, device.key_file)
        return self._open(self.ready.device_url, context, {})

    def tls(self) -> ssl.SSLContext:
        """Trusts this fleet's CA and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        return context

    def device_token(self, site: str = "north", device_id: str | None = None) -> DeviceToken:
        answer = self.client(Role.OPERATOR).post("/device-tokens", json={"site": site, "device_id": device_id})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        return DeviceToken(
            token=body["token"],
            device_id=body["device_id"],
            enrolment_url=body["enrolment_url"],
            ca_fingerprint=body["ca_fingerprint"],
        )

    def enrol(self, device_id: str, site: str = "north") -> EnrolledDevice:
        """Go through the real enrolment port."""
        key = ec.generate_private_key(ec.SECP256R1())
        token = self.device_token(site, device_id)
        answer = self.enrolment_client().post(
            "/enrolment/v1/enrol", json={"token": token.token, "csr_pem": signing_request(key)}
        )
        assert answer.status_code == 201, answer.text
        body = answer.json()
        folder = self.folder / "devices" / device_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "device.key").write_bytes(private_pem(key))
        (folder / "device.pem").write_text(body["certificate_pem"])
        (folder / "ca.pem").write_text(body["ca_pem"])
        return EnrolledDevice(
            device_id=device_id,
            site=site,
            key_file=folder / "device.key",
            certificate_file=folder / "device.pem",
            ca_file=folder / "ca.pem",
            device_url=body["device_url"],
        )

    def close(self) -> None:
        self._stack.close()

    def _open(self, base_url: str, context: ssl.SSLContext, headers: dict[str, str]) -> httpx.Client:
        client = httpx.Client(base_url=base_url, verify=context, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        return self._stack.enter_context(client)


def make_settings(folder: Path, **changes: object) -> Settings:
    """For a test: any free ports, cheap passwords, no limits that a quick test would meet."""
    values: dict[str, object] = {
        "data_dir": folder / "fleet",
        "admin_port": 0,
        "device_port": 0,
        "enrolment_port": 0,
        "argon2": CHEAP,
        "enrolments_per_minute": 600,
        "logins_per_minute": 600,
        "ticker_interval_s": 0.05,
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def running_fleet(folder: Path, clock: Clock = utc_now, **changes: object) -> Iterator[Fleet]:
    """A fleet in a thread of this process; `changes` are fields of Settings."""
    with in_thread(make_settings(folder, **changes), clock) as ready, set_up(ready, folder) as fleet:
        yield fleet


@contextmanager
def in_thread(settings: Settings, clock: Clock = utc_now) -> Iterator[Ready]:
    """A fleet without accounts; what it raises is raised here."""
    outcome: queue.Queue[Ready | BaseException] = queue.Queue()
    handles: queue.Queue[Callable[[], object]] = queue.Queue()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        handles.put(lambda: loop.call_soon_threadsafe(stop.set))
        await serve.run(settings, outcome.put, stop, clock)

    def body() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            outcome.put(error)

    thread = threading.Thread(target=body, name="fleet", daemon=True)
    thread.start()
    first = outcome.get(timeout=TIMEOUT_S)
    if isinstance(first, BaseException):
        thread.join(TIMEOUT_S)
        raise first
    try:
        yield first
    finally:
        handles.get()()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "expected the fleet to stop"
        if not outcome.empty():
            raise AssertionError(f"expected the fleet to stop cleanly, got {outcome.get()!r}")


@contextmanager
def fleet_process(folder: Path, *options: str) -> Iterator[tuple[Fleet, subprocess.Popen[str]]]:
    """`edgeward-fleet serve` as people start it, set up; ended by SIGTERM unless it has ended before."""
    ready_file = folder / "ready.json"
    command = [sys.executable, "-m", "edgeward_fleet", "serve", "--data-dir", str(folder / "fleet")]
    ports = ["--admin-port", "0", "--device-port", "0", "--enrolment-port", "0", "--ready-file", str(ready_file)]
    with (folder / "fleet.log").open("a") as log:
        process = subprocess.Popen([*command, *ports, *options], stdout=log, stderr=log, text=True, env=os.environ)
    try:
        ready = _wait_ready(ready_file, process)
        with set_up(ready, folder) as fleet:
            yield fleet, process
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        ready_file.unlink(missing_ok=True)


@contextmanager
def set_up(ready: Ready, folder: Path) -> Iterator[Fleet]:
    """Make the accounts of a fresh fleet; log in to the ones of an older one."""
    with httpx.Client(verify=_no_trust(), trust_env=False, timeout=TIMEOUT_S) as stranger:
        pem = stranger.get(ready.admin_url + "/api/v1/ca").json()["ca_pem"]
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert "sha256:" + certificate.fingerprint(hashes.SHA256()).hex() == ready.ca_fingerprint
    (folder / "ca.pem").write_text(pem)
    fleet = Fleet(ready=ready, folder=folder, ca_file=folder / "ca.pem")
    try:
        _accounts(fleet)
        yield fleet
    finally:
        fleet.close()


def signing_request(key: ec.EllipticCurvePrivateKey, common_name: str = "whatever") -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _accounts(fleet: Fleet) -> None:
    stranger = fleet.client(None)
    if fleet.ready.setup_url:
        token = fleet.ready.setup_url.partition("token=")[2]
        made = stranger.post("/setup", json={"token": token, "username": "admin", "password": PASSWORD})
        assert made.status_code == 201, made.text
        fleet.tokens[Role.ADMIN] = _login(stranger, Role.ADMIN)
        for role in (Role.VIEWER, Role.OPERATOR, Role.APPROVER):
            body = {"username": role.value, "password": PASSWORD, "role": role.value}
            made = fleet.client(Role.ADMIN).post("/accounts", json=body)
            assert made.status_code == 201, made.text
    for role in Role:
        fleet.tokens.setdefault(role, _login(stranger, role))


def _login(stranger: httpx.Client, role: Role) -> str:
    answer = stranger.post("/login", json={"username": role.value, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


def _no_trust() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _wait_ready(file: Path, process: subprocess.Popen[str]) -> Ready:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if file.exists():
            return Ready(**json.loads(file.read_text()))
        assert process.poll() is None, f"expected a running fleet, it ended with {process.returncode}"
        time.sleep(0.02)
    raise AssertionError("expected the fleet to be ready in time")
