"""A day of a fleet in minutes: many devices enrol, come back together after an outage, take a rollout, then rest.

The fleet is a real one, a process of its own; the devices share this process, each with its own key, certificate and
connections. They speak as the agent does, because what they say and when is the agent's own code.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import uvloop

from benchmarks.fleet import meter
from benchmarks.fleet.device import Device, Pace
from benchmarks.fleet.enrolling import Hall, enrolled
from benchmarks.fleet.pages import Visitor
from benchmarks.fleet.wire import Tally
from benchmarks.report import Result, quantile
from edgeward_contract.artifact import ArtifactRef, sha256_of_file
from edgeward_contract.manifest import Manifest
from edgeward_contract.mqtt.broker import BrokerAddress
from edgeward_contract.schema import JsonValue, parse_json
from edgeward_fleet.cli.push import push_release
from edgeward_fleet.cli.trust import pin
from edgeward_fleet.demo.broker import Broker, start_broker
from edgeward_fleet.demo.processes import Household
from edgeward_fleet.demo.staff import Staff, open_fleet
from edgeward_fleet.packing.folder import read_release

DEVICES: Final = 1200
_RELEASE_BYTES: Final = 1 << 20
_FILES_PER_DEVICE: Final = 4
_POLL_S: Final = 0.1
_PAGE_EVERY_S: Final = 1.0
_AT_ONCE_S: Final = 0.0
_PAGES: Final = {"Fleet": "/", "Devices": "/devices"}
_RELEASES: Final = Path(__file__).parent.parent.parent / "models/wdbc-risk/releases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long each part may take. `calm_s` is how long after a change the agent reports often: rest begins then."""

    link: Literal["https", "mqtt"] = "https"
    devices: int = DEVICES
    pace: Pace = field(default_factory=Pace)
    outage_s: float = 5.0
    calm_s: float = 125.0
    idle_s: float = 120.0
    page_loads: int = 40
    patience_s: int = 600


def measure(plan: Plan) -> Result:
    """A link by way of a broker needs mosquitto. `requests` are those over HTTPS alone; releases always come that way.

    Raises AssertionError when a device misses its update or gets anything but what was asked for.
    """
    _allow_files(plan.devices * _FILES_PER_DEVICE)
    folder = Path(tempfile.mkdtemp(prefix="edgeward-bench-"))
    try:
        with ExitStack() as stack:
            household = stack.enter_context(Household(folder))
            broker = start_broker(folder, household) if plan.link == "mqtt" else None
            options = broker.options if broker else ()
            staff = open_fleet(folder, household, stack, "--enrolments-per-minute=1000000", *options)
            pids = {"fleet": parse_json((folder / "ready.json").read_bytes()).integer("pid"), "devices": os.getpid()}
            if broker:
                pids["broker"] = broker.pid
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_Day(plan, folder, staff, pids, broker).pass_by())
    finally:
        shutil.rmtree(folder)


class _Day:
    def __init__(self, plan: Plan, folder: Path, staff: Staff, pids: Mapping[str, int], broker: Broker | None) -> None:
        self._plan = plan
        self._broker = BrokerAddress(host="127.0.0.1", port=broker.port) if broker else None
        self._folder = folder
        self._staff = staff
        self._pids = pids
        self._tally = Tally()
        self._at_work = asyncio.Event()
        self._rows: dict[str, dict[str, float]] = {}
        self._lost_before = 0

    async def pass_by(self) -> Result:
        load_before = os.getloadavg()[0]
        devices = await self._enrol()
        async with _switched_on(devices):
            await self._until(lambda: all(each.times.told is not None for each in devices), "every first report")
        await asyncio.sleep(self._plan.outage_s)
        began_s, before = time.monotonic(), self._read()
        async with _switched_on(devices):
            await self._until(lambda: all(each.times.told is not None for each in devices), "everybody back")
            self._keep("back after an outage", before, _seconds(began_s, (each.times.told for each in devices)))
            rollout = await self._roll_out(devices)
            await asyncio.sleep(self._plan.calm_s)
            await self._rest()
            await self._load_pages(devices[0].name, rollout)
        self._rows["machine, load average of 1 min"] = {"before": load_before, "after": os.getloadavg()[0]}
        return Result(what=self._what(), rows=self._rows)

    async def _enrol(self) -> list[Device]:
        before = self._read()
        hall = Hall(
            operator=self._staff.operator,
            folder=self._folder,
            ca_pem=await asyncio.to_thread(pin, self._staff.url, self._staff.fingerprint),
            pace=self._plan.pace,
            tally=self._tally,
            at_work=self._at_work,
            broker=self._broker,
        )
        devices = await enrolled(hall, self._plan.devices)
        self._keep("enrolment", before)
        return devices

    async def _roll_out(self, devices: Sequence[Device]) -> str:
        """The rollout's id, once every device has the release and the fleet knows it."""
        staff, spec = self._staff, _spec(self._plan.patience_s)
        release = read_release(await asyncio.to_thread(_release, self._folder / "release"))
        await asyncio.to_thread(push_release, staff.operator, release, lambda _: None)
        made = await asyncio.to_thread(staff.operator.post, "/rollouts", spec)
        path, approval = f"/rollouts/{made.text('id')}", {"spec_sha256": made.text("spec_sha256")}
        visitor = await Visitor.come(staff, _PAGES | {"Rollout": path}, every_s=_PAGE_EVERY_S)
        began_s, before = time.monotonic(), self._read()
        self._at_work.set()
        await asyncio.to_thread(staff.approver.post, f"{path}/approve", {**approval})
        await self._until(lambda: all(each.times.committed for each in devices), "every device to commit")
        self._at_work.clear()
        desired = _seconds(began_s, (at for each in devices for at in each.times.desired.values()))
        committed = _seconds(began_s, (at for each in devices for at in each.times.committed.values()))
        self._rows["rollout, approval to desired"] = desired
        self._keep("rollout, approval to committed", before, committed)
        for name, loads in (await visitor.leave()).items():
            self._rows[f"page {name}, during the rollout"] = loads
        await self._succeeded(path)
        return made.text("id")

    async def _succeeded(self, path: str) -> None:
        deadline_s = time.monotonic() + self._plan.patience_s
        while (found := await asyncio.to_thread(self._staff.operator.get, path)).text("state") != "SUCCEEDED":
            assert not found.boolean("finished"), found.text("reason", default="the rollout failed")
            assert time.monotonic() < deadline_s, "expected the rollout to succeed in time"
            await asyncio.sleep(1.0)

    async def _rest(self) -> None:
        before, requests = self._read(), self._tally.requests
        await asyncio.sleep(self._plan.idle_s)
        self._keep("idle", before, {"requests_per_s": (self._tally.requests - requests) / self._plan.idle_s})

    async def _load_pages(self, device: str, rollout: str) -> None:
        pages = _PAGES | {"Device": f"/devices/{device}", "Rollout": f"/rollouts/{rollout}"}
        visitor = await Visitor.come(self._staff, pages, every_s=_AT_ONCE_S, rounds=self._plan.page_loads)
        for name, loads in (await visitor.stay()).items():
            self._rows[f"page {name}"] = loads

    async def _until(self, happened: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + self._plan.patience_s
        while not happened():
            last = self._tally.lost[-1] if self._tally.lost else "none"
            assert time.monotonic() < deadline_s, f"expected {what} in time; last lost request: {last}"
            await asyncio.sleep(_POLL_S)

    def _read(self) -> tuple[meter.Readings, int, int]:
        return meter.read(self._pids), self._tally.requests, len(self._tally.lost)

    def _keep(self, name: str, before: tuple[meter.Readings, int, int], more: dict[str, float] | None = None) -> None:
        reading, requests, lost = self._read()
        asked = {"requests": requests - before[1], "lost": lost - before[2]}
        self._rows[name] = {**(more or {}), **meter.cost(before[0], reading), **asked}

    def _what(self) -> str:
        plan = self._plan
        return (
            f"{plan.devices} simulated devices over {plan.link}, a release of 1 MiB to all in one phase, probation "
            f"{plan.pace.probation_s:g} s, {plan.pace.records_in_a_batch} records in {plan.pace.records_every_s:g} s "
            "each during the rollout; fleet and devices share the machine, nothing pinned"
        )


@asynccontextmanager
async def _switched_on(devices: Iterable[Device]) -> AsyncIterator[None]:
    """All at the same moment, the worst that an end of an outage can be. Raises what a device raises."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each.run(), name=each.name) for each in devices]
        yield
        for task in running:
            task.cancel()


def _seconds(began_s: float, moments: Iterable[float | None]) -> dict[str, float]:
    every = sorted(at - began_s for at in moments if at is not None)
    return {"p50_s": quantile(every, 0.5), "p95_s": quantile(every, 0.95), "max_s": every[-1]}


def _spec(timeout_s: int) -> dict[str, JsonValue]:
    phase: dict[str, JsonValue] = {"name": "all", "percent": 100, "soak_s": 0, "timeout_s": timeout_s}
    return {"release": "wdbc-risk@1", "phases": [phase]}


def _release(folder: Path) -> Path:
    """One whose file is noise: nobody runs it, and noise cannot be made smaller on the way."""
    shutil.copytree(_RELEASES / "1", folder)
    file = folder / "model.onnx"
    file.write_bytes(secrets.token_bytes(_RELEASE_BYTES))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["file"] = ArtifactRef(sha256=sha256_of_file(file), size_bytes=_RELEASE_BYTES).document()
    (folder / "manifest.json").write_bytes(Manifest.parse(json.dumps(manifest).encode()).canonical())
    return folder


def _allow_files(wanted: int) -> None:
    """Connections are files, here and in the fleet, which inherits the limit. Raises AssertionError: too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"expected {wanted} open files to be allowed, got {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
