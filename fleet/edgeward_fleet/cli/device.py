"""Devices: look at them, let new ones in, shut one out."""

from __future__ import annotations

import sys
from typing import Final

import click

from edgeward_fleet.cli.errors import BadUsage
from edgeward_fleet.cli.options import answering, connect, given
from edgeward_fleet.cli.output import Column, Output, ago, described, text
from edgeward_fleet.cli.values import known_id

_COLUMNS: Final[tuple[Column, ...]] = (
    ("DEVICE", text("device_id")),
    ("SITE", text("site")),
    ("STATE", text("state")),
    ("SEEN", ago("last_seen_at")),
)
_NO_ANSWER: Final = "expected a yes on standard input or --yes, found neither; nothing was changed"
_WITHOUT_ASKING: Final = "Add --yes to do it without being asked."


@click.group()
def device() -> None:
    """Devices: look at them, let new ones in, shut one out."""


@device.command("list")
@click.option("--site", help="Only devices of this site.")
@click.option("--state", help="Only devices in this state, such as online or offline.")
@answering
def list_devices(site: str | None, state: str | None, out: Output) -> None:
    """List the enrolled devices and how lately each was heard of."""
    with connect() as fleet:
        devices = fleet.items("/devices", site=site, state=state)
        out.table(devices, _COLUMNS, empty="No devices yet. `edgeward device token --site SITE` lets one in.")


@device.command()
@click.argument("device_id", type=known_id)
@answering
def show(device_id: str, out: Output) -> None:
    """Show what DEVICE_ID should be, what it is, and what happened."""
    with connect() as fleet:
        found = fleet.get(f"/devices/{device_id}")
        out.show(found.members(), *described(found))


@device.command()
@click.option("--site", required=True, help="Where the device will stand.")
@click.option("--device-id", help="The name that it gets; the fleet chooses one if left out.")
@click.option("--expires-in", type=click.IntRange(1, 24 * 7), help="Hours until the token ends; 24 if left out.")
@answering
def token(site: str, device_id: str | None, expires_in: int | None, out: Output) -> None:
    """Make a one-time token and print the whole command to run on the device."""
    with connect() as fleet:
        made = fleet.post("/device-tokens", given(site=site, device_id=device_id, expires_in_h=expires_in))
    out.say(f"Run this on the device, once; it becomes {made.text('device_id')} (until {made.text('expires_at')}):", "")
    out.show(made.members(), made.text("command"))


@device.command()
@click.argument("device_id", type=known_id)
@click.option("--reason", help="Why; it goes into the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@answering
def revoke(device_id: str, reason: str | None, yes: bool, out: Output) -> None:
    """Shut DEVICE_ID out: the fleet takes nothing from it any more. It goes on answering at its site."""
    if not yes:
        _ask(
            f"Shut {device_id} out? The name is never used again; to come back the device needs a token for another.",
            out,
        )
    with connect() as fleet:
        found = fleet.post(f"/devices/{device_id}/revoke", given(reason=reason))
    out.show(found.members(), f"{device_id} is revoked.")


def _ask(question: str, out: Output) -> None:
    """Raises BadUsage when nobody can answer."""
    if out.as_json:
        raise BadUsage("expected --yes together with --json, for nobody can be asked")
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)  # the question stands on that line
        raise BadUsage(_NO_ANSWER, hint=_WITHOUT_ASKING) from None
