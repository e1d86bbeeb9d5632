"""The short way: who may take it, and that it counts and records as the long one does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.inference import Inference, Runner
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.pace import INLINE_BELOW_NS
from edgeward_agent.serving.records import InferenceRecord
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.rerun import Rerun
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.serving.session import RunFailed
from edgeward_agent.serving.standing import Standing
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode, CapturePolicy
from support.serving import Kept, sum_model

OFF, ASYNC, DURABLE = CaptureMode.OFF, CaptureMode.ASYNC, CaptureMode.DURABLE
LIMIT_BYTES = 1 << 16


@pytest.fixture(name="version")
def _version(tmp_path: Path) -> Version:
    return load_file(sum_model(tmp_path / "sums.onnx"))


def _asked(*, timeout_us: int | None = None, capture: CaptureMode = OFF) -> InferRequest:
    one = np.ones((1, 4), np.int32)
    return InferRequest("", {"a": one, "b": one.copy()}, {"sum": True}, capture, timeout_us)


class _Told(Inference):
    """One that goes the long way."""

    @property
    def abandoned(self) -> bool:
        return False

    def answer(self, results: list[Array]) -> None:
        self.told = results

    def refuse(self, status: HTTPStatus, message: str) -> None:
        raise AssertionError(message)


class _Fails(_Told):
    def compute(self) -> list[Array]:
        raise RunFailed("the model failed: on purpose")


def test_an_inference_that_failed_is_gone_when_it_is_told(version: Version) -> None:
    """Its error would keep it by its traceback, and it the tensors, until the collector comes by."""

    def work(runner: Runner) -> None:
        failed = _Fails(runner, version, _asked(), size_bytes=32, received_ns=0)
        failed.run()
        assert isinstance(failed.outcome, RunFailed) and failed.outcome.__traceback__ is None

    _play(work)


class _Joined(_Told):
    """One of several that ran as one, which failed."""

    left = False
    ran = False

    @property
    def abandoned(self) -> bool:
        return self.left

    def compute(self) -> list[Array]:
        self.ran = True
        return super().compute()

    def refuse(self, status: HTTPStatus, message: str) -> None:
        self.told = [np.array([status, "deadline" in message])]


def test_after_a_joint_run_that_failed_nobody_runs_for_whom_it_is_too_late(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeward_agent.serving.inference.join", lambda _: {})  # no inputs: the runtime refuses

    def work(runner: Runner) -> None:
        now_ns = time.perf_counter_ns()
        asked = (None, 1, None)  # 1 µs is over by now
        jobs = [_Joined(runner, version, _asked(timeout_us=each), size_bytes=32, received_ns=now_ns) for each in asked]
        jobs[2].left = True
        for _ in jobs:
            version.begin()
        jobs[0].run_with(jobs)
        for each in jobs:
            each.finish()
        assert [each.ran for each in jobs] == [True, False, False]
        assert jobs[1].told[0].tolist() == [503, True]
        counts = version.traffic.outcomes()
        assert (counts[Outcome.ANSWERED], counts[Outcome.EXPIRED], counts[Outcome.ABANDONED]) == (1, 1, 1)
        assert counts[Outcome.FAILED] == 0

    _play(work)


def test_who_leaves_while_his_record_is_committed_is_not_counted_as_answered(version: Version) -> None:
    class Slow(Kept):
        def commit(self, record: InferenceRecord, done: Callable[[str | None], None]) -> None:
            self.done = done

    capture = Slow()

    def work(runner: Runner) -> None:
        version.capture = CapturePolicy(mode=DURABLE)
        job = _Joined(runner, version, _asked(), size_bytes=32, received_ns=time.perf_counter_ns())
        version.begin()
        job.run()
        job.finish()
        job.left = True
        capture.done(None)
        counts = version.traffic.outcomes()
        assert (counts[Outcome.ANSWERED], counts[Outcome.LATE], counts[Outcome.ABANDONED]) == (0, 0, 1)

    _play(work, capture)


def _play(work: Callable[[Runner], None], capture: NoCapture | None = None) -> None:
    async def main() -> None:
        scheduler = Scheduler(asyncio.get_running_loop())
        work(Runner(scheduler, capture or NoCapture()))

    asyncio.run(main())


def _standing(runner: Runner, version: Version, asked: InferRequest) -> tuple[Standing, Rerun]:
    rerun = Rerun(asked.feeds, list(asked.outputs), LIMIT_BYTES)
    return Standing(runner, version, asked, 32), rerun


def _known(version: Version, run_ns: int = 1_000) -> None:
    version.pace.learn(32, run_ns, 1)


def test_a_model_that_is_bound_and_quick_answers_at_once(version: Version) -> None:
    def work(runner: Runner) -> None:
        _known(version)
        asked = _asked()
        standing, rerun = _standing(runner, version, asked)
        assert standing.run(rerun) is None  # it ran never: nothing is bound
        rerun.run(version.session)
        for number in range(3):
            asked.feeds["a"][...] = number
            results = standing.run(rerun)
            assert results is not None
            assert results[0].tolist() == [[number + 1] * 4]

    _play(work)


def test_a_model_that_is_not_known_to_be_quick_takes_the_long_way(version: Version) -> None:
    def work(runner: Runner) -> None:
        standing, rerun = _standing(runner, version, _asked())
        rerun.run(version.session)
        assert not runner.scheduler.runs_now(standing.learned)
        _known(version, 2 * INLINE_BELOW_NS)
        assert not runner.scheduler.runs_now(standing.learned)

    _play(work)


def test_a_model_that_takes_long_for_some_takes_the_long_way(version: Version) -> None:
    """What it takes lies in the data: nobody else is to wait for one of a hundred on the loop."""

    def work(runner: Runner) -> None:
        standing, rerun = _standing(runner, version, _asked())
        rerun.run(version.session)
        _known(version)
        for _ in range(2):
            standing.learned.add(2_000_000_000, 1)
            for _ in range(40):
                standing.learned.add(10_000, 1)
            assert runner.scheduler.runs_now(standing.learned)  # it may have been the machine
        standing.learned.add(2_000_000_000, 1)
        for _ in range(40):
            standing.learned.add(10_000, 1)
        assert standing.learned.usual_ns < INLINE_BELOW_NS
        assert not runner.scheduler.runs_now(standing.learned)

    _play(work)


def test_nobody_goes_before_those_who_wait(version: Version) -> None:
    def work(runner: Runner) -> None:
        standing, rerun = _standing(runner, version, _asked())
        rerun.run(version.session)
        runner.submit(_Told(runner, version, _asked(), size_bytes=32, received_ns=0))  # no thread has begun to work
        _known(version)
        assert runner.scheduler.waiting == 1
        assert not runner.scheduler.runs_now(standing.learned)

    _play(work)


def test_a_version_that_was_released_answers_nobody(version: Version) -> None:
    def work(runner: Runner) -> None:
        _known(version)
        standing, rerun = _standing(runner, version, _asked())
        rerun.run(version.session)
        assert standing.run(rerun) is not None
        version.session.close()
        assert standing.run(rerun) is None

    _play(work)


@pytest.mark.parametrize(
    ("policy", "asked", "possible"),
    [
        (OFF, _asked(), True),
        (ASYNC, _asked(), True),
        (OFF, _asked(timeout_us=0), True),
        (OFF, _asked(timeout_us=5_000), False),
        (DURABLE, _asked(), False),
        (OFF, _asked(capture=DURABLE), False),
    ],
)
def test_what_waits_for_something_takes_the_long_way(
    version: Version, policy: CaptureMode, asked: InferRequest, possible: bool
) -> None:
    class Highest(NoCapture):
        def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
            return max(policy, asked, key=list(CaptureMode).index)

    def work(runner: Runner) -> None:
        assert Standing.possible(runner, version, asked) is possible

    version.capture = CapturePolicy(mode=policy)
    _play(work, Highest())


def test_both_ways_count_and_record_the_same(tmp_path: Path) -> None:
    def counted(*, short: bool) -> object:
        version = load_file(sum_model(tmp_path / "sums.onnx"))
        version.capture = CapturePolicy(mode=ASYNC, inputs=True, outputs=True)
        version.budget_ns = 1  # all are late
        capture = Kept()
        _play(partial(_ask, version, short=short), capture)
        document = version.statistics.document("sums", 1, 0)
        assert all(each.pop("latency_us") > 0 for each in capture.bodies)
        assert version.statistics.infer_ns > 0
        assert version.in_flight == 0
        assert len(capture.bodies) == 5
        return (
            version.traffic.outcomes(),
            [document["inference_count"], document["execution_count"]],
            version.statistics.requests,
            capture.bodies,
        )

    assert counted(short=True) == counted(short=False)


def _ask(version: Version, runner: Runner, *, short: bool) -> None:
    _known(version)
    asked = _asked()
    standing, rerun = _standing(runner, version, asked)
    rerun.run(version.session)
    for number in range(5):
        asked.feeds["a"][...] = number
        if short:
            results = standing.run(rerun)
            assert results is not None
            standing.answered(results, 1)
        else:
            runner.submit(_Told(runner, version, asked, size_bytes=32, received_ns=1))


def test_a_record_that_cannot_be_kept_is_no_second_answer(version: Version, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Kept):
        def offer_row(self, series: object, row: bytes) -> None:
            raise RuntimeError("no")

    version.capture = CapturePolicy(mode=ASYNC, outputs=True)
    _play(partial(_ask, version, short=True), Broken())
    assert version.traffic.requests == 5
    assert "could not be counted" in caplog.text
