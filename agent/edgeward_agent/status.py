"""What this device is, for the person in front of it. One document, whether the agent runs or not."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from edgeward_agent.agent_socket import ask
from edgeward_agent.errors import AgentError, UpdateError
from edgeward_agent.health import disk_free_bytes
from edgeward_agent.identity.keys import Identity, expiry_line, load_identity
from edgeward_agent.link.observed import LinkCondition
from edgeward_agent.outbox.model import Stats
from edgeward_agent.process import agent_is_running
from edgeward_agent.serving_process import Addresses, PidFile
from edgeward_agent.state_dir import StateDir
from edgeward_agent.update.journal import read_book
from edgeward_agent.update.report import reported_models
from edgeward_contract.artifact import ModelName
from edgeward_contract.reported import ReportedModel
from edgeward_contract.version import __version__


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`pid` 0: no agent runs, and what follows was read from the disk."""

    pid: int = 0
    version: str = __version__
    uptime_s: int = 0


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Empty before enrolment; `problem` says what is wrong with the identity."""

    id: str = ""
    site: str = ""
    fleet: str = ""
    certificate_days_left: int = 0
    problem: str = ""


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`heard_s_ago` is None before the first answer since the start."""

    connected: bool = False
    heard_s_ago: int | None = None
    error: str = ""


class ServingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`pid` 0: nothing serves."""

    pid: int = 0
    http: str = ""
    unix: str = ""
    frames: str = ""
    grpc: str = ""
    restarts: int = 0


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What answers, in which slot, and how the newest deployment stands. Only a running agent knows what answers."""

    name: str
    live: str = ""
    slot: str = ""
    requests: int = 0
    errors: int = 0
    p99_us: int = 0
    late: int = 0
    refused: int = 0
    fallback: str = ""
    update: str = ""
    update_state: str = ""
    reason: str = ""
    detail: str = ""
    progress_percent: int = 0


class OutboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for the fleet, and what was not kept since the start. -1 where only the running agent knows."""

    records: int = -1
    oldest_s: int = -1
    bytes: int = -1
    quarantined: int = -1
    dropped: int = -1
    not_kept: int = -1


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `edgeward-agent status` shows."""

    agent: AgentStatus = AgentStatus()
    device: DeviceStatus = DeviceStatus()
    link: LinkStatus = LinkStatus()
    serving: ServingStatus = ServingStatus()
    models: tuple[ModelStatus, ...] = ()
    outbox: OutboxStatus = OutboxStatus()
    disk_free_bytes: int = 0
    alarms: tuple[str, ...] = ()

    def json(self) -> str:
        return msgspec.json.encode(self).decode()


def read_status(state: StateDir) -> Status:
    """Ask the agent of this folder, or read its disk when none runs. Raises AgentError."""
    if not agent_is_running(state.agent_pid):
        return offline_status(state)
    (line,) = ask(state.agent_socket, {"ask": "status"})
    return msgspec.json.decode(line, type=Status)


def offline_status(state: StateDir) -> Status:
    """From the disk alone; the serving process may still be there, as after `kill -9` of the agent."""
    models, alarms = _models_on_disk(state)
    return Status(
        device=_device_on_disk(state),
        serving=recorded_serving(state),
        models=model_statuses(models),
        disk_free_bytes=disk_free_bytes(state.root),
        alarms=alarms,
    )


def recorded_serving(state: StateDir) -> ServingStatus:
    """The serving process that was written down, if it is still that process."""
    running = PidFile.read(state.serving_pid)
    watched = running.watched() if running else None
    if running is None or watched is None:
        return ServingStatus()
    watched.close()
    bound = running.bound
    return serving_status(running.pid, bound, restarts=0)


def device_status(identity: Identity, now_s: float) -> DeviceStatus:
    return DeviceStatus(
        id=identity.facts.device_id,
        site=identity.facts.site,
        fleet=identity.facts.device_url,
        certificate_days_left=identity.days_left(now_s),
        problem=expiry_line(identity, now_s),
    )


def link_status(condition: LinkCondition, now_s: float) -> LinkStatus:
    heard = round(now_s - condition.heard_s) if condition.heard_s else None
    return LinkStatus(
        connected=bool(condition.heard_s) and not condition.error, heard_s_ago=heard, error=condition.error
    )


def serving_status(pid: int, addresses: Addresses, restarts: int) -> ServingStatus:
    return ServingStatus(
        pid=pid,
        http=addresses.http,
        unix=addresses.unix,
        frames=addresses.frames,
        grpc=addresses.grpc,
        restarts=restarts,
    )


def outbox_status(stats: Stats, not_kept: int) -> OutboxStatus:
    return OutboxStatus(
        records=stats.records,
        oldest_s=stats.oldest_s,
        bytes=stats.bytes,
        quarantined=stats.quarantined,
        dropped=stats.dropped,
        not_kept=not_kept,
    )


def model_statuses(models: Mapping[ModelName, ReportedModel]) -> tuple[ModelStatus, ...]:
    return tuple(_model_status(name, model) for name, model in sorted(models.items()))


def _model_status(name: ModelName, model: ReportedModel) -> ModelStatus:
    live, update = model.live, model.update
    return ModelStatus(
        name=name,
        live=str(live.release) if live else "",
        slot=live.slot if live else "",
        requests=live.traffic.requests if live else 0,
        errors=live.traffic.errors if live else 0,
        p99_us=live.traffic.p99_us if live else 0,
        late=live.traffic.late if live else 0,
        refused=live.traffic.refused if live else 0,
        fallback=live.fallback if live else "",
        update=str(update.release) if update else "",
        update_state=update.state.value if update else "",
        reason=update.reason if update else "",
        detail=update.detail if update else "",
        progress_percent=update.progress_percent if update else 0,
    )


def _device_on_disk(state: StateDir) -> DeviceStatus:
    try:
        return device_status(load_identity(state.identity, finish=False), time.time())
    except AgentError as error:
        return DeviceStatus(problem=str(error))


def _models_on_disk(state: StateDir) -> tuple[Mapping[ModelName, ReportedModel], tuple[str, ...]]:
    """What was stored of updates, and what to look at when that cannot be read."""
    if not state.root.exists():
        return {}, ()
    try:
        return reported_models(read_book(state.root), None, {}), ()
    except UpdateError as error:
        return {}, (f"journal-unreadable:{type(error).__name__}",)
