"""Composition root of the control process: open in order, name every task, close in reverse. No logic lives here.

The serving process is started first and ended only when somebody asks the agent to stop. When the agent fails, it
leaves the serving process to the next agent: patients do not pay for our bugs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec

from edgeward_agent.agent_socket import answering
from edgeward_agent.clock import SystemClock
from edgeward_agent.config import AgentConfig, ServingConfig
from edgeward_agent.desk import Desk
from edgeward_agent.health import Device, clock_trusted
from edgeward_agent.identity import tls
from edgeward_agent.identity.keys import Identity, expiry_line, load_identity
from edgeward_agent.identity.renewal import Renewal
from edgeward_agent.link.follow import follow_desired
from edgeward_agent.link.observed import ObservedLink
from edgeward_agent.link.opening import open_link, wanted_broker
from edgeward_agent.link.source import HttpsReleaseSource
from edgeward_agent.link.wire import Wire
from edgeward_agent.listening import FRAMES_WORK, check_exposed, exposure
from edgeward_agent.log import fields
from edgeward_agent.not_kept import NotKept
from edgeward_agent.outbox.forwarder import Forwarder
from edgeward_agent.outbox.model import StoreOptions
from edgeward_agent.outbox.receiver import capture_receiver
from edgeward_agent.outbox.store import Store, open_store
from edgeward_agent.priority import step_back
from edgeward_agent.process import StateFolderLock
from edgeward_agent.reporter import Reporter, Rhythm
from edgeward_agent.serving.loop import stop_signals
from edgeward_agent.serving_control import ServingControl
from edgeward_agent.serving_process import Addresses, Allowance, ServingPlan
from edgeward_agent.state_dir import StateDir
from edgeward_agent.supervisor import ChildSupervisor, Patience
from edgeward_agent.token_file import read_token
from edgeward_agent.update.chunks import free_bytes
from edgeward_agent.update.confinement import Limits
from edgeward_agent.update.executor import Updater
from edgeward_agent.update.graphs import Caretaker, GraphFolder, GraphPreparer, PreparingProbe
from edgeward_agent.update.inspector import Inspector
from edgeward_agent.update.journal import FILE as JOURNAL
from edgeward_agent.update.journal import Journal
from edgeward_agent.update.probe import ChildProbe
from edgeward_contract.mqtt.broker import BrokerAddress

log = logging.getLogger(__name__)

_CLOCK: Final = SystemClock()
_ID_DIGITS: Final = 16
_START_S: Final = 5.0  # of the serving process with small models; a larger one is waited for by the updater


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the tasks work with."""

    device: Device
    link: ObservedLink
    back: asyncio.Event
    forwarder: Forwarder
    reporter: Reporter
    caretaker: Caretaker
    inspector: Inspector


async def run(state: StateDir, config: AgentConfig) -> None:
    """Be this device until SIGTERM or SIGINT.

    Raises:
        NotEnrolled, IdentityDamaged: there is no usable identity.
        AgentRunning: another agent has this state folder.
        PortInUse, ConfigError: an address cannot be listened on, or should not; or there is no token or no broker where
            one is wanted.
        OutboxError, UpdateError: the disk does not work; the serving process goes on.
    """
    stop = stop_signals()
    os.umask(0o077)  # others may pass through the state folder; what lies in it is not for them
    state.make()
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(StateFolderLock(state.agent_pid)))
        identity = load_identity(state.identity)
        broker = wanted_broker(config.link, identity.facts)
        serving = ServingControl(state.control_socket)
        supervisor = _supervisor(state, config, serving)
        step_back()
        await supervisor.start()
        stack.push(_leave_serving(supervisor))
        parts = await _open(stack, state, config, identity, broker, supervisor, serving)
        await stack.enter_async_context(answering(state.agent_socket, Desk(parts.device, parts.link).answer))
        _announce(config, parts.device)
        await _work(parts, stop)
        log.info("stopping")
        await supervisor.stop()


async def _open(
    stack: AsyncExitStack,
    state: StateDir,
    config: AgentConfig,
    identity: Identity,
    broker: BrokerAddress | None,
    supervisor: ChildSupervisor,
    serving: ServingControl,
) -> _Parts:
    wire = Wire(identity.facts.device_url, tls.mutual(identity), timeout_s=config.link.timeout_s)
    renewal = Renewal(identity, wire, clock=_CLOCK, timeout_s=config.link.timeout_s)
    carrier = open_link(config.link, broker, wire, lambda: renewal.identity)
    link = ObservedLink(carrier, clock=_CLOCK, explain=lambda: expiry_line(renewal.identity, _CLOCK.wall()))
    stack.push_async_callback(link.aclose)
    store = await stack.enter_async_context(_store(state, config, renewal))
    await stack.enter_async_context(capture_receiver(state.capture_socket, store))
    news = asyncio.Event()
    preparer = _preparer(state, config)
    updater = _updater(stack, state, config, HttpsReleaseSource(wire), serving, preparer, news)
    caretaker = Caretaker(preparer, state.root / "releases", lambda: updater.serving_state, clock=_CLOCK)
    inspector = Inspector(state.root / "releases", current=lambda: updater.current, tell=updater.suspect, clock=_CLOCK)
    device = Device(
        root=state.root,
        renewal=renewal,
        store=store,
        supervisor=supervisor,
        updater=updater,
        not_kept=NotKept(_CLOCK),
        clock=_CLOCK,
    )
    rhythm = Rhythm(heartbeat_s=config.report.heartbeat_s, min_interval_s=config.report.min_interval_s)
    reporter = Reporter(link, device.snapshot, news=news, clock=_CLOCK, rhythm=rhythm, draw=random.random)
    forwarder = Forwarder(store, link, clock=_CLOCK)
    back = asyncio.Event()
    link.on_return += [news.set, forwarder.nudge, back.set]
    return _Parts(
        device=device,
        link=link,
        back=back,
        forwarder=forwarder,
        reporter=reporter,
        caretaker=caretaker,
        inspector=inspector,
    )


async def _work(parts: _Parts, stop: asyncio.Event) -> None:
    """Run every task until `stop`. A task that fails ends them all: systemd starts the agent anew."""
    device = parts.device
    duties = {
        "supervise": device.supervisor.run(),
        "follow": follow_desired(parts.link, device.updater, clock=_CLOCK, draw=random.random, nudged=parts.back),
        "update": _update(device),
        "forward": parts.forwarder.run(),
        "report": parts.reporter.run(),
        "renew": device.renewal.run(),
        "prepare": parts.caretaker.run(),
        "inspect": parts.inspector.run(),
    }
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(duty, name=name) for name, duty in duties.items()]
        await stop.wait()
        for task in working:
            task.cancel()


async def _update(device: Device) -> None:
    """Once the serving process answers, or it is clear that it needs help."""
    await device.supervisor.answered(_START_S)
    await device.updater.run()


def _allowance(state: StateDir, wanted: ServingConfig) -> Allowance:
    """Raises TokenUnusable, OpenToAll."""
    file = state.inside(wanted.token_file) if wanted.token_file else None
    token = read_token(file) if file else b""
    for address in (wanted.http, wanted.grpc):
        check_exposed(address, token=bool(token), without_token=wanted.without_token)
    return Allowance(
        token_file=str(file or ""),
        token_id=sha256(token).hexdigest()[:_ID_DIGITS] if token else "",
        max_body_mib=wanted.max_body_mib,
        max_json_kib=wanted.max_json_kib,
        shared_memory=wanted.shared_memory,
    )


def _supervisor(state: StateDir, config: AgentConfig, serving: ServingControl) -> ChildSupervisor:
    wanted = config.serving
    plan = ServingPlan(
        boot=state.boot,
        control=state.control_socket,
        capture=state.capture_socket,
        pid_file=state.serving_pid,
        wanted=Addresses(
            http=wanted.http,
            grpc=wanted.grpc,
            unix=str(state.inside(wanted.unix)) if wanted.unix else "",
            frames=str(state.inside(wanted.frames)) if wanted.frames and FRAMES_WORK else "",
            unix_group=wanted.unix_group,
            unix_mode=wanted.unix_mode,
        ),
        graphs=state.graphs,
        deadlines=wanted.deadlines,
        allowed=_allowance(state, wanted),
        log_level=config.log.level,
        log_format=config.log.format,
    )
    patience = Patience(
        backoff_s=wanted.restart_backoff_s,
        stop_s=wanted.stop_timeout_s,
        start_s=wanted.start_timeout_s,
        hang_s=wanted.hang_timeout_s,
    )
    return ChildSupervisor(plan, serving=serving, clock=_CLOCK, patience=patience)


def _store(state: StateDir, config: AgentConfig, renewal: Renewal) -> AbstractAsyncContextManager[Store]:
    return open_store(
        state.root,
        device=renewal.identity.facts.device_id,
        options=StoreOptions(**msgspec.structs.asdict(config.outbox)),
        clock=_CLOCK,
        clock_trusted=lambda: clock_trusted(renewal, _CLOCK),
    )


def _preparer(state: StateDir, config: AgentConfig) -> GraphPreparer:
    settings = config.update
    return GraphPreparer(
        folder=GraphFolder(root=state.graphs),
        limits=Limits(cpu_s=settings.probe_cpu_s, memory_bytes=settings.probe_memory_bytes),
        timeout_s=settings.probe_timeout_s,
        reserve_bytes=settings.disk_reserve_bytes,
        free_bytes=free_bytes,
    )


def _updater(
    stack: AsyncExitStack,
    state: StateDir,
    config: AgentConfig,
    source: HttpsReleaseSource,
    serving: ServingControl,
    preparer: GraphPreparer,
    news: asyncio.Event,
) -> Updater:
    settings = config.update
    journal = stack.enter_context(closing(Journal(state.root / JOURNAL)))
    probe = ChildProbe(
        limits=Limits(cpu_s=settings.probe_cpu_s, memory_bytes=settings.probe_memory_bytes),
        timeout_s=settings.probe_timeout_s,
        max_model_bytes=settings.max_model_bytes,
    )
    updater = Updater(
        state_dir=state.root,
        journal=journal,
        source=source,
        serving=serving,
        probe=PreparingProbe(probe=probe, preparer=preparer),
        clock=_CLOCK,
        settings=settings,
        on_change=news.set,
    )
    return stack.enter_context(closing(updater))


def _leave_serving(supervisor: ChildSupervisor) -> Callable[[type[BaseException] | None, object, object], None]:
    def leaving(kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if kind is not None:
            log.error("the agent ends; the serving process goes on", extra=fields(pid=supervisor.pid))

    return leaving


def _announce(config: AgentConfig, device: Device) -> None:
    addresses, facts = device.supervisor.addresses, device.renewal.identity.facts
    token = bool(config.serving.token_file)
    exposed = [exposure(each, token=token) for each in (config.serving.http, config.serving.grpc)]
    for warning in filter(None, (*exposed, expiry_line(device.renewal.identity, _CLOCK.wall()))):
        log.warning("%s", warning)
    log.info(
        "the agent runs",
        extra=fields(
            device=facts.device_id, site=facts.site, fleet=facts.device_url, http=addresses.http, unix=addresses.unix
        ),
    )
