"""One inference on its way, whoever asked and by whichever front end: scheduled, run, counted, answered, recorded.

A front end (HTTP, frames, gRPC) derives from `Inference` and says how its caller hears the end of it. Everything here
runs on the loop's thread but the model itself.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from edgeward_agent.errors import ServingError
from edgeward_agent.serving.aside import Aside
from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.batching import company_of, join, split
from edgeward_agent.serving.capture import Capture
from edgeward_agent.serving.line import NEVER_NS, Job
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.records import InferenceRecord
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.scheduler import Scheduler, Turned
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode

_log: Final = logging.getLogger(__name__)
_HIGHEST: Final = 1  # priority
# On Python 3.11 a member of an enum costs a call to look up; these are looked up for every request.
_ASYNC: Final = CaptureMode.ASYNC
_DURABLE: Final = CaptureMode.DURABLE


class Runner:
    """Where inferences go: the scheduler that runs them and the capture that records them."""

    def __init__(self, scheduler: Scheduler, capture: Capture) -> None:
        self.scheduler = scheduler
        self.capture = capture

    def submit(self, inference: Inference) -> None:
        """Run it now or soon; its caller hears of the end.

        Raises:
            Turned: 503, it will not run.
        """
        version = inference.version
        version.begin()
        try:
            self.scheduler.submit(inference)
        except Turned as turned:
            version.end()
            version.traffic.not_answered(turned.outcome)
            inference.count_failure()
            raise


class Inference(ABC):
    """See `line.Job` for what the scheduler asks of it. `received_ns` is when the request was complete."""

    __slots__ = (
        "_runner",
        "asked",
        "began_ns",
        "company",
        "deadline_ns",
        "ended_ns",
        "outcome",
        "pace",
        "ran_bytes",
        "ran_rows",
        "read_ns",
        "received_ns",
        "run_ns",
        "size_bytes",
        "strict",
        "urgent",
        "version",
    )

    def __init__(
        self, runner: Runner, version: Version, asked: InferRequest, *, size_bytes: int, received_ns: int
    ) -> None:
        self._runner = runner
        self.version = version
        self.asked = asked
        self.pace = version.pace
        self.size_bytes = self.ran_bytes = size_bytes
        self.received_ns = received_ns
        self.outcome: list[Array] | Exception = []
        self.run_ns = 0
        self.ran_rows = 0  # of those that ran as one, where this one led them
        self.read_ns = time.perf_counter_ns()
        self.began_ns = self.ended_ns = 0
        self.urgent = asked.priority == _HIGHEST
        batching = version.options.batching if asked.aside is None else None
        self.company = company_of(batching, version, tuple(asked.outputs), asked.feeds) if batching else None
        timeout_us = asked.timeout_us
        self.strict = bool(timeout_us)
        budget_ns = version.budget_ns if timeout_us is None else timeout_us * 1000 or NEVER_NS
        self.deadline_ns = received_ns + budget_ns

    # -- what a front end says

    @property
    @abstractmethod
    def abandoned(self) -> bool:
        """Nobody waits for the answer any more."""

    @abstractmethod
    def answer(self, results: list[Array]) -> None:
        """Send the results, in the order of `asked.outputs`."""

    @abstractmethod
    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Send an error."""

    def compute(self) -> list[Array]:
        """Run the model, on any thread. May raise what `Session.run` does."""
        asked = self.asked
        if asked.aside is not None:
            return self._run_aside(asked, asked.aside)
        return self.version.session.run(list(asked.outputs), asked.feeds)

    # -- called by the scheduler

    def run(self) -> None:
        self.began_ns = time.perf_counter_ns()
        try:
            self.outcome = self.compute()
        except Exception as error:
            self.outcome = error.with_traceback(None)  # which would keep this inference, and it the tensors
        self.ended_ns = time.perf_counter_ns()
        self.run_ns = self.ended_ns - self.began_ns

    def run_with(self, jobs: Sequence[Job]) -> None:
        together = [job for job in jobs if isinstance(job, Inference)]
        rows = self.company.rows if self.company is not None else 1
        begin = time.perf_counter_ns()
        try:
            results = self.version.session.run(list(self.asked.outputs), join([each.asked.feeds for each in together]))
            parts = split(results, len(together), rows)
        except Exception:  # whose fault it is shows when each runs by itself
            parts = None
        if parts is None:
            for each in together:
                each._run_if_wanted()
            return
        end = time.perf_counter_ns()
        for each, part in zip(together, parts, strict=True):
            each.outcome, each.began_ns, each.ended_ns = part, begin, end
        self.run_ns = end - begin
        self.ran_bytes = sum(each.size_bytes for each in together)
        self.ran_rows = sum(each.rows for each in together)

    def _run_if_wanted(self) -> None:
        """After others, for whom it waited longer than was foreseen when it was taken out of the line."""
        if self.abandoned:
            return
        if self.strict and self.deadline_ns < time.perf_counter_ns():
            self.outcome = Turned(Outcome.EXPIRED, "expected to run before the deadline, a joint run before it failed")
            return
        self.run()

    def finish(self) -> None:
        version = self.version
        version.end()
        if self.abandoned:
            version.traffic.not_answered(Outcome.ABANDONED)
        else:
            self._answered(self._conclude)
        # After the answer is on its way, where it costs nobody anything. A failure is quicker than a run, and of those
        # that ran as one the first tells how long they took.
        if self.run_ns and not isinstance(self.outcome, Exception):
            version.pace.learn(self.ran_bytes, self.run_ns, self.ended_ns)

    def drop(self, outcome: Outcome) -> None:
        self.version.end()
        self.version.traffic.not_answered(outcome)
        if outcome is Outcome.EXPIRED:
            self.count_failure()
            waiting = self._runner.scheduler.waiting
            text = f"expected to run before the deadline, or the end of the server: {waiting} others waited too"
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, text)

    @property
    def rows(self) -> int:
        """How many inferences this is."""
        return self.version.interface.rows(self.asked.feeds)

    def count_failure(self) -> None:
        """A request that was good will get an error."""
        self.version.statistics.failed(time.perf_counter_ns() - self.received_ns)

    # -- inside

    def _run_aside(self, asked: InferRequest, aside: Aside) -> list[Array]:
        aside.fetch(asked.feeds)
        results = self.version.session.run(list(asked.outputs), asked.feeds)
        aside.settle(self.version.interface, asked.outputs, results)
        return results

    def _answered(self, step: Callable[[], None]) -> None:
        """What cannot be answered is refused: a bug, or a result that there is no room for, must not cost the wait for
        an answer that never comes.
        """
        try:
            step()
        except Refusal as refusal:
            self._fail(refusal)
        except Exception as error:
            _log.exception("an inference of %s could not be answered", self.version.name)
            self._fail(error)

    def _conclude(self) -> None:
        results = self.outcome
        if isinstance(results, Exception):
            self._fail(results)
            return
        capture = self._runner.capture
        mode = capture.mode(self.version.capture.mode, self.asked.capture)
        if mode is _DURABLE:
            self._answer_when_recorded(results)
        else:
            self._answer(results)
            if mode is _ASYNC:
                capture.offer(self._record(results))

    def _answer(self, results: list[Array]) -> None:
        self.answer(results)
        rows = self.rows
        count_answered(
            self.version,
            rows,
            (self.ran_rows or rows) if self.run_ns else None,  # of those that ran as one the first tells
            received_ns=self.received_ns,
            read_ns=self.read_ns,
            began_ns=self.began_ns,
            ended_ns=self.ended_ns,
            deadline_ns=self.deadline_ns,
        )

    def _answer_when_recorded(self, results: list[Array]) -> None:
        def recorded(problem: str | None) -> None:
            if problem is None and self.abandoned:
                self.version.traffic.not_answered(Outcome.ABANDONED)
            elif problem is None:
                self._answered(lambda: self._answer(results))
            else:
                self.version.traffic.not_answered(Outcome.UNRECORDED)
                self.count_failure()
                self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"result not recorded: {problem}")

        self._runner.capture.commit(self._record(results), recorded)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, Refusal):
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                self.version.traffic.invalid += 1
            elif isinstance(error, Turned):
                self.version.traffic.not_answered(error.outcome)
                self.count_failure()
            else:  # it was good, and there is no room for its answer
                self.version.traffic.failed()
                self.count_failure()
            self.refuse(error.status, str(error))
            return
        self.version.traffic.failed()
        self.count_failure()
        message = str(error) if isinstance(error, ServingError) else f"the model failed: {type(error).__name__}"
        self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, message)

    def _record(self, results: list[Array]) -> InferenceRecord:
        return record_of(self.version, self.asked, results, self.received_ns)


def count_answered(
    version: Version,
    rows: int,
    ran_rows: int | None,
    *,
    received_ns: int,
    read_ns: int,
    began_ns: int,
    ended_ns: int,
    deadline_ns: int,
) -> None:
    """Count a request that was answered just now.

    Args:
        rows: how many inferences it was.
        ran_rows: of the run, where it is this request that tells of it; else None.
    """
    now_ns = time.perf_counter_ns()
    traffic, statistics = version.traffic, version.statistics
    traffic.answered(now_ns - received_ns)
    if now_ns > deadline_ns:
        traffic.late += 1
    input_ns, infer_ns, output_ns = read_ns - received_ns, ended_ns - began_ns, now_ns - ended_ns
    statistics.last_ns = now_ns
    statistics.answered(rows, ran_rows, input_ns, began_ns - read_ns, infer_ns, output_ns)


def record_of(version: Version, asked: InferRequest, results: list[Array], received_ns: int) -> InferenceRecord:
    """The record of an answer, as the capture policy wants it. Its tensors are lent."""
    policy = version.capture
    return InferenceRecord(
        wall_us=time.time_ns() // 1000,
        latency_us=(time.perf_counter_ns() - received_ns) // 1000,
        model=version.name,
        version=version.version,
        release_sha256=version.sha256,
        request_id=asked.id,
        inputs=asked.feeds if policy.inputs else {},
        outputs=dict(zip(asked.outputs, results, strict=True)) if policy.outputs else {},
    )
