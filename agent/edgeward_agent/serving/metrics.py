"""What `GET /metrics` tells: the counters of every version as Prometheus reads them. Pure.

Times are in seconds, as its naming rules want; the bounds of buckets are powers of two of a microsecond, because the
usual ones of metrics libraries begin where everything that matters here has ended. docs/metrics.md explains each line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from edgeward_agent.serving.release import Version

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_FIRST_BOUND: Final = 3  # 8 µs
_LAST_BOUND: Final = 24  # 16.8 s
_BOUNDS: Final = range(_FIRST_BOUND, _LAST_BOUND + 1)


class Metric(NamedTuple):
    """A name of the page, and what Prometheus shows of it."""

    kind: str
    help: str


METRICS: Final[Mapping[str, Metric]] = {
    "edgeward_requests_total": Metric("counter", "Requests to a model by how they ended."),
    "edgeward_inferences_total": Metric("counter", "Inferences that were answered: a request may bring several rows."),
    "edgeward_executions_total": Metric("counter", "Runs of the model: one may serve several requests."),
    "edgeward_request_seconds": Metric("histogram", "From the last byte of a request to its answer."),
    "edgeward_queue_seconds": Metric("histogram", "From a request that was read to the begin of its run."),
    "edgeward_compute_seconds": Metric("histogram", "The run that served a request."),
    "edgeward_model_live": Metric("gauge", "1 for the version that answers requests which name none."),
    "edgeward_waiting_requests": Metric("gauge", "Requests that wait for a thread."),
    "edgeward_refusals_total": Metric("counter", "Requests over HTTP that were turned away at once, by status."),
    "edgeward_results_not_kept_total": Metric("counter", "Results that were answered and not recorded."),
    "process_cpu_seconds_total": Metric("counter", "Processor time of the serving process."),
    "process_start_time_seconds": Metric("gauge", "When the serving process started, since 1970."),
}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of at one moment."""

    versions: Sequence[tuple[Version, bool]]  # and whether it is live
    refusals: Mapping[int, int]
    waiting: int
    not_kept: int
    cpu_s: float
    started_s: float


def exposition(look: Look) -> bytes:
    """The page, in the text format 0.0.4."""
    samples: dict[str, list[str]] = {name: [] for name in METRICS}
    for version, live in look.versions:
        _of_version(samples, version, live=live)
    for status, count in sorted(look.refusals.items()):
        samples["edgeward_refusals_total"].append(f'{{code="{status}"}} {count}')
    samples["edgeward_waiting_requests"].append(f" {look.waiting}")
    samples["edgeward_results_not_kept_total"].append(f" {look.not_kept}")
    samples["process_cpu_seconds_total"].append(f" {look.cpu_s:.6f}")
    samples["process_start_time_seconds"].append(f" {look.started_s:.3f}")
    return "".join(_family(name, lines) for name, lines in samples.items()).encode()


def _family(name: str, lines: Sequence[str]) -> str:
    metric = METRICS[name]
    head = f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
    return head + "".join(f"{name}{line}\n" for line in lines)


def _of_version(samples: Mapping[str, list[str]], version: Version, *, live: bool) -> None:
    labels = f'model="{_escaped(version.name)}",version="{version.version}"'
    traffic, statistics = version.traffic, version.statistics
    for outcome, count in traffic.outcomes().items():
        samples["edgeward_requests_total"].append(f'{{{labels},outcome="{outcome.value}"}} {count}')
    samples["edgeward_inferences_total"].append(f"{{{labels}}} {statistics.inferences}")
    samples["edgeward_executions_total"].append(f"{{{labels}}} {statistics.executions}")
    samples["edgeward_request_seconds"] += _histogram(labels, traffic.below_powers(), traffic.latency_ns)
    samples["edgeward_queue_seconds"] += _histogram(labels, statistics.queue_counts, statistics.queue_ns)
    samples["edgeward_compute_seconds"] += _histogram(labels, statistics.infer_counts, statistics.infer_ns)
    samples["edgeward_model_live"].append(f"{{{labels}}} {int(live)}")


def _histogram(labels: str, counts: Sequence[int], sum_ns: int) -> Iterator[str]:
    """Args: counts: how many took less than 2^n µs and not less than half of it, for each n."""
    below = 0
    for power, count in enumerate(counts):
        below += count
        if power in _BOUNDS:
            yield f'_bucket{{{labels},le="{(1 << power) / 1e6:.9g}"}} {below}'
    yield f'_bucket{{{labels},le="+Inf"}} {below}'
    yield f"_sum{{{labels}}} {sum_ns / 1e9:.9f}"
    yield f"_count{{{labels}}} {below}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
