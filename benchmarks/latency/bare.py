"""Our serving process without what a device needs beside answers: no deadlines, and nothing is recorded.

The difference to `edgeward_agent.serving.main` is what that costs.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from edgeward_agent import listening
from edgeward_agent.priority import take_short_turns
from edgeward_agent.serving import local, loop
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Loading
from edgeward_agent.serving.runtime import serving


async def _run(options: argparse.Namespace) -> None:
    stop = loop.stop_signals()
    loading = Loading(deadlines=False)
    registry = Registry(loading)
    registry.adopt(local.load_file(options.release, loading))
    listeners = [listening.listen_tcp(options.http), listening.listen_unix(options.unix)]
    listeners.append(listening.listen_frames(options.frames))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(registry, NoCapture(), listeners))
        take_short_turns()
        await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("--http", required=True)
    parser.add_argument("--unix", type=Path, required=True)
    parser.add_argument("--frames", type=Path, required=True)
    loop.run(_run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
