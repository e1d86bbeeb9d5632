"""`edgeward-agent shrink`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from edgeward_agent.cli.options import json_option, state_dir_option
from edgeward_agent.errors import ServingRefused
from edgeward_agent.serving_control import ServingControl
from edgeward_agent.state_dir import StateDir
from edgeward_contract.artifact import ModelName


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@state_dir_option
@json_option
def shrink(models: tuple[str, ...], state_dir: Path, as_json: bool) -> None:
    """Give back the memory that large requests to a model have left behind; of all models when none is named.

    ONNX Runtime keeps what its largest request took. Answers go on meanwhile. A model that gets large requests again
    and again may give it back by itself: shrink_arena in its manifest.
    """
    done = asyncio.run(_shrink(StateDir(state_dir.absolute()), [ModelName(each) for each in models]))
    if as_json:
        click.echo(json.dumps({"shrunk": done}))
    else:
        click.echo(f"gave back what was left behind: {', '.join(done)}" if done else "no model is served")


async def _shrink(state: StateDir, wanted: list[ModelName]) -> list[ModelName]:
    control = ServingControl(state.control_socket)
    served = (await control.state()).models
    unknown = [each for each in wanted if each not in served]
    if unknown:
        raise ServingRefused(f"expected models of {sorted(served)}, got {unknown[0]!r}")
    names = wanted or sorted(served)
    for each in names:
        await control.shrink(each)
    return names
