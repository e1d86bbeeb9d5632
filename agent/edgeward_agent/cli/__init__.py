"""The command `edgeward-agent`. Importing this needs nothing: the libraries come with the extra `agent`."""

from __future__ import annotations

from edgeward_contract.extras import load


def main() -> None:
    load("edgeward_agent.cli.app", extra="agent").main()
