"""What a version has done and where the time went, as Triton's statistics extension wants it told.

Times are in ns, cumulative since the version was loaded: a client takes the difference of two looks.
"""

from __future__ import annotations

from typing import Final

from edgeward_agent.serving.traffic import POWERS
from edgeward_contract.schema import JsonValue

_MAX_SIZES: Final = 64
_OTHER_SIZES: Final = 0


class _Batch:
    """Executions of one batch size."""

    __slots__ = ("count", "infer_ns", "input_ns", "output_ns")

    def __init__(self) -> None:
        self.count = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0


class Statistics:
    """Touched on the loop's thread alone; well under a microsecond for each request."""

    __slots__ = (
        "_batches",
        "executions",
        "fail_ns",
        "failures",
        "infer_counts",
        "infer_ns",
        "inferences",
        "input_ns",
        "last_ns",
        "output_ns",
        "queue_counts",
        "queue_ns",
        "requests",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.inferences = 0
        self.executions = 0
        self.queue_ns = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0
        self.failures = 0
        self.fail_ns = 0
        self.last_ns = 0
        self.queue_counts = [0] * POWERS  # by the bit length of the time in µs
        self.infer_counts = [0] * POWERS
        self._batches: dict[int, _Batch] = {}

    def answered(
        self, rows: int, ran_rows: int | None, input_ns: int, queue_ns: int, infer_ns: int, output_ns: int
    ) -> None:
        """A request was answered. `infer_ns` is what the whole execution took, also when it was shared with others.

        Args:
            ran_rows: of the execution, where this request is the one that tells of it; else None.
        """
        self.requests += 1
        self.inferences += rows
        self.input_ns += input_ns
        self.queue_ns += queue_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns
        self.queue_counts[(queue_ns // 1000).bit_length()] += 1
        self.infer_counts[(infer_ns // 1000).bit_length()] += 1
        if ran_rows is not None:
            batch = self._batches.get(ran_rows) or self._new(ran_rows)
            self.executions += 1
            batch.count += 1
            batch.input_ns += input_ns
            batch.infer_ns += infer_ns
            batch.output_ns += output_ns

    def failed(self, ns: int) -> None:
        """A request that was good got an error, `ns` after it came."""
        self.failures += 1
        self.fail_ns += ns

    def document(self, name: str, version: int, last_ms: int) -> dict[str, JsonValue]:
        """One entry of `model_stats`. `last_ms` is when the last request was answered, since 1970; 0 is never."""
        total_ns = self.input_ns + self.queue_ns + self.infer_ns + self.output_ns
        return {
            "name": name,
            "version": str(version),
            "last_inference": last_ms,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": _duration(self.requests, total_ns),
                "fail": _duration(self.failures, self.fail_ns),
                "queue": _duration(self.requests, self.queue_ns),
                "compute_input": _duration(self.requests, self.input_ns),
                "compute_infer": _duration(self.requests, self.infer_ns),
                "compute_output": _duration(self.requests, self.output_ns),
                "cache_hit": _duration(0, 0),
                "cache_miss": _duration(0, 0),
            },
            "batch_stats": [_batch(rows, batch) for rows, batch in sorted(self._batches.items()) if rows],
            "memory_usage": [],
            "response_stats": {},
        }

    def _new(self, rows: int) -> _Batch:
        """Sizes beyond the first few share one entry that is not told: a client must not make this grow."""
        size = rows if len(self._batches) < _MAX_SIZES else _OTHER_SIZES
        return self._batches.setdefault(size, _Batch())


def _duration(count: int, ns: int) -> JsonValue:
    return {"count": count, "ns": ns}


def _batch(rows: int, batch: _Batch) -> JsonValue:
    return {
        "batch_size": rows,
        "compute_input": _duration(batch.count, batch.input_ns),
        "compute_infer": _duration(batch.count, batch.infer_ns),
        "compute_output": _duration(batch.count, batch.output_ns),
    }
