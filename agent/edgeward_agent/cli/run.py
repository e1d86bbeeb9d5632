"""`edgeward-agent run`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from edgeward_agent import daemon, log
from edgeward_agent.cli.options import listening_address, state_dir_option
from edgeward_agent.config import AgentConfig, load_config
from edgeward_agent.errors import AgentError
from edgeward_agent.state_dir import StateDir


@click.command()
@state_dir_option
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default="agent.toml of the state folder, if it is there",
    help="Configuration; docs/configuration.md lists every key.",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=listening_address,
    help="Serve here instead of where the configuration says; '' for nowhere.",
)
@click.option("--unix", metavar="PATH", help="Serve on this unix socket instead; '' for none.")
@click.option(
    "--grpc",
    metavar="HOST:PORT",
    callback=listening_address,
    help="Answer gRPC here instead of where the configuration says (extra grpc); '' for nowhere.",
)
def run(state_dir: Path, config: Path | None, http: str | None, unix: str | None, grpc: str | None) -> None:
    """Run this device until Ctrl-C or SIGTERM.

    It serves the models that it has at once, then asks the fleet what it should have. Without the fleet it goes on
    serving and keeps the results. `edgeward-agent enrol` comes first.
    """
    settings = _with_addresses(load_config(state_dir, config), http=http, unix=unix, grpc=grpc)
    log.set_up(settings.log.level, settings.log.format)
    try:
        asyncio.run(daemon.run(StateDir(state_dir.absolute()), settings))
    except BaseExceptionGroup as group:
        raise _cause(group) from None


def _with_addresses(config: AgentConfig, **given: str | None) -> AgentConfig:
    changes = {key: value for key, value in given.items() if value is not None}
    return msgspec.structs.replace(config, serving=msgspec.structs.replace(config.serving, **changes))


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error that a person may see stands for all; anything else is a bug and keeps its traceback."""
    known, bugs = group.split((AgentError, OSError))
    if bugs is not None or known is None:
        return group
    first = known.exceptions[0]
    return _cause(first) if isinstance(first, BaseExceptionGroup) else first
