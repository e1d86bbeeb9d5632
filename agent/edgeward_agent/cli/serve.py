"""`edgeward-agent serve`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeward_agent import log
from edgeward_agent.cli.options import listening_address
from edgeward_agent.serving import local
from edgeward_agent.serving.local import Served
from edgeward_agent.token_file import read_token


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL.onnx…", type=click.Path(path_type=Path))
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=listening_address,
    help=f"Where to answer; port 0 takes a free one.  [default: {local.DEFAULT_HTTP}]",
)
@click.option("--unix", metavar="PATH", type=click.Path(path_type=Path), help="A unix socket to answer on.")
@click.option(
    "--frames",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A unix socket for packets with tensors in shared memory (Linux).",
)
@click.option(
    "--grpc",
    metavar="HOST:PORT",
    callback=listening_address,
    help="Where to answer gRPC (extra grpc); port 0 takes a free one.",
)
@click.option(
    "--deadlines",
    type=click.Choice(["budget", "off"]),
    default="budget",
    show_default=True,
    help="The deadline of a request that brings none: its model's budget, if it has a manifest, or none.",
)
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Let clients name files under /dev/shm for tensors (Triton's system shared memory).",
)
@click.option(
    "--token-file",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The token that clients must show over TCP; `edgeward-agent token new --file PATH` makes one.",
)
@click.option("--without-token", is_flag=True, help="Let other machines ask without a token, where --http lets them.")
def serve(
    models: tuple[Path, ...],
    http: str | None,
    unix: Path | None,
    frames: Path | None,
    grpc: str | None,
    deadlines: str,
    shared_memory: bool,
    token_file: Path | None,
    without_token: bool,
) -> None:
    """Serve ONNX files or release folders on this machine, with no fleet at all, until Ctrl-C.

    A model is called as its manifest says, else as its file: risk.onnx answers at /v2/models/risk/infer
    (Open Inference Protocol v2, JSON and binary tensors).
    """
    log.set_up("warning")
    local.serve(
        models,
        http=http,
        unix=unix,
        frames=frames,
        grpc=grpc,
        announce=_announce,
        deadlines=deadlines == "budget",
        shared_memory=shared_memory,
        token=read_token(token_file) if token_file else b"",
        without_token=without_token,
    )


def _announce(served: Served) -> None:
    where = [f"http://{served.http}"] if served.http else []
    where += [f"unix:{served.unix}"] if served.unix else []
    where += [f"frames:{served.frames}"] if served.frames else []
    where += [f"grpc://{served.grpc}"] if served.grpc else []
    for model in served.models:
        click.echo(f"{model.name}@{model.version}  {model.path}")
    click.echo(f"serving on {' and '.join(where)}; Ctrl-C ends it")
    if served.http:
        first = served.models[0].name
        click.echo(f"  curl http://{served.http}/v2/models/{first}")
