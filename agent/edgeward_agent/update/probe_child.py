"""The probe: load a candidate as the serving process would, run its golden set, say what was seen.

Run as `python -m edgeward_agent.update.probe_child RELEASE_DIR` in a process of its own, because what it opens is not
trusted yet and may take the process down. It prints one JSON object and exits with 0 whatever the verdict is.

Latency is processor time, not time on the wall: the probe runs at idle priority, where a busy bedside application
would make every model look slow. The median is held against the budget and the p99 only reported, since a probe has
too few runs for a p99 to mean the same on every machine; the p99 on the wall is watched in probation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from edgeward_agent.errors import AgentError
from edgeward_agent.ports import ProbeReason, ProbeVerdict
from edgeward_agent.update.confinement import Limits, confine, forget_peak, peak_memory_bytes

if TYPE_CHECKING:
    from edgeward_agent.serving.session import Session
    from edgeward_agent.update.golden import Case, Golden
    from edgeward_agent.wire.tensors import Array
    from edgeward_contract.manifest import Manifest

T = TypeVar("T")

MIN_RUNS: Final = 200
ENOUGH_NS: Final = 1_000_000_000
_LEAST_RUNS: Final = 20


class Refused(Exception):
    """Ends the examination with a verdict."""

    def __init__(self, reason: ProbeReason, detail: str) -> None:
        super().__init__(detail)
        self.verdict = ProbeVerdict(reason=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class Timing:
    """Processor time of one inference, in µs."""

    p50_us: int
    p99_us: int

    @classmethod
    def of(cls, samples_ns: list[int]) -> Timing:
        ordered = sorted(samples_ns)
        return cls(_us(ordered[len(ordered) // 2]), _us(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]))


def judge(release_dir: Path, *, max_model_bytes: int) -> ProbeVerdict:
    """Examine a release folder in this process, which a bad model may end. Never raises for a bad model."""
    try:
        return _examine(release_dir, max_model_bytes)
    except Refused as refusal:
        detail = refusal.verdict.detail.replace(f"{release_dir}/", "")
        return replace(refusal.verdict, detail=detail)
    except MemoryError:
        return ProbeVerdict(reason=ProbeReason.TOO_LARGE, detail="expected to fit the probe's memory, it did not")


def _examine(release_dir: Path, max_model_bytes: int) -> ProbeVerdict:
    # Imported here, inside the box: numpy and the runtime take their memory and threads under its limits.
    from edgeward_agent.serving.release import check_digest, check_interface, read_manifest
    from edgeward_agent.serving.session import Session
    from edgeward_agent.update.golden import Golden
    from edgeward_agent.update.policy import check_model

    model = release_dir / "model.onnx"
    manifest = _or(ProbeReason.MANIFEST_MISMATCH, lambda: read_manifest(release_dir / "manifest.json")[0])
    _or(ProbeReason.MANIFEST_MISMATCH, lambda: check_digest(model, manifest))
    _or(ProbeReason.POLICY, lambda: check_model(model, max_bytes=max_model_bytes))
    _or(ProbeReason.MANIFEST_MISMATCH, lambda: _check_golden(release_dir / "golden.npz", manifest))
    before = forget_peak()
    session = _or(ProbeReason.LOAD_FAILED, lambda: Session(model, manifest.serving))
    _or(ProbeReason.MANIFEST_MISMATCH, lambda: check_interface(model, session.interface, manifest))
    golden = _or(ProbeReason.MANIFEST_MISMATCH, lambda: Golden(release_dir / "golden.npz", manifest))
    _or(ProbeReason.TOO_LARGE, session.warm)
    timing = _run(session, golden, manifest)
    verdict = ProbeVerdict(
        reason=ProbeReason.OK,
        detail=f"{manifest.golden.cases} golden cases as they must be",
        cases=manifest.golden.cases,
        p50_us=timing.p50_us,
        p99_us=timing.p99_us,
        peak_memory_bytes=max(0, peak_memory_bytes() - before),
    )
    check_joined(session, golden, manifest)
    return _within_budget(verdict, manifest)


def _check_golden(path: Path, manifest: Manifest) -> None:
    from edgeward_agent.update.releases import check_file

    check_file(path, manifest.golden.file)


def _run(session: Session, golden: Golden, manifest: Manifest) -> Timing:
    """Every case once for its answer, then more rounds for the clock, within a bounded time."""
    outputs = [spec.name for spec in manifest.outputs]
    samples = check_cases(session, golden, manifest)
    end = time.thread_time_ns() + ENOUGH_NS
    while len(samples) < MIN_RUNS:
        for case in golden.cases():
            samples.append(_timed(session, outputs, case)[0])
            if len(samples) >= _LEAST_RUNS and time.thread_time_ns() > end:
                return Timing.of(samples)
    return Timing.of(samples)


def check_cases(session: Session, golden: Golden, manifest: Manifest) -> list[int]:
    """Run each case once and hold it to the set; the processor time of each, in ns.

    Raises:
        Refused: names the first case that differs.
    """
    outputs = [spec.name for spec in manifest.outputs]
    return [_checked(session, outputs, case, manifest) for case in golden.cases()]


def _checked(session: Session, outputs: list[str], case: Case, manifest: Manifest) -> int:
    from edgeward_agent.update.golden import difference

    took_ns, results = _timed(session, outputs, case)
    for name, got in zip(outputs, results, strict=True):
        if wrong := difference(name, got, case.wanted[name], manifest.golden.tolerances[name]):
            raise Refused(ProbeReason.GOLDEN_MISMATCH, f"golden case {case.number} of {manifest.golden.cases}: {wrong}")
    return took_ns


def check_joined(session: Session, golden: Golden, manifest: Manifest) -> None:
    """Hold cases that run as one to the set, where the manifest has requests joined: rows may depend on each other.

    Raises:
        Refused: names the first case that comes out otherwise among others than alone, or the graph does not say that
            every row becomes one.
    """
    if manifest.serving.batching is None:
        return
    if not session.joinable:
        detail = (
            "serving.batching: expected one name for the first axis of every tensor of the graph, got others or none"
        )
        raise Refused(ProbeReason.MANIFEST_MISMATCH, detail)
    cases = list(golden.cases())
    count = manifest.serving.batching.max_rows
    for first in range(0, len(cases), count):
        group = cases[first : first + count]
        _check_group(session, group if len(group) > 1 else [*group, *group], manifest)


def _check_group(session: Session, group: list[Case], manifest: Manifest) -> None:
    from edgeward_agent.serving.batching import join, split
    from edgeward_agent.update.golden import difference

    outputs = [spec.name for spec in manifest.outputs]
    results = _or(ProbeReason.GOLDEN_MISMATCH, lambda: session.run(outputs, join([case.feeds for case in group])))
    parts = split(results, len(group), len(next(iter(group[0].feeds.values()))))
    if parts is None:
        detail = f"{len(group)} golden cases joined: expected rows for each, got shapes {[a.shape for a in results]}"
        raise Refused(ProbeReason.GOLDEN_MISMATCH, detail)
    for case, part in zip(group, parts, strict=True):
        for name, got in zip(outputs, part, strict=True):
            if wrong := difference(name, got, case.wanted[name], manifest.golden.tolerances[name]):
                detail = f"golden case {case.number} joined with {len(group) - 1} others: {wrong}"
                raise Refused(ProbeReason.GOLDEN_MISMATCH, detail)


def _timed(session: Session, outputs: list[str], case: Case) -> tuple[int, list[Array]]:
    # Of this thread, which is the only one that runs the model: under a limit of processor time Linux counts that of
    # the process in ticks of milliseconds.
    before = time.thread_time_ns()
    results = _or(ProbeReason.GOLDEN_MISMATCH, lambda: session.run(outputs, case.feeds))
    return time.thread_time_ns() - before, results


def _within_budget(verdict: ProbeVerdict, manifest: Manifest) -> ProbeVerdict:
    budget = manifest.budget
    if verdict.p50_us > budget.latency_us:
        detail = f"expected a median of at most {budget.latency_us} µs of processor time, got {verdict.p50_us} µs"
        return replace(verdict, reason=ProbeReason.TOO_SLOW, detail=detail)
    if verdict.peak_memory_bytes > budget.memory_bytes:
        detail = f"expected at most {budget.memory_bytes} bytes of memory, got {verdict.peak_memory_bytes}"
        return replace(verdict, reason=ProbeReason.TOO_LARGE, detail=detail)
    return verdict


def _or(reason: ProbeReason, step: Callable[[], T]) -> T:
    """The result of `step`; what it raises on purpose becomes a verdict of `reason`."""
    try:
        return step()
    except (AgentError, OSError) as error:
        # The runtime reports the memory limit as any other failure of a load.
        large = reason is ProbeReason.LOAD_FAILED and "alloc" in str(error)
        raise Refused(ProbeReason.TOO_LARGE if large else reason, str(error)) from None


def _us(nanoseconds: int) -> int:
    return -(-nanoseconds // 1000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="edgeward_agent.update.probe_child")
    parser.add_argument("release_dir", type=Path)
    parser.add_argument("--max-model-bytes", type=int, required=True)
    Limits.add_options(parser)
    args = parser.parse_args()
    confine(Limits.read(args), parent=args.parent)
    verdict = judge(args.release_dir, max_model_bytes=args.max_model_bytes)
    sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
