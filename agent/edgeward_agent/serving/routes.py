"""Paths of the data port. Pure: names out of a path are only ever looked up, never joined to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple
from urllib.parse import unquote

from edgeward_agent.serving.refusal import invalid, not_found

_MAX_SHOWN: Final = 200
_SCHEME: Final = b"http://"


class What(Enum):
    """What a path asks for."""

    SERVER = auto()
    LIVE = auto()
    READY = auto()
    MODEL = auto()
    MODEL_READY = auto()
    CONFIG = auto()
    STATISTICS = auto()
    INFER = auto()
    INDEX = auto()
    LOAD = auto()
    REGIONS = auto()
    REGISTER = auto()
    UNREGISTER = auto()
    CUDA_REGIONS = auto()
    CUDA_REGISTER = auto()
    CUDA_UNREGISTER = auto()
    TRACE = auto()
    LOGGING = auto()
    METRICS = auto()


class Route(NamedTuple):
    """`name` is a model's or a region's; empty is all of them."""

    what: What
    name: str = ""
    version: str | None = None


_FIXED: Final[Mapping[tuple[str, ...], What]] = {
    ("v2",): What.SERVER,
    ("v2", "health", "live"): What.LIVE,
    ("v2", "health", "ready"): What.READY,
    ("v2", "models", "stats"): What.STATISTICS,
    ("v2", "repository", "index"): What.INDEX,
    ("v2", "trace", "setting"): What.TRACE,
    ("v2", "logging"): What.LOGGING,
    ("metrics",): What.METRICS,
}
_OF_MODEL: Final[Mapping[tuple[str, ...], What]] = {
    (): What.MODEL,
    ("ready",): What.MODEL_READY,
    ("config",): What.CONFIG,
    ("stats",): What.STATISTICS,
    ("infer",): What.INFER,
    ("trace", "setting"): What.TRACE,
}
_OF_MEMORY: Final[Mapping[tuple[str, str], What]] = {
    ("systemsharedmemory", "status"): What.REGIONS,
    ("systemsharedmemory", "register"): What.REGISTER,
    ("systemsharedmemory", "unregister"): What.UNREGISTER,
    ("cudasharedmemory", "status"): What.CUDA_REGIONS,
    ("cudasharedmemory", "register"): What.CUDA_REGISTER,
    ("cudasharedmemory", "unregister"): What.CUDA_UNREGISTER,
}


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """A target that begins with its server, as programs write it that talk to a proxy, as it is without.

    RFC 9112 3.2.2 has every server take it, and believe it more than the Host header. That header is what was checked,
    so here they have to be equal, as they are wherever both come from one address.

    Raises:
        Refusal: 400, it names another server.
    """
    if b"://" not in target:
        return target
    scheme, rest = target[: len(_SCHEME)].lower(), target[len(_SCHEME) :]
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    if scheme != _SCHEME or host is None or authority.lower() != host.lower():
        found = target[:_MAX_SHOWN].decode("latin-1")
        raise invalid(f"expected a path, or an address with the server that the Host header names, got '{found}'")
    path = rest[len(authority) :]
    return path if path.startswith(b"/") else b"/" + path


def parse_target(target: bytes) -> Route:
    """The route of a request's target; what follows a question mark is for nobody here.

    Raises:
        Refusal: 404, no path of the protocol.
    """
    path = target.partition(b"?")[0].decode("latin-1").strip("/")
    parts = tuple(unquote(part) for part in path.split("/"))
    what = _FIXED.get(parts)
    route = Route(what) if what is not None else _nested(parts)
    if route is None:
        raise not_found(f"expected a path of the Open Inference Protocol v2, got '/{path[:_MAX_SHOWN]}'")
    return route


def _nested(parts: tuple[str, ...]) -> Route | None:
    if len(parts) >= 3 and parts[:2] == ("v2", "models"):
        return _model(parts[2], parts[3:])
    if len(parts) == 5 and parts[:3] == ("v2", "repository", "models") and parts[4] in ("load", "unload"):
        return Route(What.LOAD, parts[3])
    if len(parts) in (3, 5) and parts[0] == "v2":
        return _memory(parts[1], parts[2:])
    return None


def _model(name: str, rest: tuple[str, ...]) -> Route | None:
    version = None
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    what = _OF_MODEL.get(rest)
    return Route(what, name, version) if what is not None else None


def _memory(kind: str, rest: tuple[str, ...]) -> Route | None:
    what = _OF_MEMORY.get((kind, rest[-1]))
    if what is None or (len(rest) == 3 and rest[0] != "region"):
        return None
    return Route(what, rest[1] if len(rest) == 3 else "")
