"""`edgeward-agent infer`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from edgeward_agent.cli.inputs import read_pairs, read_request
from edgeward_agent.cli.options import state_dir_option
from edgeward_agent.client import Answer, Client, Unavailable, Unreachable
from edgeward_agent.config import load_config
from edgeward_agent.errors import ServingUnavailable
from edgeward_agent.state_dir import StateDir
from edgeward_agent.status import recorded_serving
from edgeward_agent.token_file import read_token
from edgeward_agent.wire.tensors import Array, Scalar, to_elements
from edgeward_contract.manifest import CaptureMode


@click.command()
@click.argument("model")
@click.option(
    "--input", "-i", "pairs", multiple=True, metavar="NAME=VALUE", help="NAME=@FILE.npy, or NAME=1,2,3 for one case."
)
@click.option(
    "--json",
    "request_file",
    metavar="FILE",
    help='A request of the protocol, {"inputs": […]}; - reads it from standard input.',
)
@click.option("--version", type=click.IntRange(min=1), help="A version in memory instead of the live one.")
@click.option("--output", "-o", "outputs", multiple=True, metavar="NAME", help="Only this output; may be given again.")
@click.option(
    "--capture",
    type=click.Choice([mode.value for mode in CaptureMode]),
    default=CaptureMode.OFF.value,
    help="Ask for more recording than the release does; durable answers after the commit.",
)
@click.option(
    "--address", metavar="URL", help="http://HOST:PORT or unix:PATH.  [default: the agent of the state folder]"
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The token to show over TCP.  [default: the one of the agent, when it is asked]",
)
@state_dir_option
def infer(
    model: str,
    pairs: tuple[str, ...],
    request_file: str | None,
    version: int | None,
    outputs: tuple[str, ...],
    capture: str,
    address: str | None,
    token_file: Path | None,
    state_dir: Path,
) -> None:
    """Ask MODEL for an answer, and print it as JSON.

    For instance: edgeward-agent infer wdbc-risk --input features=@patient.npy
    """
    if bool(pairs) == bool(request_file):
        raise click.UsageError("Give either --input NAME=VALUE (once for each input) or --json FILE.")
    state = StateDir(state_dir.absolute())
    token = read_token(token_file).decode() if token_file else None if address else agent_token(state)
    with Client(address or default_address(state), token=token) as client:
        try:
            inputs = (
                read_request(request_file) if request_file else read_pairs(pairs, client.model(model, version=version))
            )
            answer = client.infer(model, inputs, version=version, outputs=outputs, capture=CaptureMode(capture))
        except (Unreachable, Unavailable) as error:
            raise _unavailable(error) from None
    click.echo(json.dumps(_document(answer), allow_nan=False))


def default_address(state: StateDir) -> str:
    """Where the agent of this folder serves: as recorded, else as configured."""
    serving = recorded_serving(state)
    if serving.pid:
        return f"unix:{serving.unix}" if serving.unix else f"http://{serving.http}"
    config = load_config(state.root).serving
    unix = state.inside(config.unix)
    return f"unix:{unix}" if config.unix and unix.exists() else f"http://{config.http}"


def agent_token(state: StateDir) -> str | None:
    """What the agent of this folder wants to see; None where a unix socket is the way to it.

    Raises TokenUnusable.
    """
    config = load_config(state.root).serving
    if not config.token_file or default_address(state).startswith("unix:"):
        return None
    return read_token(state.inside(config.token_file)).decode()


def _unavailable(error: Unreachable | Unavailable) -> ServingUnavailable:
    """As every other command says it, with the exit code for it."""
    unavailable = ServingUnavailable(str(error))
    unavailable.hint = error.hint
    return unavailable


def _document(answer: Answer) -> dict[str, object]:
    outputs = {name: {"shape": list(array.shape), "data": _elements(array)} for name, array in answer.outputs.items()}
    return {"model": answer.model, "version": answer.version, "outputs": outputs}


def _elements(array: Array) -> list[Scalar]:
    """As JSON can carry them: what is not finite becomes null."""
    return [None if isinstance(each, float) and not math.isfinite(each) else each for each in to_elements(array)]
