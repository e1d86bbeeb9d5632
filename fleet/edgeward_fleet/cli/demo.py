"""`edgeward demo`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from edgeward_fleet.cli.errors import Exit
from edgeward_fleet.cli.options import FOLDER, answering
from edgeward_fleet.cli.output import Output

_PLAIN_WIDTH: Final = 120  # a log has no width of its own


@click.command()
@click.option("--devices", type=click.IntRange(3, 20), default=5, show_default=True, help="How many devices.")
@click.option("--headless", is_flag=True, help="End by itself, with 1 when a count is not what it must be.")
@click.option("--keep", is_flag=True, help="Keep the folder with logs, databases and the bedside's ledger.")
@click.option(
    "--link", type=click.Choice(["https", "mqtt"]), default="https", show_default=True, help="The way to the fleet."
)
@click.option("--models", type=FOLDER, help="The folder of the reference models; found by itself in a checkout.")
@answering
def demo(devices: int, headless: bool, keep: bool, link: str, models: Path | None, out: Output) -> None:
    """Show everything on this machine: a fleet, real devices, 569 real patients.

    Rolls out a better model, cuts a device off, and tries to roll out two bad ones. Everything that the bedside
    applications were told is held against what the fleet has. Takes about a minute.
    """
    # The rest of the command starts without what only a demonstration needs.
    from edgeward_fleet.demo.narrator import Narrator
    from edgeward_fleet.demo.show import Wishes, put_on

    wishes = Wishes(devices=devices, headless=headless, keep=keep, link=link, models=models)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whichever way we end, the devices end with us
        signal.signal(number, signal.default_int_handler)
    console = Console(stderr=out.as_json, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    with Narrator(console) as narrator:
        result = put_on(wishes, narrator, _stay)
    out.show(result.document())
    click.get_current_context().exit(Exit.OK if result.ok else Exit.FAILED)


def _stay() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo(err=True)
