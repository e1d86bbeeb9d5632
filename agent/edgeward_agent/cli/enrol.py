"""`edgeward-agent enrol`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from edgeward_agent.cli.options import json_option, state_dir_option
from edgeward_agent.errors import AgentError
from edgeward_agent.identity.enrolment import Invitation
from edgeward_agent.identity.enrolment import enrol as enrol_device
from edgeward_agent.process import StateFolderLock
from edgeward_agent.state_dir import StateDir


@click.command()
@click.option("--fleet", required=True, metavar="URL", help="The fleet's enrolment address, https://host:8445.")
@click.option("--token", required=True, help="The one-time token; `-` reads it from standard input.")
@click.option("--ca-fingerprint", required=True, metavar="sha256:HEX", help="Printed with the token by the fleet.")
@click.option("--force", is_flag=True, help="Replace an identity that is here; the old pair is kept as previous.*.")
@state_dir_option
@json_option
def enrol(fleet: str, token: str, ca_fingerprint: str, force: bool, state_dir: Path, as_json: bool) -> None:
    """Make this machine a device of a fleet.

    A fleet admin prints the whole command with `edgeward device token --site SITE`. The token works once. The
    fingerprint proves that the fleet is the right one before the token is shown to it.
    """
    if token == "-":  # noqa: S105
        token = sys.stdin.readline().strip()
    state = StateDir(state_dir)
    state.make()
    lock = StateFolderLock(state.agent_pid)
    try:
        invitation = Invitation(fleet_url=fleet.rstrip("/"), token=token, ca_fingerprint=ca_fingerprint)
        identity = enrol_device(state.identity, invitation, force=force)
    finally:
        lock.close()
    if words := left_behind(state, identity.facts.device_id):
        click.echo(f"warning: {words}", err=True)
    days = identity.days_left(time.time())
    if as_json:
        click.echo(json.dumps({"device_id": identity.facts.device_id, "site": identity.facts.site, "days_left": days}))
        return
    click.echo(f"enrolled as {identity.facts.device_id} of site {identity.facts.site}; certificate for {days} days")
    click.echo(f"Start it with: edgeward-agent run --state-dir {state_dir}")


def left_behind(state: StateDir, device: str) -> str:
    """In words what the machine has recorded under another name; empty when there is nothing, or it cannot be read."""
    from edgeward_agent.outbox.offline import waiting_of  # takes 0.15 s

    try:
        before, count = waiting_of(state.root)
    except AgentError:
        return ""
    if before == device or not count:
        return ""
    results = "1 result" if count == 1 else f"{count} results"
    verb = "waits here and is" if count == 1 else "wait here and are"
    export = f"edgeward-agent outbox export --state-dir {state.root} --to FILE"
    return f"{results} of {before} {verb} not sent as {device}'s; before you start the agent, save them with `{export}`"
