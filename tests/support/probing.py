"""A fleet with something behind every path, and everybody who might ask it: what test_fleet_schemathesis sends.

with stage(folder) as found:
    found.ask(case, "operator")
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import requests
import schemathesis
from cryptography.hazmat.primitives.asymmetric import ec
from schemathesis import APIOperation, Case, CheckFunction, Response
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from edgeward_contract.artifact import sha256_of
from edgeward_contract.record import Batch, Record, RecordClass
from edgeward_contract.reported import ReportedState
from edgeward_fleet import app
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.services import Services
from edgeward_fleet.settings import Settings
from support import scene
from support.fleet import PASSWORD, EnrolledDevice, Fleet, running_fleet, signing_request
from support.models import wdbc_release

ROUTERS: Final = {"admin": app.ADMIN_ROUTERS, "device": app.DEVICE_ROUTERS, "enrolment": app.ENROLMENT_ROUTERS}
_fresh: Final = itertools.count(1)
STRANGER, FORGER, DEVICE, REVOKED = "stranger", "forger", "device", "revoked"
CALLERS: Final = {
    "admin": (STRANGER, FORGER, *(role.value for role in Role)),
    "device": (REVOKED, DEVICE),  # without a certificate there is no connection
    "enrolment": (STRANGER,),
}
MODEL: Final = "wdbc-risk"
AnyOperation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[AnyOperation]
load_all_checks()
_NOT_CHECKED: Final[list[CheckFunction]] = [
    # Much of what a rule asks for has no place in a JSON schema: a password without the name in it, phases that grow, a
    # digest that is the digest of something. That the good is let through is a test of its own.
    cast(CheckFunction, CHECKS.get_one("positive_data_acceptance")),
    # It repeats requests without credentials; here each caller without the right asks everything in its own name.
    cast(CheckFunction, CHECKS.get_one("ignored_auth")),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A request to be granted. With `token` it is somebody else's than who asks otherwise."""

    path: Mapping[str, str | int]
    body: Any = None
    token: str | None = None


def operations() -> list[tuple[str, str]]:
    """Port and label (`GET /api/v1/me`) of everything that the ports offer, as the composition root lists it."""
    return [
        (port, f"{method} {getattr(route, 'path')}")  # noqa: B009 - BaseRoute does not declare it
        for port, routers in ROUTERS.items()
        for router in routers
        for route in router.routes
        for method in sorted(getattr(route, "methods"))  # noqa: B009
    ]


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where a case is sent and by whom."""

    fleet: Fleet
    session: requests.Session
    schemas: Mapping[str, OpenApiSchema]
    device: EnrolledDevice
    revoked: EnrolledDevice
    rollouts: scene.Scene
    chunk: str

    def operation(self, port: str, label: str) -> AnyOperation:
        method, _, path = label.partition(" ")
        return self.schemas[port][path][method]

    def ask(self, case: AnyCase, port: str, caller: str, token: str | None = None) -> Response:
        """The answer, after every check that does not depend on the caller."""
        options = self._options(port, caller)
        headers = self._headers(case, caller, token)
        answer = case.call(base_url=self._url(port), session=self.session, headers=headers, **options)
        case.validate_response(answer, excluded_checks=_NOT_CHECKED, transport_kwargs=options)
        return answer

    def aim(self, port: str, label: str) -> dict[str, str | int]:
        """Path parameters behind which there is something."""
        version = 2
        release = wdbc_release(version)
        files = {"manifests": "manifest.json", "artifacts": "model.onnx"}
        digest = next((sha256_of((release / name).read_bytes()) for kind, name in files.items() if kind in label), "")
        known: dict[str, str | int] = {
            "device_id": "north-bed-1",
            "username": "grace",
            "token_id": "t-none",  # one that there is would be somebody's
            "name": MODEL,
            "version": version,
            "rollout_id": self.rollouts.half_way,
            "sha256": self.chunk if "chunks" in label else digest,
        }
        return {key: value for key, value in known.items() if "{" + key + "}" in label}

    def good(self, port: str, label: str) -> Good:
        """A request that must be granted."""
        make = _BODIES.get(label)
        found = make(self) if make else Good(path={})
        return Good(path={**self.aim(port, label), **found.path}, body=found.body, token=found.token)

    def case(self, port: str, label: str, good: Good) -> AnyCase:
        case = self.operation(port, label).Case(path_parameters=dict(good.path))
        if good.body is not None:
            case.media_type = "application/octet-stream" if isinstance(good.body, bytes) else "application/json"
            case.body = good.body
        return case

    def token_of(self, username: str) -> str:
        answer = self.fleet.client(None).post("/login", json={"username": username, "password": PASSWORD})
        return str(answer.json()["token"])

    def _url(self, port: str) -> str:
        ready = self.fleet.ready
        return {"admin": ready.admin_url, "device": ready.device_url, "enrolment": ready.enrolment_url}[port]

    def _options(self, port: str, caller: str) -> dict[str, Any]:
        options: dict[str, Any] = {"verify": str(self.fleet.ca_file)}
        who = {DEVICE: self.device, REVOKED: self.revoked}.get(caller)
        if who is not None:
            options["cert"] = (str(who.certificate_file), str(who.key_file))
        return options

    def _headers(self, case: AnyCase, caller: str, token: str | None) -> dict[str, str]:
        if caller == FORGER:
            token = "ew_" + "A" * 43
        elif caller in set(Role):
            ends_its_token = case.path.endswith("/logout")
            token = token or (self.token_of(caller) if ends_its_token else self.fleet.tokens[Role(caller)])
        return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    with running_fleet(folder, logins_per_minute=10**6, enrolments_per_minute=10**6) as fleet:
        rollouts = scene.build(fleet)
        _account(fleet, "grace")
        device, revoked = fleet.enrol("annex-1", "annex"), fleet.enrol("annex-2", "annex")
        fleet.enrol("loft-1", "loft")
        assert fleet.client(Role.ADMIN).post("/devices/annex-2/revoke").status_code == 200
        rollout = scene.start(fleet, f"{MODEL}@2", target={"sites": ["annex"]}, phases=[scene.phase("all", 100)])
        scene.until_offered(fleet, rollout, 0)
        services = cast(Services, SimpleNamespace(settings=Settings(data_dir=folder)))  # all that a description needs
        schemas = {
            "admin": fleet.client(None).get("/openapi.json").json(),
            # These two ports do not give their description away; it says nothing of a fleet's own services.
            "device": app.build_device_app(services).openapi(),
            "enrolment": app.build_enrolment_app(services).openapi(),
        }
        with requests.Session() as session:
            session.trust_env = False  # a CA bundle or a proxy of the machine is none of this fleet's
            yield Stage(
                fleet=fleet,
                session=session,
                schemas={port: _without_credentials(schema) for port, schema in schemas.items()},
                device=device,
                revoked=revoked,
                rollouts=rollouts,
                chunk=_a_chunk(fleet, device),
            )


def _without_credentials(description: dict[str, Any]) -> OpenApiSchema:
    """Who asks is the test's to choose, not a matter of chance."""
    schema = schemathesis.openapi.from_dict(description)
    schema.config.generation.with_security_parameters = False
    rejects = schema.config.checks.negative_data_rejection
    rejects.expected_statuses = [*rejects.expected_statuses, "413"]  # too long for its key, and for the port
    return schema


def _account(fleet: Fleet, name: str) -> None:
    body = {"username": name, "password": PASSWORD, "role": "viewer"}
    assert fleet.client(Role.ADMIN).post("/accounts", json=body).status_code == 201


def _a_chunk(fleet: Fleet, device: EnrolledDevice) -> str:
    sha256 = sha256_of((wdbc_release(2) / "model.onnx").read_bytes())
    index = fleet.device_client(device).get(f"/device/v1/artifacts/{sha256}/index")
    assert index.status_code == 200, index.text
    return str(index.json()["chunks"][0]["sha256"])


def _csr() -> str:
    return signing_request(ec.generate_private_key(ec.SECP256R1()))


def _artifact(_stage: Stage) -> Good:
    data = b"something new"
    return Good(path={"sha256": sha256_of(data)}, body=data)


def _release(_stage: Stage) -> Good:
    manifest = (wdbc_release(2) / "manifest.json").read_bytes()
    return Good(path={}, body={"manifest": base64.b64encode(manifest).decode()})


def _own_token(stage: Stage) -> Good:
    token = stage.token_of("grace")
    mine = stage.fleet.client(None).get("/tokens", headers={"Authorization": f"Bearer {token}"}).json()["items"]
    return Good(path={"token_id": mine[-1]["token_id"]}, token=token)


def _new_password(stage: Stage) -> Good:
    name = f"heidi-{next(_fresh)}"
    _account(stage.fleet, name)
    return Good(path={}, body={"current": PASSWORD, "new": PASSWORD + "!"}, token=stage.token_of(name))


def _approval(stage: Stage) -> Good:
    device = f"attic-{next(_fresh)}"  # one rollout at a time may have a device
    stage.fleet.enrol(device, "attic")
    asked = scene.ask(stage.fleet, {"release": f"{MODEL}@1", "target": {"devices": [device]}})
    return Good(path={"rollout_id": asked.id}, body={"spec_sha256": asked.spec_sha256})


def _batch(_stage: Stage) -> Good:
    record = Record(
        epoch="e",
        sequence=1,
        record_class=RecordClass.RESULT,
        kind="inference",
        boot="b",
        boot_us=1,
        wall_us=1,
        clock_trusted=True,
        body={"model": MODEL, "version": 2},
    )
    return Good(path={}, body=json.loads(Batch(batch_id="b-1", records=(record,)).canonical()))


def _report(_stage: Stage) -> Good:
    state = ReportedState(generation=0, boot="b", sequence=1, agent_version="1")
    return Good(path={}, body=json.loads(state.canonical()))


def _plain(body: object, **path: str) -> Callable[[Stage], Good]:
    return lambda _stage: Good(path=path, body=body)


_BODIES: Final[dict[str, Callable[[Stage], Good]]] = {
    "POST /api/v1/login": _plain({"username": "grace", "password": PASSWORD}),
    "POST /api/v1/me/password": _new_password,
    "POST /api/v1/logout": lambda stage: Good(path={}, token=stage.token_of("grace")),
    "POST /api/v1/tokens": _plain({"name": "ci", "role": "viewer"}),
    "DELETE /api/v1/tokens/{token_id}": _own_token,
    "POST /api/v1/accounts": _plain({"username": "ivan", "password": PASSWORD, "role": "operator"}),
    "PATCH /api/v1/accounts/{username}": _plain({"role": "operator"}),
    "POST /api/v1/devices/{device_id}/revoke": _plain({"reason": "lost"}, device_id="south-ward-4"),
    "POST /api/v1/device-tokens": _plain({"site": "north"}),
    "PUT /api/v1/artifacts/{sha256}": _artifact,
    "POST /api/v1/releases": _release,
    "POST /api/v1/rollouts": _plain({"release": f"{MODEL}@1", "target": {"sites": ["loft"]}}),
    "POST /api/v1/rollouts/{rollout_id}/approve": _approval,
    "POST /api/v1/rollouts/{rollout_id}/abort": lambda stage: Good(path={"rollout_id": stage.rollouts.waiting}),
    "POST /device/v1/certificate": lambda _stage: Good(path={}, body={"csr_pem": _csr()}),
    "POST /device/v1/reported": _report,
    "POST /device/v1/records": _batch,
    "POST /enrolment/v1/enrol": lambda stage: Good(
        path={}, body={"token": stage.fleet.device_token().token, "csr_pem": _csr()}
    ),
}
