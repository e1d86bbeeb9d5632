"""The data port: Open Inference Protocol v2 over HTTP. Routes a request, runs it, answers, records it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import unquote

from edgeward_agent.errors import ServingError
from edgeward_agent.serving.capture import Capture
from edgeward_agent.serving.exchange import Request
from edgeward_agent.serving.interface import model_metadata, server_metadata
from edgeward_agent.serving.line import NEVER_NS, Company, Job
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.protocol import InferRequest, Refusal, build_infer, parse_infer
from edgeward_agent.serving.records import InferenceRecord
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.scheduler import Scheduler, Turned
from edgeward_agent.serving.tensors import Array
from edgeward_contract.manifest import CaptureMode
from edgeward_contract.version import __version__

_log: Final = logging.getLogger(__name__)
_REMEMBERED: Final = 256
_HIGHEST: Final = 1  # priority


class _What(Enum):
    SERVER = auto()
    LIVE = auto()
    READY = auto()
    MODEL = auto()
    MODEL_READY = auto()
    INFER = auto()


# On Python 3.11 a member of an enum costs a call to look up; these are looked up for every request.
_INFER: Final = _What.INFER
_ASYNC: Final = CaptureMode.ASYNC
_DURABLE: Final = CaptureMode.DURABLE


class _Route(NamedTuple):
    what: _What
    model: str = ""
    version: str | None = None


class DataApi:
    """Answers what clients ask. Everything runs on the loop's thread but the model itself."""

    def __init__(self, registry: Registry, scheduler: Scheduler, capture: Capture) -> None:
        self._registry = registry
        self._scheduler = scheduler
        self._capture = capture
        self._routes: dict[bytes, _Route] = {}
        self._server_metadata = server_metadata(__version__)
        self._get: dict[_What, Callable[[_Route], bytes]] = {
            _What.SERVER: lambda route: self._server_metadata,
            _What.LIVE: lambda route: b"",
            _What.READY: self._ready,
            _What.MODEL: self._model,
            _What.MODEL_READY: self._model_ready,
        }

    def __call__(self, request: Request) -> None:
        """Raises Refusal for what cannot be answered."""
        route = self._routes.get(request.target) or self._route(request.target)
        if route.what is _INFER:
            _expect_method(request, b"POST")
            self._infer(route, request)
        else:
            _expect_method(request, b"GET")
            request.answer((self._get[route.what](route),))

    def _infer(self, route: _Route, request: Request) -> None:
        version = self._registry.find(route.model, route.version)
        asked = parse_infer(version.interface, request.body, request.header_length)
        job = _Job(self, version, request, asked)
        version.begin()
        try:
            self._scheduler.submit(job)
        except Turned as turned:
            version.end()
            version.traffic.not_run(turned.outcome)
            raise

    def finish(self, job: _Job) -> None:
        """Answer a job that has run."""
        version = job.version
        version.end()
        try:
            if not job.abandoned:
                self._conclude(job)
        except Exception as error:  # a bug here must cost one answer, not the wait for it
            _log.exception("an inference of %s could not be answered", version.name)
            _refuse(job, error)
        # After the answer is on its way, where it costs nobody anything. A failure is quicker than a run.
        if not isinstance(job.outcome, Exception):
            version.pace.learn(job.ran_bytes, job.run_ns, job.ended_ns)

    def drop(self, job: _Job, outcome: Outcome) -> None:
        """Answer a job that waited and was not run."""
        job.version.end()
        job.version.traffic.not_run(outcome)
        if outcome is Outcome.EXPIRED:
            text = f"expected to run before the deadline, it passed while {self._scheduler.waiting} others waited too"
            job.request.refuse(HTTPStatus.SERVICE_UNAVAILABLE, text)

    def _conclude(self, job: _Job) -> None:
        if isinstance(job.outcome, Exception):
            _refuse(job, job.outcome)
            return
        mode = self._capture.mode(job.version.capture.mode, job.asked.capture)
        if mode is _DURABLE:
            self._answer_when_recorded(job, job.outcome)
        else:
            _answer(job, job.outcome)
            if mode is _ASYNC:
                self._capture.offer(_record(job, job.outcome))

    def _answer_when_recorded(self, job: _Job, results: list[Array]) -> None:
        def recorded(problem: str | None) -> None:
            if problem is None:
                _answer(job, results)
            else:
                job.request.refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"result not recorded: {problem}")

        self._capture.commit(_record(job, results), recorded)

    def _ready(self, route: _Route) -> bytes:
        if not self._registry.ready:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "expected every model to have a live version, one has none")
        return b""

    def _model(self, route: _Route) -> bytes:
        version = self._registry.find(route.model, route.version)
        versions = sorted({each.version for each in self._registry.models[version.name].loaded.values()})
        return model_metadata(version.name, versions, version.interface)

    def _model_ready(self, route: _Route) -> bytes:
        self._registry.find(route.model, route.version)
        return b""

    def _route(self, target: bytes) -> _Route:
        route = _parse_target(target)
        if len(self._routes) < _REMEMBERED:
            self._routes[target] = route
        return route


class _Job:
    """One inference on its way through the scheduler."""

    __slots__ = (
        "_api",
        "asked",
        "company",
        "deadline_ns",
        "ended_ns",
        "outcome",
        "pace",
        "ran_bytes",
        "request",
        "run_ns",
        "size_bytes",
        "strict",
        "urgent",
        "version",
    )

    def __init__(self, api: DataApi, version: Version, request: Request, asked: InferRequest) -> None:
        self._api = api
        self.version = version
        self.request = request
        self.asked = asked
        self.pace = version.pace
        self.size_bytes = self.ran_bytes = len(request.body)
        self.outcome: list[Array] | Exception = []
        self.run_ns = 0
        self.ended_ns = 0
        self.urgent = asked.priority == _HIGHEST
        self.company: Company | None = None
        timeout_us = asked.timeout_us
        self.strict = bool(timeout_us)
        budget_ns = version.budget_ns if timeout_us is None else timeout_us * 1000 or NEVER_NS
        self.deadline_ns = request.received_ns + budget_ns

    @property
    def abandoned(self) -> bool:
        return self.request.gone

    def run(self) -> None:
        begin = time.perf_counter_ns()
        try:
            self.outcome = self.version.session.run(list(self.asked.outputs), self.asked.feeds)
        except Exception as error:
            self.outcome = error
        self.ended_ns = time.perf_counter_ns()
        self.run_ns = self.ended_ns - begin

    def run_with(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.run()

    def finish(self) -> None:
        self._api.finish(self)

    def drop(self, outcome: Outcome) -> None:
        self._api.drop(self, outcome)


def _answer(job: _Job, results: list[Array]) -> None:
    header_length, parts = build_infer(job.version.interface, job.version.head, job.asked, results)
    job.request.answer(parts, header_length=header_length)
    now_ns = time.perf_counter_ns()
    traffic = job.version.traffic
    traffic.answered(now_ns - job.request.received_ns)
    if now_ns > job.deadline_ns:
        traffic.late += 1


def _refuse(job: _Job, error: Exception) -> None:
    if isinstance(error, Refusal):
        job.request.refuse(error.status, str(error))
        return
    job.version.traffic.failed()
    message = str(error) if isinstance(error, ServingError) else f"the model failed: {type(error).__name__}"
    job.request.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, message)


def _record(job: _Job, results: list[Array]) -> InferenceRecord:
    version = job.version
    policy = version.capture
    outputs = dict(zip(job.asked.outputs, results, strict=True))
    return InferenceRecord(
        wall_us=time.time_ns() // 1000,
        latency_us=(time.perf_counter_ns() - job.request.received_ns) // 1000,
        model=version.name,
        version=version.version,
        release_sha256=version.sha256,
        request_id=job.asked.id,
        inputs=job.asked.feeds if policy.inputs else {},
        outputs=outputs if policy.outputs else {},
    )


def _expect_method(request: Request, method: bytes) -> None:
    if request.method != method:
        found = request.method.decode("latin-1")
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {method.decode()} for this path, got {found}")


_FIXED: Final = {
    ("v2",): _What.SERVER,
    ("v2", "health", "live"): _What.LIVE,
    ("v2", "health", "ready"): _What.READY,
}
_OF_MODEL: Final = {(): _What.MODEL, ("ready",): _What.MODEL_READY, ("infer",): _What.INFER}


def _parse_target(target: bytes) -> _Route:
    path = target.partition(b"?")[0].decode("latin-1").strip("/")
    parts = tuple(unquote(part) for part in path.split("/"))
    if parts in _FIXED:
        return _Route(_FIXED[parts])
    if len(parts) >= 3 and parts[:2] == ("v2", "models"):
        model, rest, version = parts[2], parts[3:], None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        if rest in _OF_MODEL:
            return _Route(_OF_MODEL[rest], model, version)
    raise Refusal(HTTPStatus.NOT_FOUND, f"expected a path of the Open Inference Protocol v2, got '/{path[:200]}'")
