"""The `Serving` port over the private control socket of the serving process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import httptools
import msgspec

from edgeward_agent.errors import ServingRefused, ServingUnavailable
from edgeward_agent.ports import LoadedVersion, ServedModel, ServingState
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.schema import ContractError, Fields, JsonValue, parse_json
from edgeward_contract.traffic import Traffic

_HEAD: Final = "{method} {target} HTTP/1.1\r\nHost: serving\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
_READ_BYTES: Final = 1 << 16
T = TypeVar("T")


class ServingControl:
    """Commands to the serving process, one connection each: it may have been restarted since the last.

    Every method raises ServingUnavailable (worth a retry) and ServingRefused (not), nothing else.
    """

    def __init__(self, path: Path, *, timeout_s: float = 5.0, load_timeout_s: float = 120.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._load_timeout_s = load_timeout_s

    async def state(self) -> ServingState:
        return _understood(_state, await self._exchange("GET", "/control/v1/state", b"", self._timeout_s))

    async def load(self, model: ModelName, *, sha256: Sha256, version: int, path: Path) -> None:
        await self._command(model, "load", _load_order(sha256, version, path), self._load_timeout_s)

    async def activate(self, model: ModelName, sha256: Sha256) -> None:
        await self._command(model, "activate", {"sha256": sha256}, self._timeout_s)

    async def unload(self, model: ModelName, sha256: Sha256 | None) -> None:
        await self._command(model, "unload", {"sha256": sha256} if sha256 else {}, self._timeout_s)

    async def shrink(self, model: ModelName) -> None:
        """Give back the memory that large requests to a model have left behind. Takes two inferences."""
        await self._command(model, "shrink", {}, self._load_timeout_s)

    async def _command(self, model: ModelName, command: str, order: dict[str, JsonValue], timeout_s: float) -> None:
        target = f"/control/v1/models/{quote(model, safe='')}/{command}"
        await self._exchange("POST", target, msgspec.json.encode(order), timeout_s)

    async def _exchange(self, method: str, target: str, body: bytes, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask(_HEAD.format(method=method, target=target, size=len(body)).encode() + body)
        except TimeoutError:
            raise ServingUnavailable(f"serving process: expected an answer within {timeout_s:g} s, got none") from None
        except (OSError, httptools.HttpParserError) as error:
            raise ServingUnavailable(f"serving process: expected an answer at {self._path}, got: {error}") from None
        return answer.checked()

    async def _ask(self, request: bytes) -> _Answer:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            writer.write(request)
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            answer.parser = parser
            while not answer.complete:
                data = await reader.read(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the connection ended before the answer")
                parser.feed_data(data)
            return answer
        finally:
            writer.close()


class _Answer:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.parser: httptools.HttpResponseParser
        self.complete = False
        self._status = 0
        self._body = b""

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self._status = self.parser.get_status_code()
        self.complete = True

    def checked(self) -> bytes:
        if self._status == HTTPStatus.OK:
            return self._body
        message = _understood(lambda answer: answer.text("error", max_length=10_000), self._body)
        if self._status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServingUnavailable(message)
        raise ServingRefused(message)


def _load_order(sha256: Sha256, version: int, path: Path) -> dict[str, JsonValue]:
    return {"sha256": sha256, "version": version, "path": str(path.absolute())}  # the other process may be elsewhere


def _understood(read: Callable[[Fields], T], body: bytes) -> T:
    try:
        return read(parse_json(body))
    except ContractError as error:
        raise ServingUnavailable(f"serving process: expected an answer of this version, got: {error}") from None


def _state(answer: Fields) -> ServingState:
    return ServingState(
        pid=answer.integer("pid"),
        started_us=answer.integer("started_us"),
        models={ModelName(each.text("name")): _model(each) for each in answer.objects("models")},
        capture_dropped=answer.object("capture").integer("dropped"),
        draining=answer.integer("draining", default=0, minimum=0),
    )


def _model(fields: Fields) -> ServedModel:
    return ServedModel(
        live=_version(fields.object("live")) if fields.has("live") else None,
        loaded=tuple(_version(each) for each in fields.objects("loaded")),
        traffic=Traffic.read(fields.object("traffic")) if fields.has("live") else Traffic(),
    )


def _version(fields: Fields) -> LoadedVersion:
    return LoadedVersion(
        version=fields.integer("version"),
        sha256=Sha256(fields.text("sha256")),
        providers=fields.texts("providers"),
        fallback=fields.text("fallback", default="", max_length=10_000),
        graph_note=fields.text("graph_note", default=""),
    )
