"""What clients ask of the server itself: what is there, how it does, and which memory they share with it.

Models are loaded and unloaded by the control process alone, on its private socket: the data port is open to every
bedside application, and answers are patient data.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Final, NoReturn, TypeVar

import msgspec

from edgeward_agent.serving.documents import (
    Document,
    index_entry,
    model_config,
    model_metadata,
    region_entry,
    server_metadata,
)
from edgeward_agent.serving.json_data import lower
from edgeward_agent.serving.refusal import NotReady, Refusal, invalid, not_found, too_large, unsupported
from edgeward_agent.serving.registry import Model, Registry
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.routes import Route
from edgeward_agent.serving.shared_memory import NoRegions, Regions
from edgeward_contract.schema import JsonValue
from edgeward_contract.version import __version__

_READY: Final = "READY"
_UNAVAILABLE: Final = "UNAVAILABLE"
_MAX_BODY_BYTES: Final = 64 << 10


_T = TypeVar("_T")


class _Index(msgspec.Struct):
    ready: bool = False


class _Register(msgspec.Struct):
    key: str
    byte_size: int
    offset: int = 0


class Management:
    """Answers as plain values; None is an answer without a body. Methods raise Refusal for what cannot be answered."""

    def __init__(self, registry: Registry, regions: Regions | NoRegions, *, body_bytes: int) -> None:
        self._registry = registry
        self._regions = regions
        self._body_bytes = body_bytes
        self._server = server_metadata(__version__, shared_memory=isinstance(regions, Regions))

    # -- the server and its models

    def server(self, route: Route) -> Document:
        return self._server

    def live(self, route: Route) -> Document:
        return {"live": True}

    def ready(self, route: Route) -> Document:
        """Raises NotReady 503 while a model that should answer cannot."""
        if not self._registry.ready:
            raise NotReady(HTTPStatus.SERVICE_UNAVAILABLE, "expected every model to have a live version, one has none")
        return {"ready": True}

    def model(self, route: Route) -> Document:
        version = self._find(route)
        versions = sorted({each.version for each in self._registry.models[version.name].loaded.values()})
        return model_metadata(version.name, versions, version.interface)

    def model_ready(self, route: Route) -> Document:
        """Raises NotReady 404 for what is not in memory."""
        try:
            version = self._find(route)
        except Refusal as refusal:
            raise NotReady(refusal.status, str(refusal), name=route.name) from None
        return {"name": version.name, "ready": True}

    def config(self, route: Route) -> Document:
        version = self._find(route)
        return model_config(version.name, version.interface, version.options, body_bytes=self._body_bytes)

    def statistics(self, route: Route) -> Document:
        """Of one version, of all those of a model, or of everything in memory."""
        return {"model_stats": [_statistics(each) for each in self._chosen(route)]}

    def index(self, route: Route, body: bytes) -> JsonValue:
        """Every model that is there or should be; with `ready` those alone that answer."""
        return list[JsonValue](self.listed(ready=_read(body or b"{}", _Index).ready))

    def listed(self, *, ready: bool) -> list[Document]:
        """What `index` answers."""
        entries = [each for name, model in self._registry.models.items() for each in _entries(name, model)]
        return [each for each in entries if not ready or each["state"] == _READY]

    def load(self, route: Route, body: bytes) -> NoReturn:
        raise unsupported(
            "expected models to be loaded and unloaded by the agent alone, on its private socket:"
            " ask the fleet for a rollout, or start `edgeward-agent serve` with other files"
        )

    # -- shared memory

    def regions(self, route: Route) -> JsonValue:
        found = [
            region_entry(name, key=each.key, offset=each.offset, size_bytes=each.size_bytes)
            for name, each in self._regions
            if route.name in ("", name)
        ]
        if route.name and not found:
            raise not_found(f"Unable to find system shared memory region: '{route.name[:100]}'")
        return list[JsonValue](found)

    def register(self, route: Route, body: bytes) -> JsonValue:
        asked = _read(body, _Register)
        self.register_region(route.name, key=asked.key, offset=asked.offset, size_bytes=asked.byte_size)
        return None

    def register_region(self, name: str, *, key: str, offset: int, size_bytes: int) -> None:
        """What `register` does."""
        if not name:
            raise invalid("'region name' is necessary to register system shared memory region")
        self._regions.register(name, key=key, offset=offset, size_bytes=size_bytes)

    def unregister(self, route: Route, body: bytes) -> JsonValue:
        if route.name:
            self._regions.unregister(route.name)
        else:
            self._regions.clear()
        return None

    # Programs written for Triton begin by unregistering what a GPU may share; there is none here to forget.

    def cuda_regions(self, route: Route) -> JsonValue:
        if route.name:
            raise not_found(f"Unable to find cuda shared memory region: '{route.name[:100]}'")
        return []

    def cuda_register(self, route: Route, body: bytes) -> NoReturn:
        raise unsupported("expected system shared memory, GPUs not supported")

    def cuda_unregister(self, route: Route, body: bytes) -> JsonValue:
        return None

    # -- what Triton has and a device has not

    def trace(self, route: Route) -> NoReturn:
        raise unsupported("the server does not support tracing")

    def change_trace(self, route: Route, body: bytes) -> NoReturn:
        self.trace(route)

    def logging(self, route: Route) -> NoReturn:
        raise unsupported("the server does not support dynamic logging: see the [log] section of agent.toml")

    def change_logging(self, route: Route, body: bytes) -> NoReturn:
        self.logging(route)

    # -- inside

    def _find(self, route: Route) -> Version:
        return self._registry.find(route.name, route.version)

    def _chosen(self, route: Route) -> Iterable[Version]:
        models = self._registry.models
        if not route.name:
            return [each for model in models.values() for each in model.loaded.values()]
        found = self._find(route)
        return [found] if route.version is not None else models[found.name].loaded.values()


def _statistics(version: Version) -> Document:
    ago_ns = time.perf_counter_ns() - version.statistics.last_ns
    last_ms = (time.time_ns() - ago_ns) // 1_000_000 if version.statistics.last_ns else 0
    return version.statistics.document(version.name, version.version, last_ms)


def _entries(name: str, model: Model) -> Iterator[Document]:
    if not model.loaded:
        yield index_entry(name, "", _UNAVAILABLE, "no version of it could be loaded")
    for version in model.loaded.values():
        live = version is model.live
        yield index_entry(name, str(version.version), _READY, "" if live else "answers when it is asked for by version")


def _read(body: bytes, kind: type[_T]) -> _T:
    if len(body) > _MAX_BODY_BYTES:
        raise too_large(f"expected at most {_MAX_BODY_BYTES} bytes for this path, got {len(body)}")
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise invalid("expected JSON of a few levels, got one nested too deep") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid(f"the body of this request: {lower(error)}") from None
