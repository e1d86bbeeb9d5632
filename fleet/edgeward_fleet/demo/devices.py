"""The devices of the demonstration: real agents, enrolled with real tokens, each at the end of its cables."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeward_contract.schema import Fields, parse_json
from edgeward_fleet.cli.client import Client
from edgeward_fleet.demo.cables import Bundle, Cables
from edgeward_fleet.demo.processes import Household, ask, wait_until

AGENT: Final = "edgeward_agent"
SITES: Final = ("north", "south", "harbour")
_START_S: Final = 30.0
_WAYS: Final = ("device_url", "mqtt_url")  # of identity.json

# Patience of seconds instead of minutes: a demonstration has no nights. See docs/configuration.md for each key.
# Latency is not judged: many devices share one machine here, and their p99 says more about each other than of a model.
_CONFIG: Final = """\
[serving]
http = "127.0.0.1:0"
[link]
kind = "{link}"
wait_s = 20
timeout_s = 10
[report]
heartbeat_s = 2
min_interval_s = 0.5
[update]
probation_s = 4
min_errors = 2
latency_min_requests = 1000000
poll_s = 0.5
watch_s = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An agent that runs: `address` (HOST:PORT) is where bedside applications ask."""

    name: str
    site: str
    state_dir: Path
    cable: Bundle
    address: str

    def status(self) -> Fields:
        """What the agent itself says. Raises DemoFailed."""
        return agent_status(self.state_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A machine at a site, before it is a device."""

    name: str
    site: str
    state_dir: Path
    cable: Bundle

    @property
    def pid_file(self) -> Path:
        """Of the serving process, which outlives an agent that is killed."""
        return self.state_dir / "run" / "serving.pid"

    @property
    def socket(self) -> Path:
        """There once the agent runs."""
        return self.state_dir / "run" / "agent.sock"


def agent_status(state_dir: Path) -> Fields:
    return parse_json(ask(AGENT, "status", "--state-dir", str(state_dir), "--json").encode())


def start_devices(
    count: int, folder: Path, link: str, operator: Client, cables: Cables, household: Household
) -> tuple[Device, ...]:
    """Enrol and start `count` agents. Raises DemoFailed."""
    with ThreadPoolExecutor(max_workers=2) as hands:  # as many as the processors of a small machine
        places = list(hands.map(lambda number: _enrol(number, folder, link, operator, cables), range(count)))
        for place in places:
            household.start(place.name, AGENT, "run", "--state-dir", str(place.state_dir), leaves=place.pid_file)
        for place in places:  # here and not by the hands: Ctrl-C ends this wait
            wait_until(place.socket.exists, household, f"the agent {place.name} to run", timeout_s=_START_S)
        return tuple(hands.map(_started, places))


def _enrol(number: int, folder: Path, link: str, operator: Client, cables: Cables) -> _Place:
    site = SITES[number % len(SITES)]
    name, state_dir = f"{site}-{number // len(SITES) + 1}", folder / f"d{number + 1}"
    token = operator.post("/device-tokens", {"site": site, "device_id": name})
    ask(
        AGENT,
        "enrol",
        "--fleet",
        token.text("enrolment_url"),
        "--ca-fingerprint",
        token.text("ca_fingerprint"),
        "--state-dir",
        str(state_dir),
        "--token",
        "-",
        secret=token.text("token") + "\n",
    )
    (state_dir / "agent.toml").write_text(_CONFIG.format(link=link))
    return _Place(name=name, site=site, state_dir=state_dir, cable=_through_cables(state_dir, cables))


def _through_cables(state_dir: Path, cables: Cables) -> Bundle:
    """Lead all ways of the device through cables. The names stay, so the certificates still fit."""
    facts_file = state_dir / "identity" / "identity.json"
    facts = parse_json(facts_file.read_bytes())
    urls = {key: facts.text(key) for key in _WAYS if facts.text(key, default="")}
    laid = {key: cables.lay("127.0.0.1", _port(url)) for key, url in urls.items()}
    led = {key: url.replace(f":{_port(url)}", f":{laid[key].port}") for key, url in urls.items()}
    facts_file.write_text(json.dumps({**facts.members(), **led}, sort_keys=True))
    return Bundle(*laid.values())


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _started(place: _Place) -> Device:
    status = agent_status(place.state_dir)
    return Device(
        name=place.name,
        site=place.site,
        state_dir=place.state_dir,
        cable=place.cable,
        address=status.object("serving").text("http"),
    )
