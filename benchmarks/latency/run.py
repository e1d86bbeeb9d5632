"""`python -m benchmarks latency`: one run of everything, or a part of it.

The whole takes about an hour on two cores. It may be stopped at any time, or by `--minutes`; the same command goes
on where it was, as long as the code that is measured is the same.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks import update_under_load
from benchmarks.latency import clients, goals, metering, noise, ours, page, plan, result, rounds, starts
from benchmarks.latency.native import NoCompiler
from benchmarks.latency.noise import TooNoisy
from benchmarks.latency.plan import SMALL
from benchmarks.latency.store import Figures, Line, Store
from benchmarks.latency.workload import NAMES


def main(arguments: Sequence[str]) -> int:
    """Returns 0 when all that was asked for is measured, 2 when it cannot be, 3 when it has to go on later."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else servers that stand still would stay for ever
    ours.compile_once()
    store = Store(fresh=options.fresh, pace=options.pace)
    deadline = time.monotonic() + options.minutes * 60
    wanted = plan.cases(options.models, options.only)
    try:
        complete = rounds.measure(wanted, options.rounds, store, deadline, options.pace)
        complete = complete and _measure_beside(options.models, options.only, options.rounds, store, deadline)
    except (NoCompiler, TooNoisy) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2 if isinstance(error, NoCompiler) else 3
    found = result.kept(plan.cases(NAMES, plan.servers()), store.lines())
    print(page.goals_table(found))
    if not complete:
        print("the time is over; the same command goes on from here")
        return 3
    if options.keep:
        result.write(found)
        page.main()
    return 0


def _measure_beside(models: Sequence[str], only: Sequence[str], count: int, store: Store, deadline: float) -> bool:
    """What is no case: starts and Python clients. Returns whether nothing is missing now."""
    if SMALL not in models or "ours" not in only:
        return True
    names = [name for name in only if name not in (*plan.RAW, "echo")]
    parts: dict[str, Callable[[int], Figures]] = {
        goals.START_KEY: partial(starts.measure, SMALL, names),
        goals.CLIENT_KEY: lambda _: clients.measure(SMALL),
        goals.METRICS_KEY: lambda _: metering.measure(),
    }
    for number in range(count):
        for key, measured in parts.items():
            if store.has(key, number):
                continue
            if time.monotonic() > deadline:
                return False
            line = Line(key=key, round=number, figures=noise.undisturbed(partial(measured, number)))
            store.add(line)
            print(f"  round {number + 1}  {key}: {dict(line.figures)}", flush=True)
    return _measure_updates(count, store, deadline)


def _measure_updates(count: int, store: Store, deadline: float) -> bool:
    """The one part that needs a fleet."""
    to_do = [number for number in range(count) if not store.has(goals.UPDATE_KEY, number)]
    if not to_do:
        return True
    with update_under_load.scene() as played:
        for number in to_do:
            if time.monotonic() > deadline:
                return False
            noise.wait()
            figures = update_under_load.figures(*played.round(number, update_under_load.STEADY_S))
            store.add(Line(key=goals.UPDATE_KEY, round=number, figures=figures))
            print(f"  round {number + 1}  {goals.UPDATE_KEY}: {figures}", flush=True)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(plan.servers())
    parser.add_argument("--only", type=_servers, default=plan.servers(), metavar="NAME,…", help=names)
    parser.add_argument("--models", type=_models, default=NAMES, metavar="NAME,…", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=plan.ROUNDS, metavar="N")
    parser.add_argument("--pace", type=float, default=1.0, metavar="X", help="share of the usual time for each case")
    parser.add_argument("--minutes", type=float, default=240.0, metavar="N", help="stop after so many")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--keep", action="store_true", help="write results/latency.json, and docs/performance from it")
    return parser


def _servers(text: str) -> tuple[str, ...]:
    """`ours` stands for all that is needed to judge ours without a peer."""
    names = text.split(",")
    return _known([*plan.RAW, "echo", "bare", *names] if "ours" in names else names, plan.servers())


def _models(text: str) -> tuple[str, ...]:
    return _known(text.split(","), NAMES)


def _known(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - set(known)):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return tuple(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
