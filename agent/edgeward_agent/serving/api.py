"""The data port: Open Inference Protocol v2 over HTTP. Routes a request and answers it; `inference` does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import unquote

from edgeward_agent.serving.answer import build_infer
from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.exchange import Request
from edgeward_agent.serving.inference import Inference, Runner
from edgeward_agent.serving.interface import model_metadata, server_metadata
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.plans import Plan
from edgeward_agent.serving.protocol import parse_infer
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.tensors import Array
from edgeward_contract.manifest import CaptureMode
from edgeward_contract.version import __version__

_REMEMBERED: Final = 256
_DURABLE: Final = CaptureMode.DURABLE


class _What(Enum):
    SERVER = auto()
    LIVE = auto()
    READY = auto()
    MODEL = auto()
    MODEL_READY = auto()
    INFER = auto()


# On Python 3.11 a member of an enum costs a call to look up; this one is looked up for every request.
_INFER: Final = _What.INFER


class _Route(NamedTuple):
    what: _What
    model: str = ""
    version: str | None = None


class DataApi:
    """Answers what clients ask. Everything runs on the loop's thread but the model itself."""

    def __init__(self, registry: Registry, runner: Runner) -> None:
        self._registry = registry
        self._runner = runner
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
        body, header_length = request.body, request.head.header_length
        plan = version.plans.find(body, header_length) if header_length else None
        if plan is not None:
            self._infer_again(plan, version, request)
            return
        asked = parse_infer(version.interface, body, header_length)
        if self._runner.capture.mode(version.capture.mode, asked.capture) is not _DURABLE:
            version.plans.learn(body, header_length, asked)
        self._runner.submit(_HttpInference(self._runner, version, request, asked))

    def _infer_again(self, plan: Plan, version: Version, request: Request) -> None:
        plan.take(request.body)
        plan.busy = True
        try:
            self._runner.submit(_HttpInferenceAgain(self._runner, version, request, plan))
        except Refusal:
            plan.busy = False
            raise

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


class _HttpInference(Inference):
    """An inference whose answer is an HTTP response."""

    __slots__ = ("_request",)

    def __init__(self, runner: Runner, version: Version, request: Request, asked: InferRequest) -> None:
        super().__init__(runner, version, asked, size_bytes=len(request.body), received_ns=request.received_ns)
        self._request = request

    @property
    def abandoned(self) -> bool:
        return self._request.gone

    def answer(self, results: list[Array]) -> None:
        version = self.version
        header_length, parts = build_infer(version.interface, version.head, self.asked, results)
        self._request.answer(parts, header_length=header_length)

    def refuse(self, status: HTTPStatus, message: str) -> None:
        self._request.refuse(status, message)


class _HttpInferenceAgain(_HttpInference):
    """One whose request came before, with other numbers. It has the memory of its plan until it is done."""

    __slots__ = ("_plan",)

    def __init__(self, runner: Runner, version: Version, request: Request, plan: Plan) -> None:
        super().__init__(runner, version, request, plan.asked)
        self._plan = plan

    def compute(self) -> list[Array]:
        return self._plan.run(self.version.session)

    def answer(self, results: list[Array]) -> None:
        plan, version = self._plan, self.version
        if plan.answer is not None and plan.knows(results):
            self._request.answer_known(plan.answer)
            return
        header_length, parts = build_infer(version.interface, version.head, plan.asked, results)
        plan.learn_answer(results, header_length, parts)
        self._request.answer(parts, header_length=header_length)

    def recorded_inputs(self) -> Mapping[str, Array]:
        return {name: each.copy() for name, each in self.asked.feeds.items()}

    def finish(self) -> None:
        super().finish()
        self._plan.busy = False

    def drop(self, outcome: Outcome) -> None:
        super().drop(outcome)
        self._plan.busy = False


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
