"""`edgeward-agent serve` that ends with the benchmark that started it, even when that is killed.

Its standard input is a pipe to which nobody writes: the system closes it when the starter is gone, however it went.
One thread waits there in a single read, which costs the answers nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from edgeward_agent.cli import main


def _end_with_the_starter() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # as a person would end it


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    main()
