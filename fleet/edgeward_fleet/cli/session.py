"""Who we are: the first admin, log-in and log-out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import click

from edgeward_fleet.cli.client import Client
from edgeward_fleet.cli.errors import BadUsage, CommandError, NotAllowed
from edgeward_fleet.cli.options import FILE, answering, connect, password, read_password
from edgeward_fleet.cli.output import Output, described
from edgeward_fleet.cli.profile import (
    Profile,
    checked_url,
    profile_path,
    read_ca,
    read_profile,
    with_environment,
    write_profile,
)
from edgeward_fleet.cli.trust import fetch_ca, fingerprints, pin


@click.command()
@click.argument("link")
@click.option("--username", required=True, help="Your name; others see it in the audit log.")
@click.option("--ca-fingerprint", help="The fleet's CA, as the fleet printed it: sha256:…")
@click.option("--ca", type=FILE, help="The fleet's CA certificate as a file.")
@password
@answering
def setup(
    link: str, username: str, ca_fingerprint: str | None, ca: Path | None, password_file: Path | None, out: Output
) -> None:
    """Make the first admin with the one-time LINK that the fleet printed at its first start, and log in."""
    url, token = _parse_link(link)
    profile = _trusted(url, ca_fingerprint, ca, out)
    secret = read_password(password_file, new=True)
    write_profile(
        profile_path(), read_profile(profile_path())
    )  # the link works once: not for a log-in that is not kept
    with Client(profile) as fleet:
        fleet.post("/setup", {"token": token, "username": username, "password": secret})
        _log_in(fleet, profile, username, secret, out)


@click.command()
@click.option("--url", help="The fleet's admin address, https://HOST:PORT; the last one if left out.")
@click.option("--username", required=True)
@click.option("--ca-fingerprint", help="The fleet's CA, as the fleet printed it: sha256:…")
@click.option("--ca", type=FILE, help="The fleet's CA certificate as a file.")
@password
@answering
def login(
    url: str | None,
    username: str,
    ca_fingerprint: str | None,
    ca: Path | None,
    password_file: Path | None,
    out: Output,
) -> None:
    """Log in and remember it in a file that only you can read."""
    known = read_profile(profile_path())
    address = checked_url(url, "--url") if url else with_environment(known, os.environ).url
    if not address:
        raise BadUsage("expected --url https://HOST:PORT, for no fleet is known yet")
    profile = _trusted(address, ca_fingerprint, ca, out)
    secret = read_password(password_file, new=False)
    with Client(profile) as fleet:
        _log_in(fleet, profile, username, secret, out)


@click.command()
@answering
def logout(out: Output) -> None:
    """End the remembered session, on the fleet and here."""
    path = profile_path()
    profile = read_profile(path)
    told = False
    if profile.token:
        try:
            with Client(profile) as fleet:
                fleet.post("/logout")
            told = True
        except CommandError as error:
            out.say(f"The fleet could not be told ({error}); the token ends by itself.")
    write_profile(path, replace(profile, token="", username=""))
    out.show({"logged_out": True, "fleet_told": told}, "Logged out.")


@click.command()
@answering
def whoami(out: Output) -> None:
    """Show the fleet, the account and the role that commands use."""
    with connect() as fleet:
        me = fleet.get("/me")
        out.show({"url": fleet.url, **me.members()}, f"fleet  {fleet.url}", *described(me))


def _parse_link(link: str) -> tuple[str, str]:
    query = link.partition("?")[2].partition("#")[0] or link.partition("#")[2]
    token = parse_qs(query).get("token", [""])[0]
    if not token:
        raise BadUsage(
            f"LINK: expected https://HOST:PORT/setup?token=…, got {link!r}",
            hint="`edgeward-fleet serve` prints it at its first start; quote it, for ? and & mean something to shells.",
        )
    return checked_url(link, "LINK"), token


def _trusted(url: str, wanted: str | None, ca: Path | None, out: Output) -> Profile:
    """A profile that trusts the fleet at `url`: by fingerprint, by file, by what we knew, or by asking the person."""
    if wanted and ca:
        raise BadUsage("expected --ca-fingerprint or --ca, got both")
    if wanted:
        return Profile(url=url, ca_pem=pin(url, wanted))
    if ca:
        return Profile(url=url, ca_pem=read_ca(ca))
    known = with_environment(read_profile(profile_path()), {**os.environ, "EDGEWARD_URL": url})
    if known.ca_pem:
        return Profile(url=url, ca_pem=known.ca_pem)
    if _system_trusts(url):
        return Profile(url=url)
    return Profile(url=url, ca_pem=_asked(url, out))


def _system_trusts(url: str) -> bool:
    """Whether the fleet's certificate comes from a CA that this machine trusts anyway. Raises Undecided."""
    try:
        with Client(Profile(url=url)) as fleet:
            fleet.get("/health")
    except NotAllowed:
        return False
    return True


def _asked(url: str, out: Output) -> str:
    pem = fetch_ca(url)
    if out.as_json or not sys.stdin.isatty():
        raise NotAllowed(
            f"{url}: expected a certificate that this machine trusts, found one of a CA of its own",
            hint="Give --ca-fingerprint sha256:… as the fleet printed it, or --ca FILE.",
        )
    click.echo(f"The fleet at {url} shows a CA of its own:\n  {', '.join(fingerprints(pem))}")
    click.echo("Compare with what it printed at start.")
    if not click.confirm("Are they the same?"):
        raise NotAllowed(f"{url}: the CA was not confirmed", hint="Do not go on; ask who runs the fleet.")
    return pem


def _log_in(fleet: Client, profile: Profile, username: str, secret: str, out: Output) -> None:
    answer = fleet.post("/login", {"username": username, "password": secret})
    role, until = answer.text("role"), answer.text("expires_at")
    write_profile(profile_path(), replace(profile, token=answer.text("token"), username=username))
    out.show(
        {"url": profile.url, "username": username, "role": role, "expires_at": until},
        f"Logged in at {profile.url} as {username} ({role}), until {until}.",
    )
