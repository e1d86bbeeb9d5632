"""The data port: Open Inference Protocol v2 over HTTP. Routes a request and answers it; `inference` does the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from edgeward_agent.serving.answer import build_infer
from edgeward_agent.serving.asked import InferRequest, Terms
from edgeward_agent.serving.codec import Codec
from edgeward_agent.serving.exchange import Request
from edgeward_agent.serving.inference import Inference, Runner
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.metrics import CONTENT_TYPE, Look, exposition
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.plans import Plan
from edgeward_agent.serving.protocol import parse_infer
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.routes import Route, What, parse_target
from edgeward_agent.serving.standing import Standing
from edgeward_agent.wire.tensors import Array, Buffer
from edgeward_contract.manifest import CaptureMode
from edgeward_contract.schema import JsonValue

_REMEMBERED: Final = 256
_DURABLE: Final = CaptureMode.DURABLE
# On Python 3.11 a member of an enum costs a call to look up; this one is looked up for every request.
_INFER: Final = What.INFER
_NOTHING: Final = (b"",)
_READS: Final = (b"GET", b"HEAD")


class DataApi:
    """Answers what clients ask. Everything runs on the loop's thread but the model itself."""

    def __init__(
        self, registry: Registry, runner: Runner, *, management: Management, codec: Codec, terms: Terms
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._codec = codec
        self._terms = terms
        self._ways = _Ways(codec, terms)
        self._routes: dict[bytes, Route] = {}
        self._refusals: Counter[int] = Counter()
        self._started_s = time.time()
        self._get: dict[What, Callable[[Route], JsonValue]] = {
            What.SERVER: management.server,
            What.LIVE: management.live,
            What.READY: management.ready,
            What.MODEL: management.model,
            What.MODEL_READY: management.model_ready,
            What.CONFIG: management.config,
            What.STATISTICS: management.statistics,
            What.REGIONS: management.regions,
            What.CUDA_REGIONS: management.cuda_regions,
            What.TRACE: management.trace,
            What.LOGGING: management.logging,
        }
        self._post: dict[What, Callable[[Route, bytes], JsonValue]] = {
            What.INDEX: management.index,
            What.LOAD: management.load,
            What.REGISTER: management.register,
            What.UNREGISTER: management.unregister,
            What.CUDA_REGISTER: management.cuda_register,
            What.CUDA_UNREGISTER: management.cuda_unregister,
            What.TRACE: management.change_trace,
            What.LOGGING: management.change_logging,
        }

    def __call__(self, request: Request) -> None:
        """Raises Refusal for what cannot be answered."""
        encoding = request.head.encoding
        try:
            if encoding is not None:
                self._codec.unpacked(request, encoding, self._handle)
            else:
                self._handle(request)
        except Refusal as refusal:
            self._refusals[int(refusal.status)] += 1
            raise

    def _handle(self, request: Request) -> None:
        head = request.head
        route = self._routes.get(head.target) or self._route(head.target)
        if route.what is _INFER:
            if head.method != b"POST":
                raise _wrong_method(request, "POST")
            self._infer(route, request)
        else:
            self._manage(route, request)

    def _infer(self, route: Route, request: Request) -> None:
        version = self._registry.find(route.name, route.version)
        header_length = request.head.header_length
        plan = version.plans.find(request.lies, header_length) if header_length else None
        if plan is not None:
            self._infer_again(plan, version, request)
            return
        body = request.body
        try:
            asked = parse_infer(version.interface, body, header_length, self._terms)
            mode = self._runner.capture.mode(version.capture.mode, asked.capture)
        except Refusal:
            version.traffic.invalid += 1
            raise
        if mode is not _DURABLE:
            plan = version.plans.learn(body, header_length, asked)
            if plan is not None and Standing.possible(self._runner, version, asked):
                plan.standing = Standing(self._runner, version, plan.asked, plan.body_bytes)
        inference = _HttpInference(self._runner, version, request, asked, self._ways, size_bytes=len(request.lies))
        self._runner.submit(inference)

    def _infer_again(self, plan: Plan, version: Version, request: Request) -> None:
        standing, lies = plan.standing, request.lies
        request.lies = b""  # the plan has it
        plan.busy = True
        if (
            standing is not None
            and self._runner.scheduler.runs_now(standing.learned)
            and (results := standing.run(plan.on(lies))) is not None
        ):
            try:
                _answer_again(plan, version, request, results, self._ways)
                standing.answered(results, request.received_ns)  # an answer may have let the next request in
            finally:
                plan.busy = False
            return
        plan.take(lies)
        inference = _HttpInferenceAgain(self._runner, version, request, plan, self._ways)
        try:
            self._runner.submit(inference)
        except Refusal:
            plan.busy = False
            raise

    def _manage(self, route: Route, request: Request) -> None:
        if route.what is What.METRICS:
            self._tell_metrics(request)
            return
        get, post = self._get.get(route.what), self._post.get(route.what)
        if request.method in _READS and get is not None:
            document = get(route)
        elif request.method == b"POST" and post is not None:
            document = post(route, bytes(request.body))
        else:
            raise _wrong_method(request, "GET, HEAD" if get else "POST")
        request.answer(_NOTHING if document is None else (msgspec.json.encode(document),))

    def _tell_metrics(self, request: Request) -> None:
        if request.method not in _READS:
            raise _wrong_method(request, "GET, HEAD")
        models = self._registry.models.values()
        look = Look(
            versions=[(each, each is model.live) for model in models for each in model.loaded.values()],
            refusals=self._refusals,
            waiting=self._runner.scheduler.waiting,
            not_kept=self._runner.capture.dropped,
            cpu_s=time.process_time(),
            started_s=self._started_s,
        )
        request.answer((exposition(look),), content_type=CONTENT_TYPE)

    def _route(self, target: bytes) -> Route:
        route = parse_target(target)
        if len(self._routes) < _REMEMBERED:
            self._routes[target] = route
        return route


class _Ways(NamedTuple):
    """How answers are built and sent."""

    codec: Codec
    terms: Terms


class _HttpInference(Inference):
    """An inference whose answer is an HTTP response."""

    __slots__ = ("_request", "_ways")

    def __init__(
        self,
        runner: Runner,
        version: Version,
        request: Request,
        asked: InferRequest,
        ways: _Ways,
        *,
        size_bytes: int,
    ) -> None:
        """`size_bytes` is that of the body: how long a run takes is learnt by it."""
        if asked.aside is not None:
            size_bytes += asked.aside.size_bytes
        super().__init__(runner, version, asked, size_bytes=size_bytes, received_ns=request.received_ns)
        self._request = request
        self._ways = ways

    @property
    def abandoned(self) -> bool:
        return self._request.gone

    def answer(self, results: list[Array]) -> None:
        _send(self._request, *_build(self.version, self.asked, results, self._ways), self._ways)

    def refuse(self, status: HTTPStatus, message: str) -> None:
        self._request.refuse(status, message)


class _HttpInferenceAgain(_HttpInference):
    """One whose request came before, with other numbers. It has the memory of its plan until it is done."""

    __slots__ = ("_plan",)

    def __init__(self, runner: Runner, version: Version, request: Request, plan: Plan, ways: _Ways) -> None:
        super().__init__(runner, version, request, plan.asked, ways, size_bytes=plan.body_bytes)
        self._plan = plan

    def compute(self) -> list[Array]:
        return self._plan.rerun.run(self.version.session)

    def answer(self, results: list[Array]) -> None:
        _answer_again(self._plan, self.version, self._request, results, self._ways)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self._plan.busy = False

    def drop(self, outcome: Outcome) -> None:
        try:
            super().drop(outcome)
        finally:
            self._plan.busy = False


def _answer_again(plan: Plan, version: Version, request: Request, results: list[Array], ways: _Ways) -> None:
    if request.head.accepts is None and plan.answer is not None and plan.knows(results):
        request.answer_known(plan.answer)
        return
    header_length, parts = _build(version, plan.asked, results, ways)
    plan.learn_answer(results, header_length, parts)
    _send(request, header_length, parts, ways)


def _build(version: Version, asked: InferRequest, results: list[Array], ways: _Ways) -> tuple[int | None, list[Buffer]]:
    return build_infer(version.interface, version.head, asked, results, ways.terms)


def _send(request: Request, header_length: int | None, parts: list[Buffer], ways: _Ways) -> None:
    if request.head.accepts is None:
        request.answer(parts, header_length=header_length)
    else:
        ways.codec.answer(request, request.head.accepts, parts, header_length)


def _wrong_method(request: Request, allowed: str) -> Refusal:
    found = request.method.decode("latin-1")
    refusal = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {allowed} for this path, got {found}")
    refusal.fields = b"Allow: %b\r\n" % allowed.encode()  # RFC 9110 15.5.6
    return refusal
