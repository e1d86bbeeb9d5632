"""The agent's configuration: one optional TOML file over complete defaults.

A damaged file is refused with the file, the line and the key, because it is corrected by a person at a bedside with an
editor and no debugger. `docs/configuration.md` names every key; a test holds it to these classes.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from edgeward_agent.addresses import host_and_port
from edgeward_agent.errors import ConfigError
from edgeward_agent.limits import Count, Interval, Positive, Seconds
from edgeward_agent.update.settings import UpdateSettings
from edgeward_contract.mqtt.broker import BrokerAddress
from edgeward_contract.topics import MAX_PARK_S

FILE_NAME: Final = "agent.toml"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file. Every key has a default."""


class ServingConfig(_Section, frozen=True):
    """Where the device answers, and what it takes."""

    http: str = "127.0.0.1:8500"  # empty: no TCP
    unix: str = "socket/serving.sock"  # relative to the state folder; empty: no unix socket
    frames: str = "socket/frames.sock"  # relative to the state folder; empty: no socket for packets
    grpc: str = ""  # HOST:PORT; empty: no gRPC
    token_file: str = ""  # relative to the state folder; what clients show over TCP; empty: nothing
    without_token: bool = False  # whether other machines may ask without one
    unix_group: str = ""  # who may connect besides the owner; empty: the owner's own group
    unix_mode: Literal["0600", "0660", "0666"] = "0660"
    restart_backoff_s: Annotated[float, Meta(gt=0, le=60)] = 0.1
    stop_timeout_s: Seconds = 5.0
    start_timeout_s: Interval = 600.0
    hang_timeout_s: Interval = 30.0
    deadlines: Literal["budget", "off"] = "budget"  # of requests that bring none: the model's budget, or none
    max_body_mib: Annotated[int, Meta(ge=1, le=2048)] = 64
    max_json_kib: Annotated[int, Meta(ge=1, le=2 << 20)] = 1024
    shared_memory: bool = False


class LinkConfig(_Section, frozen=True):
    """The way to the fleet."""

    kind: Literal["https", "mqtt"] = "https"
    mqtt_url: str = ""  # empty: what the fleet said at enrolment
    wait_s: Annotated[int, Meta(ge=1, le=MAX_PARK_S)] = 50
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 20.0


class ReportConfig(_Section, frozen=True):
    """How often the device says what it is."""

    heartbeat_s: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    min_interval_s: Annotated[float, Meta(gt=0, le=60)] = 1.0


class OutboxConfig(_Section, frozen=True):
    """The file's form of `outbox.model.StoreOptions`, which explains each key."""

    max_bytes: Annotated[int, Meta(ge=1 << 20)] = 256 << 20
    ballast_bytes: Count = 4 << 20
    key_retention_days: Count = 0
    max_waiting: Positive = 256
    maintain_s: Interval = 30.0


class LogConfig(_Section, frozen=True):
    """What is said on standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class AgentConfig(_Section, frozen=True):
    """The whole file."""

    serving: ServingConfig = ServingConfig()
    link: LinkConfig = LinkConfig()
    report: ReportConfig = ReportConfig()
    update: UpdateSettings = UpdateSettings()
    outbox: OutboxConfig = OutboxConfig()
    log: LogConfig = LogConfig()


class Setting(NamedTuple):
    """One key, for the page that lists them."""

    section: str
    key: str
    default: object


def settings() -> Iterator[Setting]:
    """Every key that a file may have, in order."""
    for table in msgspec.structs.fields(AgentConfig):
        for entry in msgspec.structs.fields(type(table.default)):
            yield Setting(table.name, entry.name, entry.default)


def load_config(state_dir: Path, path: Path | None = None) -> AgentConfig:
    """Read `path`, or `agent.toml` of the state folder when there is one.

    Raises:
        ConfigError: the file named is not there or not readable; the message names file, line and key if it is damaged.
    """
    file = path or state_dir / FILE_NAME
    try:
        text = file.read_bytes().decode("utf-8-sig")  # Windows' editors begin a file with a mark
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"{path}: expected a file, found nothing") from None
        return AgentConfig()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}:{line}: expected UTF-8, got byte {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise ConfigError(f"{file}: expected a readable file, got: {error.strerror}") from None
    return parse_config(text, str(file))


def parse_config(text: str, name: str) -> AgentConfig:
    """Decode the file's text. Raises ConfigError that begins `name:line: key:`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, line = _syntax_error(str(error), text)
        raise ConfigError(f"{name}:{line}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{name}: expected tables of plain values, got brackets in brackets without end") from None
    try:
        config = msgspec.convert(document, AgentConfig)
    except msgspec.ValidationError as error:
        path, problem = _value_error(str(error), document)
        raise ConfigError(f"{name}:{_line_of(text, path)}: {'.'.join(path)}: {problem}") from None
    _check_addresses(config, text, name)
    _check_broker(config, text, name)
    return config


def _check_addresses(config: AgentConfig, text: str, name: str) -> None:
    for key, address in (("http", config.serving.http), ("grpc", config.serving.grpc)):
        if not address:
            continue
        try:
            host_and_port(address)
        except ValueError as error:
            line = _line_of(text, ("serving", key))
            raise ConfigError(f"{name}:{line}: serving.{key}: {error}") from None


def _check_broker(config: AgentConfig, text: str, name: str) -> None:
    if not config.link.mqtt_url:
        return
    try:
        BrokerAddress.parse(config.link.mqtt_url)
    except ValueError as error:
        line = _line_of(text, ("link", "mqtt_url"))
        raise ConfigError(f"{name}:{line}: link.mqtt_url: {error}") from None


def _syntax_error(message: str, text: str) -> tuple[str, int]:
    """The parser ends its message with the place: `(at line 3, column 7)` or `(at end of document)`."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    if not found:
        return f"expected TOML, got: {message}", 1
    line = int(found[2]) if found[2] else max(1, len(text.splitlines()))
    return f"expected TOML, got: {found[1][0].lower()}{found[1][1:]}", line


def _value_error(message: str, document: dict[str, object]) -> tuple[tuple[str, ...], str]:
    """Split msgspec's `Expected `int`, got `str` - at `$.link.wait_s`` into the key and what is wrong with it."""
    problem, _, place = message.partition(" - at `$")
    path = tuple(part for part in place.rstrip("`").split(".") if part)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        return (*path, unknown[1]), _unknown_key(path, unknown[1])
    expected = problem.removeprefix("Expected ").split(", got")[0].replace("`", "").replace("object", "a table")
    if problem.startswith("Invalid enum value"):
        expected = "one of " + ", ".join(_choices(path))
    return path, f"expected {expected}, got {_value_at(document, path)!r}"


def _unknown_key(path: tuple[str, ...], key: str) -> str:
    known = [each.key for each in settings() if each.section == path[0]] if path else _sections()
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    wanted = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    return f"unknown key, {wanted}"


def _sections() -> list[str]:
    return [table.name for table in msgspec.structs.fields(AgentConfig)]


def _choices(path: tuple[str, ...]) -> tuple[str, ...]:
    section = get_type_hints(AgentConfig)[path[0]]
    return tuple(get_type_hints(section)[path[1]].__args__)


def _value_at(document: object, path: tuple[str, ...]) -> object:
    for key in path:
        document = document[key] if isinstance(document, dict) else None
    return document


def _line_of(text: str, path: tuple[str, ...]) -> int:
    """The line on which the key begins: the line after the longest beginning of the file that lacks it.

    Asking the parser itself gets dotted keys, inline tables and strings over several lines right.
    """
    lines = text.splitlines(keepends=True)
    begin = 0
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        if _has(document, path):
            return begin + 1
        begin = count
    return max(1, len(lines))


def _has(document: object, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
