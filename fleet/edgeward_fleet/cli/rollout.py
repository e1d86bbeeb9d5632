"""Rollouts: bring a release to devices in phases, watch it, stop it, take it back."""

from __future__ import annotations

from typing import Final

import click

from edgeward_contract.artifact import ReleaseRef
from edgeward_contract.schema import Fields
from edgeward_fleet.cli.errors import BadUsage
from edgeward_fleet.cli.options import answering, connect, given
from edgeward_fleet.cli.output import Column, Output, ago, text
from edgeward_fleet.cli.values import known_id, percent, phases, release, seconds
from edgeward_fleet.cli.watch import DEVICES, watch, why

_COLUMNS: Final[tuple[Column, ...]] = (
    ("ROLLOUT", text("id")),
    ("RELEASE", text("release")),
    ("STATE", text("state")),
    ("BY", text("created_by")),
    ("CREATED", ago("created_at")),
    ("REASON", text("reason")),
)
_PHASES: Final[tuple[Column, ...]] = (
    ("PHASE", text("name")),
    ("STATUS", text("status")),
    ("DEVICES", lambda item: text("total")(item.object("evidence"))),
    ("SUCCEEDED", lambda item: text("succeeded")(item.object("evidence"))),
    ("FAILED", lambda item: text("failed")(item.object("evidence"))),
    ("UNKNOWN", lambda item: text("unknown")(item.object("evidence"))),
    ("REQUESTS", lambda item: text("requests")(item.object("evidence"))),
    ("ERRORS", lambda item: text("errors")(item.object("evidence"))),
)


@click.group()
def rollout() -> None:
    """Rollouts: bring a release to devices in phases, watch it, stop it, take it back."""


rollout.add_command(watch)


@rollout.command()
@click.option("--release", "wanted", type=release, required=True, help="What to roll out, as name@version.")
@click.option("--phases", "short", metavar="20%,100%", help="Shares of the devices, each including those before.")
@click.option(
    "--phase", "long", multiple=True, metavar="name=…,percent=…,soak=…", help="One phase; give it once for each."
)
@click.option(
    "--soak",
    type=seconds,
    metavar="DURATION",
    default="30s",
    show_default=True,
    help="How long a phase must stay good.",
)
@click.option(
    "--timeout",
    type=seconds,
    metavar="DURATION",
    default="1h",
    show_default=True,
    help="How long a phase may take to settle.",
)
@click.option("--site", "sites", multiple=True, help="Only devices of this site; again for more.")
@click.option("--device", "devices", multiple=True, help="Only this device; again for more.")
@click.option("--on-failure", type=click.Choice(["rollback", "pause", "abort"]), help="What a failed phase leads to.")
@click.option("--max-failed", type=percent, metavar="PERCENT", help="Percent of a phase's devices that may fail.")
@click.option(
    "--max-errors", type=percent, metavar="PERCENT", help="Percent of requests that may fail on the new model."
)
@click.option("--supersedes", help="An unfinished rollout of the same model that this one replaces.")
@click.option("--name", help="What people call it.")
@answering
def create(
    wanted: ReleaseRef,
    short: str | None,
    long: tuple[str, ...],
    soak: int,
    timeout: int,
    sites: tuple[str, ...],
    devices: tuple[str, ...],
    on_failure: str | None,
    max_failed: float | None,
    max_errors: float | None,
    supersedes: str | None,
    name: str | None,
    out: Output,
) -> None:
    """Ask for a rollout. Somebody else approves it; nothing moves before."""
    if short and long:
        raise BadUsage("expected --phases or --phase, got both")
    target = given(sites=list(sites) or None, devices=list(devices) or None)
    gates = given(max_failed_percent=max_failed, max_error_percent=max_errors)
    if max_failed is not None:
        gates["min_success_percent"] = 100 - max_failed
    spec = given(
        release=str(wanted),
        phases=phases(long or (short or "20%,100%",), soak_s=soak, timeout_s=timeout),
        target=target or None,
        gates=gates or None,
        on_failure=on_failure,
        supersedes=supersedes,
        name=name,
    )
    with connect() as fleet:
        made = fleet.post("/rollouts", spec)
    out.show(
        made.members(),
        f"{made.text('id')}: {wanted} waits for approval.",
        f"Somebody else runs: edgeward rollout approve {made.text('id')}",
    )


@rollout.command()
@click.argument("rollout_id", type=known_id)
@click.option("--spec", "spec_sha256", help="Approve only if the spec still has this digest; as read if left out.")
@answering
def approve(rollout_id: str, spec_sha256: str | None, out: Output) -> None:
    """Approve ROLLOUT_ID, which somebody else asked for; it starts at once."""
    with connect() as fleet:
        digest = spec_sha256 or fleet.get(f"/rollouts/{rollout_id}").text("spec_sha256")
        found = fleet.post(f"/rollouts/{rollout_id}/approve", {"spec_sha256": digest})
    _told(found, out)


def _add_order(word: str, summary: str) -> None:
    """A command that tells the fleet one word about a rollout, and why."""

    @rollout.command(word, help=summary)
    @click.argument("rollout_id", type=known_id)
    @click.option("--reason", help="Why; it goes into the audit log.")
    @answering
    def order(rollout_id: str, reason: str | None, out: Output) -> None:
        with connect() as fleet:
            _told(fleet.post(f"/rollouts/{rollout_id}/{word}", given(reason=reason)), out)


_add_order("pause", "Offer ROLLOUT_ID to no more devices until resumed; those that have the offer go on.")
_add_order("resume", "Go on with ROLLOUT_ID.")
_add_order("abort", "End ROLLOUT_ID; devices that run the release keep it.")
_add_order("rollback", "Give every device that was offered ROLLOUT_ID its former release; also after success.")


@rollout.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@answering
def list_rollouts(limit: int, out: Output) -> None:
    """List rollouts, newest first."""
    with connect() as fleet:
        out.table(fleet.items("/rollouts", limit=limit), _COLUMNS, empty="No rollouts yet.")


@rollout.command()
@click.argument("rollout_id", type=known_id)
@answering
def show(rollout_id: str, out: Output) -> None:
    """Show ROLLOUT_ID: its phases, its devices, and why it stands where it stands."""
    with connect() as fleet:
        found = fleet.get(f"/rollouts/{rollout_id}")
    if out.as_json:
        out.show(found.members())
        return
    out.say(f"{rollout_id}  {found.text('release')}  {found.text('state')}", why(found))
    out.say(
        f"asked for by {found.text('created_by')}, approved by {found.text('approved_by', default='nobody yet')}", ""
    )
    out.table(found.objects("phases"), _PHASES, empty="")
    out.say("")
    out.table(found.objects("devices"), DEVICES, empty="No device has been chosen yet.")


def _told(found: Fields, out: Output) -> None:
    out.show(found.members(), f"{found.text('id')} is {found.text('state')}. {why(found)}".rstrip())
