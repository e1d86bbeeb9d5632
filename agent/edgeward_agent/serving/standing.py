"""The short way: a request that came before, of which all is known but its numbers, to a model that is quick.

Where nobody waits it runs at once, in one go and with nothing made for it. Whatever is not so simple, and a run that
fails, takes the way of `inference`; what is counted and recorded is the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from edgeward_agent.series import MAX_LATENCY_US, ROW_HEAD, Series
from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.inference import Runner, record_of
from edgeward_agent.serving.line import NEVER_NS
from edgeward_agent.serving.records import series_of
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.rerun import Rerun
from edgeward_agent.serving.statistics import Batch
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode

_log: Final = logging.getLogger(__name__)
_now_ns: Final = time.perf_counter_ns


class Standing:
    """One form of request to one version. Touched on the loop's thread alone, one request at a time.

    It is for requests that bring no deadline of their own: those that do are weighed against what waits.
    """

    __slots__ = (
        "_asked",
        "_batch",
        "_began_ns",
        "_budget_ns",
        "_ended_ns",
        "_ran",
        "_recorded",
        "_recorded_results",
        "_rows",
        "_runner",
        "_series",
        "_statistics",
        "_version",
        "_views",
        "learned",
    )

    def __init__(self, runner: Runner, version: Version, asked: InferRequest, size_bytes: int) -> None:
        self._runner = runner
        self._version = version
        self._asked = asked
        self.learned = version.pace.learner(size_bytes)
        self._statistics = version.statistics
        self._rows = version.interface.rows(asked.feeds)
        self._batch: Batch | None = None
        self._budget_ns = version.budget_ns if asked.timeout_us is None else NEVER_NS
        self._recorded = runner.capture.mode(version.capture.mode, asked.capture) is CaptureMode.ASYNC
        self._ran: Rerun | None = None
        self._recorded_results: list[Array] | None = None
        self._series: Series | None = None
        self._views: list[memoryview] = []
        self._began_ns = self._ended_ns = 0

    @staticmethod
    def possible(runner: Runner, version: Version, asked: InferRequest) -> bool:
        """Whether such requests may be answered before anything else has happened."""
        durable = runner.capture.mode(version.capture.mode, asked.capture) is CaptureMode.DURABLE
        return not (durable or asked.timeout_us or asked.aside)

    def run(self, rerun: Rerun) -> list[Array] | None:
        """The results, valid until its next run; `answered` has to follow. None: take the long way.

        To be asked only where the scheduler says that what is `learned` of it runs now.
        """
        self._ran = rerun
        self._began_ns = _now_ns()
        results = rerun.again(self._version.session)
        self._ended_ns = _now_ns()
        return results

    def answered(self, results: list[Array], received_ns: int) -> None:
        """Count and record it: its answer is on its way, where this costs nobody anything."""
        try:
            version, statistics = self._version, self._statistics
            began_ns, ended_ns, now_ns = self._began_ns, self._ended_ns, _now_ns()
            latency_ns, run_ns = now_ns - received_ns, ended_ns - began_ns
            version.traffic.answered(latency_ns)
            if latency_ns > self._budget_ns:
                version.traffic.late += 1
            statistics.last_ns = now_ns
            batch = self._batch or self._counted()
            statistics.ran(batch, self._rows, began_ns - received_ns, run_ns, now_ns - ended_ns)
            self.learned.add(run_ns, ended_ns)
            if self._recorded:
                self._record(results, received_ns)
        except Exception:  # a bug here must not be a second answer
            _log.exception("an answer of %s could not be counted", self._version.name)

    @property
    def _feeds(self) -> Mapping[str, Array]:
        """The inputs of the last run, where they lay."""
        assert self._ran is not None
        return self._ran.feeds

    def _counted(self) -> Batch:
        """Only once it has run: a form that was never asked is no size that was executed."""
        batch = self._batch = self._statistics.batch(self._rows)
        return batch

    def _record(self, results: list[Array], received_ns: int) -> None:
        if results is not self._recorded_results:
            self._look_at(results)
        capture, series = self._runner.capture, self._series
        if series is None:
            asked = msgspec.structs.replace(self._asked, feeds=self._feeds)
            capture.offer(record_of(self._version, asked, results, received_ns))
            return
        latency_us = (_now_ns() - received_ns) // 1000
        if latency_us > MAX_LATENCY_US:
            latency_us = MAX_LATENCY_US
        head = ROW_HEAD.pack(time.time_ns() // 1000, latency_us)
        capture.offer_row(series, b"".join((head, *self._views)))

    def _look_at(self, results: list[Array]) -> None:
        """They come again with other numbers, where these are: the model is bound to them."""
        version, policy = self._version, self._version.capture
        inputs = self._feeds if policy.inputs else {}
        outputs = dict(zip(self._asked.outputs, results, strict=True)) if policy.outputs else {}
        self._series = series_of(version.name, version.version, version.sha256, inputs, outputs)
        if self._series is not None:
            self._views = [each.reshape(-1).view(np.uint8).data for each in (*inputs.values(), *outputs.values())]
        self._recorded_results = results
