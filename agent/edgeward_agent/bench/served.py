"""`edgeward-agent serve` that ends with the benchmark that started it, even when that is killed.

Its standard input is a pipe to which nobody writes: the system closes it when the starter is gone, however it went.
One thread waits there in a single read, which costs the answers nothing. Its first argument is the folder that both
use, which it takes away when the starter cannot.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading

from edgeward_agent.cli import main


def _end_with_the_starter(gone: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    gone.set()
    os.kill(os.getpid(), signal.SIGTERM)  # as a person would end it


def _serve() -> None:
    folder, gone = sys.argv.pop(1), threading.Event()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # until the server has its own way
    threading.Thread(target=_end_with_the_starter, args=(gone,), daemon=True).start()
    try:
        main()
    finally:
        if gone.is_set():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _serve()
