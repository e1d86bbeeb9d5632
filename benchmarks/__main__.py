"""`python -m benchmarks [NAME …]`: run benchmarks, print them, keep them in `benchmarks/results`.

`python -m benchmarks latency [OPTION …]` is the longest and has options: `--help` shows them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from benchmarks import outbox, swaps, update_under_load
from benchmarks.fleet import scenario
from benchmarks.latency import run as latency
from benchmarks.report import Result, keep

BENCHMARKS: Final[dict[str, Callable[[], Result]]] = {
    "fleet_https": lambda: scenario.measure(scenario.Plan(link="https")),
    "fleet_mqtt": lambda: scenario.measure(scenario.Plan(link="mqtt")),
    "outbox": outbox.measure,
    "swaps": swaps.measure,
    "update_under_load": update_under_load.measure,
}


def main(names: list[str]) -> int:
    if names[:1] == ["latency"]:
        return latency.main(names[1:])
    if unknown := set(names) - set(BENCHMARKS):
        print(
            f"benchmarks: expected latency or some of {' '.join(BENCHMARKS)}, got {' '.join(sorted(unknown))}",
            file=sys.stderr,
        )
        return 2
    for name in names or BENCHMARKS:
        print(f"{name} …", flush=True)
        keep(name, BENCHMARKS[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
