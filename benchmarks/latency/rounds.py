"""Rounds: every case once, in turn, so that a machine that drifts drifts under all of them alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.latency import native, noise, raw, servers, tree
from benchmarks.latency.native import Load, LoadFailed, Sample
from benchmarks.latency.plan import CLIENT_CORES, FLOORS, RAW, RECORDER_CORES, SERVER_CORES, Case, blocks, passes, times
from benchmarks.latency.servers import NotStarted, Server
from benchmarks.latency.store import Figures, Line, Store
from benchmarks.latency.way import Way, ask
from benchmarks.latency.workload import Workload, prepare

_BY_TURN: Final = {"p50_us": 0.5, "p99_us": 0.99}
REHEARSAL_BELOW: Final = 0.25
"""Below this pace nobody quotes a figure, and the machine may be noisy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """All servers of a model, and why others are missing. `pace` below 1 asks for a shorter time: a rehearsal."""

    workload: Workload
    pace: float
    servers: Mapping[str, Server]
    missing: Mapping[str, str]


def measure(wanted: Sequence[Case], rounds: int, store: Store, deadline: float, pace: float = 1.0) -> bool:
    """Measure what is missing until `deadline` (of time.monotonic). Returns whether nothing is missing now.

    Raises:
        NoCompiler, TooNoisy: it cannot be measured here, or not now.
    """
    for model in dict.fromkeys(case.model for case in wanted):
        cases = [case for case in wanted if case.model == model]
        if not _to_do(cases, rounds, store):
            continue
        with _all_running(model, _to_do(cases, rounds, store), pace) as running:
            for number in range(rounds):
                if not _round(cases, number, running, store, deadline):
                    return False
    return True


def _to_do(cases: Sequence[Case], rounds: int, store: Store) -> list[Case]:
    return [case for case in cases if any(not store.has(case.key, number) for number in range(rounds))]


def _round(cases: Sequence[Case], number: int, running: Running, store: Store, deadline: float) -> bool:
    """The order turns with the number of the round: nobody is always measured after the same neighbour."""
    found = blocks([case for case in cases if not store.has(case.key, number)])
    shift = number % len(found) if found else 0
    for block in (*found[shift:], *found[:shift]):
        if time.monotonic() > deadline:
            return False
        for line in _measured(block, number, running):
            store.add(line)
            print(f"  round {number + 1}  {line.key:<58} {_short(line)}", flush=True)
    return True


def _measured(block: Sequence[Case], number: int, running: Running) -> list[Line]:
    """One pass over the block after the other, there and back. Raises TooNoisy."""
    careful = running.pace >= REHEARSAL_BELOW
    samples: dict[str, list[Sample]] = {case.key: [] for case in block}
    notes = {case.key: running.missing[case.server] for case in block if case.server in running.missing}
    shift = number % len(block)
    order = [*block[shift:], *block[:shift]]
    for turn in range(passes(block[0]) if careful else 1):
        for case in order[:: -1 if turn % 2 else 1]:
            if case.key not in notes:
                try:
                    samples[case.key].append(noise.undisturbed(partial(_sample, case, running), careful))
                except LoadFailed as error:
                    notes[case.key] = str(error)[:300]
    return [
        Line(key=case.key, round=number, figures={}, note=notes[case.key])
        if case.key in notes
        else _line(case, number, samples[case.key], running)
        for case in block
    ]


def _line(case: Case, number: int, turns: Sequence[Sample], running: Running) -> Line:
    by_turn = {name: [each.quantile_us(share) for each in turns] for name, share in _BY_TURN.items()}
    return Line(key=case.key, round=number, figures=_figures(Sample.merged(turns), case, running), turns=by_turn)


def _sample(case: Case, running: Running) -> Sample:
    """One turn."""
    span = times(case)
    seconds = span.seconds / passes(case) * running.pace
    if case.server in RAW:
        return raw.run(running.workload, seconds, SERVER_CORES[case.placement], huge_pages=case.server != "raw")
    server = running.servers[_process(case)]
    way = server.ways[case.way]
    what = Load(
        request=way.request,
        connections=case.connections,
        seconds=seconds,
        warm_up_s=span.warm_up_s * running.pace,
        plan=way.plan,
    )
    if server.recorder:
        tree.pin(server.recorder, RECORDER_CORES[case.placement])
    with tree.awake(server.pid, SERVER_CORES[case.placement]):
        return native.load(way.target, what, cores=CLIENT_CORES[case.placement])


def _figures(sample: Sample, case: Case, running: Running) -> Figures:
    figures = {
        "p50_us": sample.quantile_us(0.5),
        "p90_us": sample.quantile_us(0.9),
        "p99_us": sample.quantile_us(0.99),
        "p99.9_us": sample.quantile_us(0.999),
        "per_s": sample.per_s,
        "answers": float(len(sample.latencies_ns)),
    }
    if case.server in running.servers:
        held = tree.memory(running.servers[case.server].pid)
        figures |= {"rss_mib": held.rss_mib, "pss_mib": held.pss_mib, "processes": float(held.processes)}
    return figures


def _process(case: Case) -> str:
    """A floor has a process for each way."""
    return f"echo {case.way}" if case.server == "echo" else case.server


@contextmanager
def _all_running(model: str, cases: Sequence[Case], pace: float) -> Iterator[Running]:
    print(f"{model}: starting …", flush=True)
    workload = prepare(model)
    wanted = dict.fromkeys(case.server for case in cases)
    found: dict[str, Server] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        names = [name for name in wanted if name not in (*RAW, "echo")]
        for name in dict.fromkeys([*names, "ours"] if "echo" in wanted else names):
            try:
                found[name] = stack.enter_context(servers.start(name, workload))
            except NotStarted as error:
                missing[name] = str(error)
                print(f"  without {name}: {error}")
        if "echo" in wanted:
            found |= _floors(found["ours"], stack)
        yield Running(workload=workload, pace=pace, servers=found, missing=missing)


def _floors(server: Server, stack: ExitStack) -> dict[str, Server]:
    """An echo for each of our ways, with a request and an answer of the same sizes."""
    found = {}
    for name, way in server.ways.items():
        with tree.awake(server.pid, ()):
            answer = ask(way)
        echo = stack.enter_context(native.echo(FLOORS[name], request_bytes=len(way.request), answer=answer))
        floor = Way(target=echo.target, request=way.request)
        found[f"echo {name}"] = Server(name="echo", pid=echo.pid, first_answer_s=0.0, ways={name: floor})
    return found


def _short(line: Line) -> str:
    if not line.figures:
        return line.note
    figures = line.figures
    return f"p50 {figures['p50_us']:9,.1f}  p99 {figures['p99_us']:9,.1f} µs  {figures['per_s']:9,.0f}/s"
