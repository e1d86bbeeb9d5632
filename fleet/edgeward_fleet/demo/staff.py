"""The people of the demonstration and the fleet they work with. Nobody approves a rollout of their own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from edgeward_contract.schema import Fields, parse_json
from edgeward_fleet.cli.client import Client
from edgeward_fleet.cli.profile import Profile
from edgeward_fleet.cli.trust import pin
from edgeward_fleet.demo.processes import Household, wait_until

FLEET: Final = "edgeward_fleet"
ADMIN, OPERATOR, APPROVER = "ada", "otto", "petra"
_START_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """A running fleet and three people who are logged in to it, each as a client of the REST API."""

    url: str
    fingerprint: str
    password_file: Path
    admin: Client
    operator: Client
    approver: Client


def open_fleet(folder: Path, household: Household, stack: ExitStack, *options: str) -> Staff:
    """Start a fleet in `folder`, make the first admin by the one-time link and the others by the admin."""
    ready = _start(folder, household, options)
    url, fingerprint = ready.text("admin_url"), ready.text("ca_fingerprint")
    password = secrets.token_urlsafe(18)
    password_file = _private(folder / "password", password)
    nobody = Profile(url=url, ca_pem=pin(url, fingerprint))
    link = urlsplit(ready.text("setup_url"))
    with Client(nobody) as stranger:
        token = parse_qs(link.query)["token"][0]
        stranger.post("/setup", {"token": token, "username": ADMIN, "password": password})
    admin = stack.enter_context(_log_in(nobody, ADMIN, password))
    for username, role in ((OPERATOR, "operator"), (APPROVER, "approver")):
        admin.post("/accounts", {"username": username, "password": password, "role": role})
    return Staff(
        url=url,
        fingerprint=fingerprint,
        password_file=password_file,
        admin=admin,
        operator=stack.enter_context(_log_in(nobody, OPERATOR, password)),
        approver=stack.enter_context(_log_in(nobody, APPROVER, password)),
    )


def _start(folder: Path, household: Household, options: Sequence[str]) -> Fields:
    ready_file = folder / "ready.json"
    ports = [f"--{port}-port=0" for port in ("admin", "device", "enrolment")]
    own = (f"--data-dir={folder / 'fleet'}", f"--ready-file={ready_file}")
    household.start("fleet", FLEET, "serve", *own, *ports, *options)
    wait_until(ready_file.exists, household, "the fleet to listen", timeout_s=_START_S)
    return parse_json(ready_file.read_bytes())


def _log_in(nobody: Profile, username: str, password: str) -> Client:
    with Client(nobody) as stranger:
        token = stranger.post("/login", {"username": username, "password": password}).text("token")
    return Client(Profile(url=nobody.url, ca_pem=nobody.ca_pem, token=token, username=username))


def _private(path: Path, secret: str) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    return path
