"""The private control socket: what the control process asks of this one. Mode 0600, and never the data port."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec

from edgeward_agent.errors import ModelError
from edgeward_agent.serving.capture import CaptureStream
from edgeward_agent.serving.exchange import Request
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.registry import Model, Registry
from edgeward_agent.serving.release import Version
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.schema import JsonValue

_log: Final = logging.getLogger(__name__)

STATE_PATH: Final = "/control/v1/state"
MODELS_PATH: Final = "/control/v1/models/"


class LoadOrder(msgspec.Struct):
    """Load the release in the folder `path`."""

    sha256: str
    version: int
    path: str


class ActivateOrder(msgspec.Struct):
    sha256: str


class UnloadOrder(msgspec.Struct, omit_defaults=True):
    """Without a digest: the whole model."""

    sha256: str | None = None


class ControlApi:
    """Commands become calls of the registry, one task each: a load takes as long as it takes."""

    def __init__(self, registry: Registry, capture: CaptureStream) -> None:
        self._registry = registry
        self._capture = capture
        self._started_us = time.time_ns() // 1000
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands: dict[str, Callable[[ModelName, bytes], Awaitable[None]]] = {
            "load": self._load,
            "activate": self._activate,
            "unload": self._unload,
            "shrink": self._shrink,
        }

    def __call__(self, request: Request) -> None:
        """Raises Refusal for what is no command."""
        if request.head.encoding is not None:
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected a command without Content-Encoding, got one")
        target = request.target.decode("latin-1")
        if target == STATE_PATH and request.method == b"GET":
            request.answer((msgspec.json.encode(self._state()),))
            return
        name, _, command = target.removeprefix(MODELS_PATH).partition("/")
        if not target.startswith(MODELS_PATH) or command not in self._commands or request.method != b"POST":
            raise Refusal(HTTPStatus.NOT_FOUND, f"expected a command, got {request.method!r} {target[:200]}")
        task = asyncio.get_running_loop().create_task(self._run(request, command, ModelName(unquote(name))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, request: Request, command: str, name: ModelName) -> None:
        try:
            await self._commands[command](name, bytes(request.body))
        except ModelError as error:
            request.refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except msgspec.MsgspecError as error:
            request.refuse(HTTPStatus.BAD_REQUEST, f"{command}: {error}")
        except Exception as error:
            _log.exception("%s of %s failed", command, name)
            request.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{command} of {name} failed: {error}")
        else:
            request.answer((b"{}",))

    async def _load(self, name: ModelName, body: bytes) -> None:
        order = msgspec.json.decode(body, type=LoadOrder)
        await self._registry.load(name, sha256=Sha256(order.sha256), version=order.version, path=Path(order.path))

    async def _activate(self, name: ModelName, body: bytes) -> None:
        self._registry.activate(name, Sha256(msgspec.json.decode(body, type=ActivateOrder).sha256))

    async def _unload(self, name: ModelName, body: bytes) -> None:
        order = msgspec.json.decode(body or b"{}", type=UnloadOrder)
        self._registry.unload(name, Sha256(order.sha256) if order.sha256 is not None else None)

    async def _shrink(self, name: ModelName, body: bytes) -> None:
        await self._registry.shrink(name)

    def _state(self) -> dict[str, JsonValue]:
        capture = self._capture
        return {
            "pid": os.getpid(),
            "started_us": self._started_us,
            "draining": self._registry.draining,
            "models": [_model(name, model) for name, model in self._registry.models.items()],
            "capture": {"connected": capture.connected, "queued": capture.queued, "dropped": capture.dropped},
        }


def _model(name: str, model: Model) -> JsonValue:
    traffic = model.live.traffic.snapshot().document() if model.live else {}
    return {
        "name": name,
        "live": _version(model.live) if model.live else None,
        "loaded": [_version(each) for each in model.loaded.values()],
        "traffic": traffic,
    }


def _version(version: Version) -> JsonValue:
    report = version.session.providers
    return {
        "version": version.version,
        "sha256": version.sha256,
        "providers": list(report.active),
        "fallback": report.fallback,
        "graph_note": version.graph_note,
    }
