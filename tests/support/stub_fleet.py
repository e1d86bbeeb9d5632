"""A fleet that misbehaves to order: the device and enrolment ports over real TLS, in front of the fleet in memory.

The real fleet has its own tests and passes the same conformance suite; this one can do what a real fleet must never do.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_agent.link.memory import MemoryFleet, MemoryLink, MemoryReleases
from edgeward_contract import topics
from edgeward_contract.artifact import Sha256
from edgeward_contract.chunks import Encoding, StoredChunk
from edgeward_contract.record import Batch
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import ContractError, JsonValue, canonical_json, parse_json
from support.pki import TestCa

DEVICE = "ward-3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class CutOff(Exception):
    """Close the connection instead of answering."""


Handler = Callable[[Request], Awaitable[Reply]]


def problem(status: int, detail: str, **headers: str) -> Reply:
    body = canonical_json({"title": "no", "status": status, "detail": detail, "hint": "ask the night shift"})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body=body, headers={"content-type": "application/problem+json", **named})


class StubFleet:
    """`override` answers in place of everything else while it is set."""

    def __init__(self, folder: Path, ca: TestCa | None = None) -> None:
        self.ca = ca or TestCa()
        self.fleet = MemoryFleet()
        self.releases = MemoryReleases(self.fleet)
        self.tokens = {"good-token"}
        self.override: Handler | None = None
        self.seen: list[str] = []
        self._folder = folder
        self._open: set[asyncio.StreamWriter] = set()
        self._link = MemoryLink(self.fleet)
        self._stack = AsyncExitStack()
        self.device_url = self.enrolment_url = ""

    async def __aenter__(self) -> StubFleet:
        self.device_url = await self._listen(self._device, mutual=True)
        self.enrolment_url = await self._listen(self.enrolment, mutual=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.aclose()
        await self.cut_connections()
        await self._stack.aclose()

    @property
    def connections(self) -> int:
        return len(self._open)

    async def cut_connections(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _listen(self, handler: Handler, *, mutual: bool) -> str:
        context = self.ca.server_context(self._folder, mutual=mutual)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._open.add(writer)
            try:
                await self._converse(reader, writer, handler)
            except (OSError, asyncio.IncompleteReadError, ssl.SSLError, CutOff):
                writer.transport.abort()
            finally:
                self._open.discard(writer)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        self._stack.callback(server.close)
        return f"https://localhost:{server.sockets[0].getsockname()[1]}"

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            request = await _request(head, reader)
            self.seen.append(f"{request.method} {request.path}")
            reply = await (self.override or handler)(request)
            headers = {"content-length": str(len(reply.body)), **reply.headers}
            lines = [f"HTTP/1.1 {reply.status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if reply.status == 204 else reply.body))
            await writer.drain()

    async def _device(self, request: Request) -> Reply:
        try:
            return await self._device_answer(request)
        except LinkLost as error:
            if error.retry_after_s is None:
                raise CutOff from None
            return problem(503, str(error), retry_after=str(int(error.retry_after_s)))
        except LinkRefused as error:
            return problem(error.status, str(error))
        except ContractError as error:
            return problem(400, str(error))

    async def _device_answer(self, request: Request) -> Reply:
        digest = Sha256(request.path.split("/")[-1])
        if request.path == topics.DESIRED:
            return await self._desired(int(request.query["after"][0]), float(request.query["wait"][0]))
        if request.path == topics.REPORTED:
            await self._link.report(ReportedState.parse(request.body))
            return Reply(status=204)
        if request.path == topics.RECORDS:
            return Reply(body=(await self._link.deliver(Batch.parse(request.body))).canonical())
        if request.path == topics.CERTIFICATE:
            return self.signed(request)
        if request.path == topics.manifest_path(digest):
            return Reply(body=await self.releases.manifest(digest))
        if request.path == topics.chunk_path(digest):
            stored = StoredChunk(encoding=Encoding.RAW, sha256=digest, size_bytes=1)
            return Reply(body=await self.releases.chunk(stored))
        digest = Sha256(request.path.split("/")[-2])
        return Reply(body=self.releases.index_of(digest).canonical())

    async def _desired(self, after: int, wait_s: float) -> Reply:
        try:
            async with asyncio.timeout(wait_s):
                return Reply(body=(await self._link.next_desired(after)).canonical())
        except TimeoutError:
            self.fleet.check()
            return Reply(status=204)

    async def enrolment(self, request: Request) -> Reply:
        if request.path == topics.CA:
            return _json({"ca_pem": self.ca.pem.decode()})
        if request.path != topics.ENROL:
            return problem(404, "not here")
        asked = parse_json(request.body)
        if asked.text("token") not in self.tokens:
            return problem(409, "the token was used on 2026-11-01 by ward-3")
        self.tokens.discard(asked.text("token"))
        granted = json.loads(self.signed(request).body)
        return _json({**granted, "device_id": DEVICE, "site": "north", "device_url": self.device_url}, 201)

    def signed(self, request: Request, ca: TestCa | None = None) -> Reply:
        """The answer to a request for a certificate; `ca` signs in place of the fleet's own."""
        key = x509.load_pem_x509_csr(parse_json(request.body).text("csr_pem", max_length=10_000).encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        certificate = (ca or self.ca).sign(DEVICE, key)
        return _json({"certificate_pem": certificate.decode(), "ca_pem": self.ca.pem.decode()})


def _json(document: dict[str, JsonValue], status: int = 200) -> Reply:
    return Reply(status=status, body=canonical_json(document), headers={"content-type": "application/json"})


async def _request(head: bytes, reader: asyncio.StreamReader) -> Request:
    first, *rest = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.lower().split(": ", 1) for line in rest if line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method=method, path=parts.path, query=parse_qs(parts.query), body=body)
