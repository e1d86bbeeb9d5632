"""Every way that an application may ask a model, behind the calls that they share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, Self

import numpy as np

from edgeward_agent.client import Answer, AsyncClient, Client, ModelInfo
from edgeward_agent.engine import Engine
from edgeward_agent.wire.tensors import Array
from support.serving import Device, Release


class Asks(Protocol):
    """What the client, the asynchronous client and the engine have in common."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        deadline_us: int = 0,
        priority: int = 0,
    ) -> Answer: ...

    def model(self, model: str, *, version: int | None = None) -> ModelInfo: ...

    def ready(self) -> bool: ...


class Waiting:
    """The asynchronous client, for a test that waits for each answer."""

    def __init__(self, address: str, timeout_s: float = 20, http: str | None = None) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(address, timeout_s=timeout_s, http=http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        deadline_us: int = 0,
        priority: int = 0,
    ) -> Answer:
        return self._runner.run(
            self._client.infer(
                model,
                inputs,
                version=version,
                outputs=outputs,
                request_id=request_id,
                deadline_us=deadline_us,
                priority=priority,
            )
        )

    def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        return self._runner.run(self._client.model(model, version=version))

    def ready(self) -> bool:
        return self._runner.run(self._client.ready())


class Again:
    """Asks each question twice: a client with shared memory learns from the first answer where the second one goes."""

    def __init__(self, client: Client | Waiting) -> None:
        self._client = client

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        deadline_us: int = 0,
        priority: int = 0,
    ) -> Answer:
        first, second = (
            self._client.infer(
                model,
                inputs,
                version=version,
                outputs=outputs,
                request_id=request_id,
                deadline_us=deadline_us,
                priority=priority,
            )
            for _ in "12"
        )
        assert list(first.outputs) == list(second.outputs)
        for name, array in first.outputs.items():
            assert (array.dtype, array.shape) == (second[name].dtype, second[name].shape)
            assert array.tolist() == second[name].tolist() or np.array_equal(array, second[name], equal_nan=True)
        return second

    def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        return self._client.model(model, version=version)

    def ready(self) -> bool:
        return self._client.ready()


def _tcp(made: Device) -> str:
    return f"http://127.0.0.1:{made.port}"


def _unix(made: Device) -> str:
    return f"unix:{made.unix_path}"


def _frames(made: Device) -> str:
    return f"frames:{made.frames_path}"


WAYS: Mapping[str, Callable[[Device, Sequence[Release]], AbstractContextManager[Asks]]] = {
    "tcp": lambda made, _: Client(_tcp(made)),
    "unix": lambda made, _: Client(_unix(made)),
    "async tcp": lambda made, _: Waiting(_tcp(made)),
    "async unix": lambda made, _: Waiting(_unix(made)),
    "frames": lambda made, _: Again(Client(_frames(made), http=_unix(made))),
    "async frames": lambda made, _: Again(Waiting(_frames(made), http=_tcp(made))),
    "engine": lambda _, releases: Engine(*(each.folder for each in releases)),
}


def opened(stack: ExitStack, made: Device, releases: Sequence[Release]) -> dict[str, Asks]:
    return {name: stack.enter_context(way(made, releases)) for name, way in WAYS.items()}
