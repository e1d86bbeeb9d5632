"""`edgeward-agent serve` that ends with the benchmark that started it, even when that is killed.

Its standard input is a pipe to which nobody writes: it ends when the starter closes it, and the system closes it when
the starter is gone, however it went. One thread waits there in a single read, which costs the answers nothing. Its
first argument is the folder that both use, which it takes away, since a starter that was killed cannot.

Nobody waits for an answer then, so nothing is drained: the thread ends the process. It does not ask the main thread to,
which may be in the middle of its start or of an end of its own, where a signal finds no handler or breaks a clean-up.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Final

from edgeward_agent.cli import main

_CLOSING_S: Final = 0.5
"""For a pipe to close after its sibling: a starter that goes takes both away, one after the other."""


def _end_with_the_starter(folder: Path) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    for _ in range(2):  # the server may have made its socket in the middle of the first
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _serve() -> None:
    watch = threading.Thread(target=_end_with_the_starter, args=(Path(sys.argv.pop(1)),), daemon=True)
    watch.start()
    try:
        main()
    finally:
        watch.join(_CLOSING_S)  # who finds the way to the starter closed, as `serve` does, may be the first to know


if __name__ == "__main__":
    _serve()
