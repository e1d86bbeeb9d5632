"""Looks for the usual causes of trouble. Each check says what it saw and, when that is not good, what to do.

Nothing is changed, but for a file that is written to the state folder and removed again; the agent may run or not.
"""

from __future__ import annotations

import resource
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeward_agent.access import ways
from edgeward_agent.checks import Check, fail, ok, warn
from edgeward_agent.client import Client
from edgeward_agent.config import AgentConfig, ServingConfig, load_config
from edgeward_agent.errors import AgentError, LinkError, LinkLost
from edgeward_agent.health import disk_free_bytes
from edgeward_agent.identity import tls
from edgeward_agent.identity.keys import Identity, expiry_line, load_identity
from edgeward_agent.link.https import hello
from edgeward_agent.link.mqtt_knock import knock
from edgeward_agent.link.opening import wanted_broker
from edgeward_agent.link.wire import CertificateNotTaken, FleetNotTrusted, Wire
from edgeward_agent.listening import listen_tcp
from edgeward_agent.process import agent_is_running
from edgeward_agent.state_check import folder_check, reachable
from edgeward_agent.state_dir import StateDir
from edgeward_agent.status import recorded_serving
from edgeward_agent.status_text import duration, size

_FIRST_USER: Final = 1000  # below are those of the system (login.defs, UID_MIN)
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "tcsh"})
_OLDEST_SQLITE: Final = (3, 37, 0)
_FEW_FILES: Final = 1024
_LITTLE_TIME_DAYS: Final = 7
_CLOCKS_DIFFER_S: Final = 300  # a clock that is set over the network is nearer
_BROKER_SILENT: Final = (
    "The agent goes on serving and retries by itself; check that the broker runs, that nothing on the way keeps its"
    " port from this device, and link.mqtt_url."
)
_BUILT_S: Final = 1_763_856_000  # 2025-11-23: no clock of a device that runs this is earlier


def examine(state: StateDir) -> Iterator[Check]:
    """Every check, in an order in which the first failure explains those after it."""
    yield folder_check(state)
    if not reachable(state.root):
        return
    config, check = _config(state)
    yield check
    identity, check = _identity(state)
    yield check
    fleet_s = None
    if identity is not None:
        yield _permissions(identity)
        yield _certificate(identity)
        check, fleet_s = _fleet(identity, config)
        yield check
        if config.link.kind == "mqtt":
            yield _broker(identity, config)
    yield _clock(identity, fleet_s)
    yield _agent(state)
    yield _serving(state, config)
    yield _access(config.serving, login_users())
    yield _disk(state, config)
    yield _sqlite()
    yield _files()


def _config(state: StateDir) -> tuple[AgentConfig, Check]:
    try:
        return load_config(state.root), ok("configuration", "can be used")
    except AgentError as error:
        return AgentConfig(), fail("configuration", str(error), error.hint)


def _identity(state: StateDir) -> tuple[Identity | None, Check]:
    try:
        identity = load_identity(state.identity, finish=False)
    except AgentError as error:
        return None, fail("identity", str(error), error.hint)
    facts = identity.facts
    return identity, ok("identity", f"{facts.device_id} of site {facts.site}; key, certificate and CA fit together")


def _permissions(identity: Identity) -> Check:
    for path, allowed in ((identity.folder, 0o700), (identity.key_file, 0o600)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & ~allowed:
            return fail("permissions", f"{path}: expected {allowed:o}, got {mode:o}", f"chmod {allowed:o} {path}")
    return ok("permissions", "the key is the owner's alone")


def _certificate(identity: Identity) -> Check:
    now_s = time.time()
    if expired := expiry_line(identity, now_s):
        return fail("certificate", expired, "Check the clock; else enrol again with a new token and --force.")
    days = identity.days_left(now_s)
    if days < _LITTLE_TIME_DAYS:
        hint = "It should have been renewed by now: see the agent's log for why it was not."
        return warn("certificate", f"good for {days} more days", hint)
    return ok("certificate", f"good for {days} more days")


def _clock(identity: Identity | None, fleet_s: float | None) -> Check:
    now_s = time.time()
    floor_s = identity.certificate.not_valid_before_utc.timestamp() if identity else _BUILT_S
    if now_s < floor_s:
        detail = f"expected at least {_minute(floor_s)}, got {_minute(now_s)}"
        return fail("clock", detail, "Set the clock; TLS does not work without it.")
    if fleet_s is not None:
        return clock_beside(now_s, fleet_s)
    if identity is not None and identity.seconds_left(now_s) < 0:
        detail = f"{_minute(now_s)} is after the end of the certificate: either has run out, or the clock is ahead"
        return warn("clock", detail, "If it is ahead, set it; the certificate may well be good then.")
    return ok("clock", "plausible")


def clock_beside(now_s: float, fleet_s: float) -> Check:
    """This clock beside the fleet's."""
    ahead_s = now_s - fleet_s
    if abs(ahead_s) <= _CLOCKS_DIFFER_S:
        return ok("clock", "as the fleet's")
    detail = f"{duration(int(abs(ahead_s)))} {'ahead of' if ahead_s > 0 else 'behind'} the fleet's"
    return warn("clock", detail, "Set it: records carry its time, and the certificate is renewed by it.")


def _minute(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))


def _fleet(identity: Identity, config: AgentConfig) -> tuple[Check, float | None]:
    """And what time it is there, when it says."""
    where = identity.facts.device_url
    try:
        wire = Wire(where, tls.mutual(identity), timeout_s=min(config.link.timeout_s, 10.0))
    except AgentError as error:
        return fail("fleet", str(error), error.hint), None
    try:
        answer = wire.request_blocking(hello())
    except LinkError as error:
        return _out_of_reach("fleet", error), None
    finally:
        wire.close()
    return ok("fleet", f"{where} answers and takes the certificate"), answer.date_s


def _broker(identity: Identity, config: AgentConfig) -> Check:
    try:
        address = wanted_broker(config.link, identity.facts)
        assert address is not None
        knock(address, tls.mutual(identity), timeout_s=min(config.link.timeout_s, 10.0))
    except LinkError as error:
        return _out_of_reach("broker", error, _BROKER_SILENT)
    except AgentError as error:
        return fail("broker", str(error), error.hint)
    return ok("broker", f"{address} answers and takes the certificate")


def _out_of_reach(name: str, error: LinkError, silent_hint: str = "") -> Check:
    """Silence passes; a certificate that is not taken does not."""
    if isinstance(error, LinkLost) and not isinstance(error, CertificateNotTaken | FleetNotTrusted):
        return warn(name, str(error), silent_hint or error.hint)
    return fail(name, str(error), error.hint)


def _agent(state: StateDir) -> Check:
    if agent_is_running(state.agent_pid):
        return ok("agent", "runs")
    return warn("agent", "does not run", "Start it: edgeward-agent run")


def _serving(state: StateDir, config: AgentConfig) -> Check:
    recorded = recorded_serving(state)
    if not recorded.pid:
        return _address(config)
    address = f"unix:{recorded.unix}" if recorded.unix else f"http://{recorded.http}"
    with Client(address, timeout_s=5.0) as client:
        if client.ready():
            return ok("serving", f"{address} answers")
    hint = "A model may still be loading; if it stays so, see the log."
    return fail("serving", f"{address}: expected to be ready, it is not", hint)


def _address(config: AgentConfig) -> Check:
    """Nothing serves: could it?"""
    if not config.serving.http:
        return ok("serving", "does not run")
    try:
        listen_tcp(config.serving.http).close()
    except AgentError as error:
        return fail("serving", str(error), error.hint)
    return ok("serving", f"does not run; {config.serving.http} is free")


def _access(config: ServingConfig, users: int) -> Check:
    found = ways(config, users=users)
    detail = "; ".join(f"{each.address}: {each.who}" for each in found) or "nobody can ask"
    problems = [f"{each.address}: {each.problem}" for each in found if each.problem]
    if problems:
        hint = 'Make a token (edgeward-agent token new), or serve on a unix socket alone: serving.http = "".'
        return warn("who may ask", f"{detail}; {'; '.join(problems)}", hint)
    return ok("who may ask", detail)


def login_users() -> int:
    """How many people can log in, by their shells; 0: not known."""
    try:
        import pwd  # not on Windows
    except ImportError:
        return 0
    return sum(1 for each in pwd.getpwall() if each.pw_uid >= _FIRST_USER and Path(each.pw_shell).name in _SHELLS)


def _disk(state: StateDir, config: AgentConfig) -> Check:
    folder = next((each for each in (state.root, *state.root.parents) if each.exists()), Path("/"))
    free = disk_free_bytes(folder)
    if free < config.update.disk_reserve_bytes:
        hint = "Make room: updates wait until there is, and the outbox may have to refuse durable records."
        return fail("disk", f"expected {size(config.update.disk_reserve_bytes)} free, got {size(free)}", hint)
    return ok("disk", f"{size(free)} free")


def _sqlite() -> Check:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        wanted = ".".join(map(str, _OLDEST_SQLITE))
        return fail("sqlite", f"expected {wanted} or newer, got {sqlite3.sqlite_version}", "Use a newer Python.")
    return ok("sqlite", sqlite3.sqlite_version)


def _files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES:
        hint = f"Raise it: ulimit -n {_FEW_FILES}, or LimitNOFILE= in the unit."
        return warn("open files", f"expected a limit of {_FEW_FILES} or more, got {soft}", hint)
    return ok("open files", f"limit {soft}")
