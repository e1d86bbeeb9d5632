"""Putting a release on one real device, and asking what it answers with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeward_agent.client import Client
from edgeward_contract.artifact import DeviceId, sha256_of
from edgeward_contract.desired import DesiredModel
from edgeward_contract.manifest import CaptureMode, Manifest
from edgeward_fleet.clock import utc_now
from edgeward_fleet.states.desired import set_model
from support.agent import Agent, until
from support.link_fleet import OpenFleet

ONE_CASE = np.ones((1, 30), np.float32)
CONFIGURATION = """
[serving]
http = "127.0.0.1:0"
[update]
probation_s = 1.0
poll_s = 0.1
latency_min_requests = 1000000
[report]
min_interval_s = 0.1
"""


def release(checkout: Path, version: int) -> Path:
    return checkout / f"models/wdbc-risk/releases/{version}"


def want(opened: OpenFleet, agent: Agent, folder: Path, deployment: str) -> None:
    """As an approved rollout does it for one device."""
    manifest = (folder / "manifest.json").read_bytes()
    parsed = Manifest.parse(manifest)
    wanted = DesiredModel(release=parsed.release, sha256=sha256_of(manifest), deployment=deployment)
    name = DeviceId(agent.status().device.id)
    opened.services.database.run_sync(lambda session: set_model(session, name, parsed.name, wanted, now=utc_now()))
    opened.services.wakeups.notify(name)


def committed(agent: Agent, wanted: str) -> None:
    def done() -> bool:
        seen = [(each.live, each.slot, each.update_state) for each in agent.status().models]
        return seen == [(wanted, "current", "COMMITTED")]

    until(done, what=f"{wanted} committed")


def version(agent: Agent, capture: CaptureMode = CaptureMode.OFF) -> str:
    """Which version answers."""
    with Client(f"http://127.0.0.1:{agent.port()}") as client:
        return client.infer("wdbc-risk", {"features": ONE_CASE}, capture=capture).version
