"""Values as people type them on a command line: 10ms, 20%, name=canary,percent=20."""

from __future__ import annotations

import math
import re
from typing import Final

import click

from edgeward_contract.artifact import ReleaseRef
from edgeward_contract.schema import ContractError, JsonValue

_NUMBER: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-zµA-Z]+)")
_SECOND: Final = 1_000_000
_ID: Final = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_MICROSECONDS: Final = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}


def duration(value: str) -> int:
    """A time with its unit, in µs. Raises click.BadParameter."""
    found = _scaled(value, _MICROSECONDS)
    if found is None:
        raise click.BadParameter(f"expected a time with its unit such as 10ms, 30s or 5m, got {value!r}")
    return found


def seconds(value: str) -> int:
    """A time with its unit, of whole seconds: cut down to them, half a second of soak would be none.

    Raises click.BadParameter.
    """
    found = duration(value)
    if found % _SECOND:
        raise click.BadParameter(f"expected whole seconds such as 30s or 5m, got {value!r}")
    return found // _SECOND


def percent(value: str) -> float:
    """A share from 0 to 100, which `nan` is not. Raises click.BadParameter."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 100:
        raise click.BadParameter(f"expected a number from 0 to 100, got {value[:40]!r}")
    return found


def release(value: str) -> ReleaseRef:
    """`name@version`. Raises click.BadParameter."""
    try:
        return ReleaseRef.parse(value)
    except ContractError as error:
        raise click.BadParameter(error.problem) from None


def known_id(value: str) -> str:
    """What the fleet calls a thing; it becomes part of a path, where `/`, `?` or `..` would ask for another thing.

    Raises click.BadParameter.
    """
    if not _ID.fullmatch(value) or not value.strip("."):
        raise click.BadParameter(f"expected a name or an id of letters, digits, '.', '_', '-', '@', got {value[:80]!r}")
    return value


_PHASE_KEYS: Final = {"name", "percent", "devices", "soak", "timeout"}


def phases(texts: tuple[str, ...], *, soak_s: int, timeout_s: int) -> list[JsonValue]:
    """Phases of a rollout from `20%,100%` or, one by one, `name=canary,percent=20,soak=30s`.

    Raises:
        click.BadParameter: not understood; the message names the part.
    """
    parts = [part for text in texts for part in _split(text)]
    return [_phase(part, number, len(parts), soak_s, timeout_s) for number, part in enumerate(parts)]


def _split(text: str) -> list[str]:
    return [text] if "=" in text else [part.strip() for part in text.split(",") if part.strip()]


def _phase(text: str, number: int, count: int, soak_s: int, timeout_s: int) -> JsonValue:
    members = _members(text) if "=" in text else {"percent" if text.endswith("%") else "devices": text}
    if unknown := set(members) - _PHASE_KEYS:
        raise _bad(text, f"expected keys of {', '.join(sorted(_PHASE_KEYS))}, got {', '.join(sorted(unknown))}")
    if ("percent" in members) == ("devices" in members):
        raise _bad(text, "expected percent=… or devices=…, one of them")
    amount = "percent" if "percent" in members else "devices"
    return {
        "name": members.get("name", _usual_name(number, count)),
        amount: _whole(text, members[amount].removesuffix("%")),
        "soak_s": _seconds(text, members["soak"]) if "soak" in members else soak_s,
        "timeout_s": _seconds(text, members["timeout"]) if "timeout" in members else timeout_s,
    }


def _usual_name(number: int, count: int) -> str:
    if count > 1 and number == 0:
        return "canary"
    return "everyone" if number == count - 1 else f"phase-{number + 1}"


def _members(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    return {key.strip(): value.strip() for key, _, value in pairs}


def _whole(text: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 10**9:
        raise _bad(text, f"expected a whole number of at least 1, got {value!r}")
    return int(value)


def _seconds(text: str, value: str) -> int:
    found = _scaled(value, _MICROSECONDS)
    if found is None:
        raise _bad(text, f"expected a time with its unit such as 30s or 5m, got {value!r}")
    if found % _SECOND:
        raise _bad(text, f"expected whole seconds such as 30s or 5m, got {value!r}")
    return found // _SECOND


def _scaled(text: str, units: dict[str, int]) -> int | None:
    found = _NUMBER.fullmatch(text.strip())
    if found is None or found[2] not in units:
        return None
    amount = round(float(found[1]) * units[found[2]])
    return amount if amount > 0 else None


def _bad(text: str, problem: str) -> click.BadParameter:
    return click.BadParameter(f"{text!r}: {problem}", param_hint="--phase")
