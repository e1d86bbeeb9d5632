"""What a version has done and where the time went, as Triton's statistics extension wants it told.

Times are in ns, cumulative since the version was loaded: a client takes the difference of two looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeward_agent.serving.traffic import POWERS
from edgeward_contract.schema import JsonValue

_MAX_SIZES: Final = 64
_OTHER_SIZES: Final = 0


class Batch:
    """Executions of one size, and where the time of the requests that tell of them went."""

    __slots__ = ("count", "infer_ns", "input_ns", "output_ns", "rows")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.count = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0


class Statistics:
    """Touched on the loop's thread alone; well under a microsecond for each request.

    What is counted for each is as little as can be: the sums are made when somebody looks.
    """

    __slots__ = (
        "_batches",
        "_companions",
        "_more_rows",
        "_queue_counts",
        "fail_ns",
        "failures",
        "infer_counts",
        "last_ns",
        "queue_ns",
    )

    def __init__(self) -> None:
        self.failures = 0
        self.fail_ns = 0
        self.last_ns = 0
        self.queue_ns = 0
        self.infer_counts = [0] * POWERS  # by the bit length of the time in µs
        self._queue_counts = [0] * POWERS  # of those that came to a line
        self._batches: dict[int, Batch] = {}
        self._companions = Batch(0)  # requests of whose execution another one tells
        self._more_rows = 0  # beyond those that each execution had by its size

    def answered(
        self, rows: int, ran_rows: int | None, input_ns: int, queue_ns: int, infer_ns: int, output_ns: int
    ) -> None:
        """A request was answered. `infer_ns` is what the whole execution took, also when it was shared with others.

        Args:
            ran_rows: of the execution, where this request is the one that tells of it; else None.
        """
        batch = self._companions if ran_rows is None else self.batch(ran_rows)
        self.queue_ns += queue_ns
        self._queue_counts[(queue_ns // 1000).bit_length()] += 1
        self.ran(batch, rows, input_ns, infer_ns, output_ns)

    def ran(self, batch: Batch, rows: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """A request of `rows` was answered that did not wait; `batch` is where its execution is counted."""
        if rows != batch.rows:
            self._more_rows += rows - batch.rows
        batch.count += 1
        batch.input_ns += input_ns
        batch.infer_ns += infer_ns
        batch.output_ns += output_ns
        self.infer_counts[(infer_ns // 1000).bit_length()] += 1

    def batch(self, rows: int) -> Batch:
        """Where executions of this size are counted, for as long as the version lives. Sizes beyond the first few
        share one that is not told: a client must not make this grow.
        """
        found = self._batches.get(rows)
        if found is None:
            size = rows if len(self._batches) < _MAX_SIZES else _OTHER_SIZES
            found = self._batches.setdefault(size, Batch(size))
        return found

    @property
    def executions(self) -> int:
        return sum(each.count for each in self._batches.values())

    @property
    def requests(self) -> int:
        return self.executions + self._companions.count

    @property
    def inferences(self) -> int:
        return sum(each.count * each.rows for each in self._batches.values()) + self._more_rows

    @property
    def infer_ns(self) -> int:
        return sum(each.infer_ns for each in self._told())

    @property
    def queue_counts(self) -> list[int]:
        """By the bit length of the time in µs."""
        counts = list(self._queue_counts)
        counts[0] += self.requests - sum(counts)
        return counts

    def failed(self, ns: int) -> None:
        """A request that was good got an error, `ns` after it came."""
        self.failures += 1
        self.fail_ns += ns

    def document(self, name: str, version: int, last_ms: int) -> dict[str, JsonValue]:
        """One entry of `model_stats`. `last_ms` is when the last request was answered, since 1970; 0 is never."""
        input_ns = sum(each.input_ns for each in self._told())
        output_ns = sum(each.output_ns for each in self._told())
        requests, infer_ns = self.requests, self.infer_ns
        total_ns = self.queue_ns + input_ns + infer_ns + output_ns
        return {
            "name": name,
            "version": str(version),
            "last_inference": last_ms,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": _duration(requests, total_ns),
                "fail": _duration(self.failures, self.fail_ns),
                "queue": _duration(requests, self.queue_ns),
                "compute_input": _duration(requests, input_ns),
                "compute_infer": _duration(requests, infer_ns),
                "compute_output": _duration(requests, output_ns),
                "cache_hit": _duration(0, 0),
                "cache_miss": _duration(0, 0),
            },
            "batch_stats": [_batch(rows, batch) for rows, batch in sorted(self._batches.items()) if rows],
            "memory_usage": [],
            "response_stats": {},
        }

    def _told(self) -> Iterator[Batch]:
        yield self._companions
        yield from self._batches.values()


def _duration(count: int, ns: int) -> JsonValue:
    return {"count": count, "ns": ns}


def _batch(rows: int, batch: Batch) -> JsonValue:
    return {
        "batch_size": rows,
        "compute_input": _duration(batch.count, batch.input_ns),
        "compute_infer": _duration(batch.count, batch.infer_ns),
        "compute_output": _duration(batch.count, batch.output_ns),
    }
