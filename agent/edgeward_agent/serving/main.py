"""The serving process of a device. Started and restarted by the control process or by systemd, and outlives both.

It loads what was committed before it accepts anybody: connections wait in the backlog of the inherited sockets, so a
restart is a pause and not an error.
"""

from __future__ import annotations

import argparse
import logging
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from edgeward_agent import listening, log
from edgeward_agent.errors import AgentError
from edgeward_agent.priority import take_short_turns
from edgeward_agent.serving import loop
from edgeward_agent.serving.boot import boot
from edgeward_agent.serving.capture import CaptureStream
from edgeward_agent.serving.control import ControlApi
from edgeward_agent.serving.exchange import MOST_CONNECTIONS, Limits
from edgeward_agent.serving.files import connections, raise_limit
from edgeward_agent.serving.memory import share_one_heap
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Loading
from edgeward_agent.serving.runtime import answering, beside, serving
from edgeward_agent.serving.sockets import inherit
from edgeward_agent.token_file import read_token

_OWNER_ALONE: Final = 0o600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    options = _parser().parse_args(arguments)
    share_one_heap()
    log.set_up(options.log_level, options.log_format)
    try:
        loop.run(_run(options))
    except AgentError as error:
        logging.getLogger(__name__).error("%s. %s", error, error.hint)
        return 1
    return 0


async def _run(options: argparse.Namespace) -> None:
    stop = loop.stop_signals()
    control, listeners = listening.listen_unix(options.control, mode=_OWNER_ALONE), _listeners(options)
    registry = Registry(Loading(graphs=options.graphs, deadlines=options.deadlines == "budget"))
    boot(registry, options.boot)
    capture = CaptureStream(options.capture)
    limits = Limits(
        connections=connections(MOST_CONNECTIONS, raise_limit()),
        token=read_token(options.token_file) if options.token_file else b"",
        body_bytes=options.max_body_mib << 20,
        json_bytes=options.max_json_kib << 10,
        shared_memory=options.shared_memory,
    )
    async with AsyncExitStack() as stack:
        stack.callback(options.control.unlink, missing_ok=True)
        await stack.enter_async_context(beside(capture.run(), "capture"))
        stack.push_async_callback(capture.finish)
        await stack.enter_async_context(answering(ControlApi(registry, capture), [control]))
        await stack.enter_async_context(serving(registry, capture, listeners, grpc=options.grpc, limits=limits))
        take_short_turns()  # this thread alone: those that compute have started, or take their usual turns
        await stop.wait()


def _listeners(options: argparse.Namespace) -> list[socket.socket]:
    inherited = (options.fd_http, options.fd_unix, options.fd_frames)
    listeners = [inherit(number) for number in inherited if number is not None]
    listeners += [listening.listen_tcp(options.http)] if options.http is not None else []
    listeners += [listening.listen_unix(options.unix)] if options.unix is not None else []
    listeners += [listening.listen_frames(options.frames)] if options.frames is not None else []
    return listeners


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeward-serving", description=__doc__)
    parser.add_argument("--boot", type=Path, required=True, help="list of the committed models")
    parser.add_argument("--control", type=Path, required=True, help="private socket for commands")
    parser.add_argument("--capture", type=Path, required=True, help="socket of the control process that takes records")
    parser.add_argument("--http", metavar="HOST:PORT", help="loopback address to answer on")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="unix socket to answer on")
    parser.add_argument("--frames", type=Path, metavar="PATH", help="unix socket to answer packets on")
    parser.add_argument("--grpc", default="", metavar="HOST:PORT", help="loopback address to answer gRPC on")
    parser.add_argument("--fd-http", type=int, metavar="N", help="inherited listening TCP socket")
    parser.add_argument("--fd-unix", type=int, metavar="N", help="inherited listening unix socket")
    parser.add_argument("--fd-frames", type=int, metavar="N", help="inherited listening socket for packets")
    parser.add_argument("--graphs", type=Path, metavar="DIR", help="graphs that were prepared for this device")
    parser.add_argument(
        "--deadlines", choices=("budget", "off"), default="budget", help="of requests that bring none of their own"
    )
    parser.add_argument("--log-level", default="info", help="least severe level that is written")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="form of a line")
    parser.add_argument("--max-body-mib", type=int, default=64, metavar="MIB", help="largest request body")
    parser.add_argument("--max-json-kib", type=int, default=1024, metavar="KIB", help="most JSON in a request")
    parser.add_argument("--token-file", type=Path, metavar="PATH", help="token that clients show over TCP")
    parser.add_argument("--shared-memory", action="store_true", help="let clients name files under /dev/shm")
    return parser
