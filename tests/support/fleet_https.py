"""Shortcuts over the real ports of a fleet: pushing releases, devices that speak HTTPS, rollouts by REST."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import httpx

from edgeward_contract.artifact import DeviceId, ModelName, Sha256, sha256_of
from edgeward_contract.desired import DesiredState
from edgeward_contract.manifest import Manifest
from edgeward_contract.record import Batch, Record, RecordClass
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import JsonValue
from edgeward_contract.topics import REPORTED, desired_path
from edgeward_fleet.accounts.model import Role
from support.fleet import EnrolledDevice, Fleet
from support.rehearsal import MODEL, SimulatedDevice, manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A registered release with its files."""

    manifest: Manifest
    data: bytes
    golden: bytes

    @property
    def sha256(self) -> Sha256:
        return self.manifest.sha256()


@dataclass(frozen=True, slots=True)
class HttpsDeviceLink:
    """A device's link as plain requests; one at a time is enough for a test."""

    device: DeviceId
    client: httpx.Client

    async def desired_now(self, after: int) -> DesiredState | None:
        answer = self.client.get(desired_path(after, 0))
        assert answer.status_code in (200, 204), answer.text
        return DesiredState.parse(answer.content) if answer.status_code == 200 else None

    async def report(self, reported: ReportedState) -> None:
        answer = self.client.post(REPORTED, content=reported.canonical())
        assert answer.status_code == 204, answer.text


def push(fleet: Fleet, version: int, *, name: ModelName = MODEL, size_bytes: int = 600_000) -> Pushed:
    """Register a release whose file has three chunks."""
    data = (f"model {version} of {name} ".encode() * (size_bytes // 10))[:size_bytes]
    golden = f"golden {version} of {name}".encode()
    for artifact in (data, golden):
        answer = put_artifact(fleet, artifact)
        assert answer.status_code in (200, 201), answer.text
    made = manifest(version, data, golden, name=name)
    answer = post_release(fleet, made.canonical())
    assert answer.status_code == 201, answer.text
    return Pushed(manifest=made, data=data, golden=golden)


def put_artifact(fleet: Fleet, data: bytes, sha256: str | None = None, role: Role = Role.OPERATOR) -> httpx.Response:
    return fleet.client(role).put(f"/artifacts/{sha256 or sha256_of(data)}", content=data)


def post_release(fleet: Fleet, manifest_bytes: bytes, role: Role = Role.OPERATOR) -> httpx.Response:
    return fleet.client(role).post("/releases", json={"manifest": base64.b64encode(manifest_bytes).decode()})


def simulated(fleet: Fleet, device: EnrolledDevice) -> SimulatedDevice:
    return SimulatedDevice(HttpsDeviceLink(DeviceId(device.device_id), fleet.device_client(device)))


def start_rollout(fleet: Fleet, release: str, **spec: JsonValue) -> str:
    """The id of a rollout that an operator asked for and an approver allowed."""
    made = fleet.client(Role.OPERATOR).post("/rollouts", json={"release": release, **spec})
    assert made.status_code == 201, made.text
    body = made.json()
    allowed = fleet.client(Role.APPROVER).post(
        f"/rollouts/{body['id']}/approve", json={"spec_sha256": body["spec_sha256"]}
    )
    assert allowed.status_code == 200, allowed.text
    return str(body["id"])


def detail(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["detail"])


def record(sequence: int, *, epoch: str = "e1", kind: str = "inference", body: JsonValue = None) -> Record:
    content: dict[str, JsonValue] = {"model": MODEL, "version": 1, "outcome": "ok"}
    return Record(
        epoch=epoch,
        sequence=sequence,
        record_class=RecordClass.RESULT,
        kind=kind,
        boot="b1",
        boot_us=sequence,
        wall_us=1_790_000_000_000_000 + sequence,
        clock_trusted=True,
        body=body if isinstance(body, dict) else content,
    )


def batch(*records: Record, batch_id: str = "b-1") -> Batch:
    return Batch(batch_id=batch_id, records=records)
