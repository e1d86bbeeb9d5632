"""Where a log-in is remembered: one file that only its owner can read. The environment wins over it.

A token is used only with the fleet that gave it: naming another address never sends the remembered token there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from edgeward_contract.schema import ContractError, parse_json
from edgeward_fleet.cli.errors import BadUsage, NotAllowed

URL: Final = "EDGEWARD_URL"
TOKEN: Final = "EDGEWARD_TOKEN"  # noqa: S105  (the variable's name)
CA: Final = "EDGEWARD_CA"
PROFILE: Final = "EDGEWARD_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One fleet and who we are there. An empty `ca_pem` means: trust what the system trusts."""

    url: str = ""
    ca_pem: str = ""
    token: str = ""
    username: str = ""


def checked_url(url: str, where: str) -> str:
    """The scheme, host and port of `url` alone. Raises BadUsage unless it is https: tokens and passwords go there."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        parsed = httpx.URL()
    if parsed.scheme != "https" or not parsed.host:
        hint = "The fleet prints its address at start."
        raise BadUsage(f"{where}: expected https://HOST:PORT, got {url[:200]!r}", hint=hint)
    return f"https://{parsed.netloc.decode('ascii')}"


def profile_path(environment: Mapping[str, str] = os.environ) -> Path:
    """`$EDGEWARD_PROFILE`, else `edgeward/profile.json` in the user's configuration folder. Raises BadUsage."""
    if chosen := environment.get(PROFILE):
        return Path(chosen)
    base = environment.get("XDG_CONFIG_HOME")
    try:
        return (Path(base) if base else Path.home() / ".config") / "edgeward" / "profile.json"
    except RuntimeError:
        raise BadUsage("expected a home folder for the log-in, this user has none", hint=f"Set {PROFILE}.") from None


def read_profile(path: Path) -> Profile:
    """The remembered log-in, empty when there is none. Raises BadUsage for a damaged file."""
    try:
        fields = parse_json(path.read_bytes())
        return Profile(
            url=fields.text("url", default=""),
            ca_pem=fields.text("ca_pem", default="", max_length=100_000),
            token=fields.text("token", default=""),
            username=fields.text("username", default=""),
        )
    except FileNotFoundError:
        return Profile()
    except ContractError as error:
        raise BadUsage(f"{path}: {error}", hint="Delete the file and log in again with `edgeward login`.") from None


def write_profile(path: Path, profile: Profile) -> None:
    """Readable by its owner alone from its first byte on, and never half written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    document = {name: getattr(profile, name) for name in Profile.__slots__}
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"schema": 1, **document}, file)
    beside.replace(path)


def effective(environment: Mapping[str, str] = os.environ) -> Profile:
    """The profile with the environment laid over it. Raises BadUsage, NotAllowed: no fleet or no log-in is known."""
    profile = with_environment(read_profile(profile_path(environment)), environment)
    if not profile.url:
        raise NotAllowed("expected a fleet to talk to, found none", hint=f"Run `edgeward login --url …` or set {URL}.")
    return profile


def with_environment(profile: Profile, environment: Mapping[str, str]) -> Profile:
    """`profile` under EDGEWARD_URL, EDGEWARD_TOKEN and EDGEWARD_CA. Raises BadUsage: one of them cannot be used."""
    if given := environment.get(URL):
        url = checked_url(given, URL)
        if url != profile.url:
            profile = Profile(url=url)
    if token := environment.get(TOKEN):
        profile = replace(profile, token=_checked_token(token), username="")
    if ca := environment.get(CA):
        profile = replace(profile, ca_pem=read_ca(Path(ca)))
    return profile


def read_ca(path: Path) -> str:
    """A certificate file's text. Raises BadUsage: without a certificate of its own nobody's would be pinned."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"{path}: expected a CA certificate in PEM form, found: {error}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise BadUsage(f"{path}: expected a CA certificate in PEM form, found none")
    return text


def _checked_token(token: str) -> str:
    """Without the end of the line that a file left. Raises BadUsage, which never repeats it."""
    stripped = token.strip()
    if not (stripped.isascii() and stripped.isprintable()) or " " in stripped:
        hint = "Give the token as `edgeward account token create` showed it."
        raise BadUsage(f"{TOKEN}: expected a token of one word, found other signs in it", hint=hint)
    return stripped
