"""A bedside application at its smallest: asks a device for a risk each second, and lives on when the device does not.

edgeward-agent serve models/wdbc-risk/releases/2 --unix /tmp/serving.sock --frames /tmp/frames.sock
python examples/bedside_risk.py --device frames:/tmp/frames.sock

Stop the device and start it again meanwhile: seconds without an answer say why, and the next one is asked as before.
Needs numpy and the client alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeward_agent.client import Client, ClientError, Unavailable, Unreachable

FEATURES: Final = 30
TIMEOUT_S: Final = 0.5  # a person waits; the next second asks again


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when the device answered at least once, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="http://127.0.0.1:8500", help="http://HOST:PORT, unix:PATH or frames:PATH")
    parser.add_argument("--http", help="beside frames:PATH, where the device answers HTTP")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS")
    given = parser.parse_args(arguments)
    try:
        with Client(given.device, timeout_s=TIMEOUT_S, http=given.http) as client:
            answered = watch(client, given.seconds, given.every)
    except ClientError as error:
        print(f"bedside_risk: {error}\n  {error.hint}", file=sys.stderr)
        return 1
    print(f"{answered} of {given.seconds} answered")
    return 0 if answered else 1


def watch(client: Client, count: int, every_s: float) -> int:
    """Ask `count` times, each at its own time, and say what came. How many were answered.

    Raises:
        ClientError: of a kind that asking again does not mend.
    """
    random = np.random.default_rng(7)
    began = time.monotonic()
    answered = 0
    for number in range(count):
        time.sleep(max(0.0, began + number * every_s - time.monotonic()))
        features = random.uniform(0, 1, (1, FEATURES)).astype(np.float32)
        try:
            print(f"{number:4}  {ask(client, features)}", flush=True)
            answered += 1
        except (Unreachable, Unavailable) as error:  # worth a retry: the client connects again by itself
            print(f"{number:4}  no answer: {error}", flush=True)
    return answered


def ask(client: Client, features: np.typing.NDArray[np.float32]) -> str:
    """One patient: within 10 ms, or the device says at once that it cannot."""
    asked = time.perf_counter()
    answer = client.infer("wdbc-risk", {"features": features}, deadline_us=10_000)
    took_ms = (time.perf_counter() - asked) * 1e3
    return f"risk {float(answer['risk'][0, 0]):.3f}  version {answer.version}  {took_ms:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
