"""The `edgeward` command, for people: fleet and model work from a laptop. It talks to the REST API like any client."""

from __future__ import annotations

from edgeward_contract.extras import load


def main() -> None:
    """Entry point of the console script; says in one line when the extra `tools` is not installed."""
    load("edgeward_fleet.cli.app", extra="tools").run()
