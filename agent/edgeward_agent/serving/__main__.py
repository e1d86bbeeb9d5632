"""`python -m edgeward_agent.serving`: the serving process. What it does is in `main`."""

from __future__ import annotations

import gc
import sys


def _start() -> int:
    """Nearly all that a start makes stays, and the collector would walk through it time and again: 20 ms of 300.

    `runtime.serving` turns it on when everything is there.
    """
    gc.disable()
    from edgeward_agent.serving.main import main

    return main()


if __name__ == "__main__":
    sys.exit(_start())
