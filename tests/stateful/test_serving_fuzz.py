"""Broken requests by the hundred thousand, at the parser and at a connection: no crash, no hang, no growth.

`EDGEWARD_SOAK=1` (make soak) takes a million inputs; a failure names its seed.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.codec import Codec
from edgeward_agent.serving.connection import Connection
from edgeward_agent.serving.exchange import Limits, Request, ServerState
from edgeward_agent.serving.http import HostGuard, TcpGuard
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.protocol import parse_infer
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.routes import parse_target
from edgeward_contract.manifest import Datatype, TensorSpec

SOAK = bool(os.environ.get("EDGEWARD_SOAK"))
PARSER_INPUTS = 600_000 if SOAK else 40_000
CONNECTION_INPUTS = 400_000 if SOAK else 15_000
MAX_SECONDS_EACH = 2.0  # far above what any takes, and far below a hang
MAX_GROWTH_BYTES = 32 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _spec(name: str, datatype: Datatype, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


MODELS = [
    Interface.of([_spec("x", datatype, shape)], [_spec("y", datatype, shape)])
    for datatype in (Datatype.FP32, Datatype.BYTES, Datatype.INT8, Datatype.BOOL, Datatype.BF16)
    for shape in ((-1, 2), (), (3,))
]


def _header(datatype: str, **more: object) -> bytes:
    tensor = {"name": "x", "datatype": datatype, "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    return json.dumps({"id": "a", "inputs": [tensor], "outputs": [{"name": "y", "parameters": more}]}).encode()


_JSON = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1.5,NaN]]}],"parameters":{"timeout":1}}'
BODIES = [
    _header("FP32", binary_data=True) + b"\0" * 8,
    _header("BYTES", classification=3) + b"\2\0\0\0ab\0\0",
    _header("INT8", shared_memory_region="r", shared_memory_byte_size=8) + b"\1" * 8,
    _JSON,
    b'{"inputs":' + b"[" * 2000,
]
_WORDS = [b"-1", b"9223372036854775808", b"1e999", b"null", b"NaN", b"-Infinity", b"[", b"}", b'"', b"\\u0000", b"\xff"]
_WIRE_WORDS = [b"\r\n", b"\0", b"Content-Length: 9999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]


def _mutated(dice: random.Random, seed: bytes, words: Sequence[bytes]) -> bytes:
    data = bytearray(seed)
    for _ in range(dice.randint(0, 4)):
        at, what = dice.randint(0, len(data)), dice.randrange(5)
        if what == 0:
            data[at:at] = dice.choice(words)
        elif what == 1:
            del data[at : at + dice.randint(1, 12)]
        elif what == 2:
            data[at:at] = dice.randbytes(dice.randint(1, 6))
        elif what == 3 and data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        else:
            data[at:at] = data[at : at + dice.randint(1, 40)]
    return bytes(data)


class _Watch:
    """How long each input took, and how the memory of this process grew."""

    def __init__(self) -> None:
        self.slowest_s = 0.0
        self.count = 0
        self._began = time.monotonic()
        self._before = 0

    def run(self, call: Callable[[], None], data: bytes) -> None:
        begin = time.monotonic()
        call()
        took_s = time.monotonic() - begin
        assert took_s < MAX_SECONDS_EACH, f"{took_s:.1f} s for {data[:500]!r}"
        self.slowest_s = max(self.slowest_s, took_s)
        self.count += 1
        if self.count == 2_000:  # what is learned and remembered is so by now
            self._before = _resident_bytes()

    def report(self, what: str) -> None:
        grown = _resident_bytes() - self._before
        rate = self.count / (time.monotonic() - self._began)
        print(
            f"{what}: {self.count} inputs, {rate:.0f}/s, slowest {self.slowest_s * 1e3:.1f} ms, grown {grown >> 10} KiB"
        )
        assert grown < MAX_GROWTH_BYTES


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


@pytest.mark.timeout(3600)
def test_no_body_breaks_the_parser() -> None:
    dice, watch, terms = random.Random(1), _Watch(), Terms(json_bytes=1 << 16)

    def ask(model: Interface, body: bytes, length: int | None) -> None:
        try:
            parse_infer(model, body, length, terms)
        except Refusal as refusal:
            assert 400 <= refusal.status < 600
            assert 0 < len(str(refusal)) < 2000

    for _ in range(PARSER_INPUTS):
        seed = dice.choice(BODIES)
        body = _mutated(dice, seed, _WORDS)
        length = dice.choice([None, 0, len(seed) - 8, dice.randint(0, len(body) + 2)])
        model = dice.choice(MODELS)
        watch.run(lambda model=model, body=body, length=length: ask(model, body, length), body)  # type: ignore[misc]
    watch.report("parser")


class _Wire(asyncio.Transport):
    """Takes what is written, and is never full."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: object) -> None:
        assert isinstance(data, bytes | bytearray | memoryview)
        self.written += data

    def writelines(self, parts: object) -> None:
        assert isinstance(parts, list | tuple)
        self.write(b"".join(parts))

    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def _wire(target: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % target, b"Host: localhost", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _conversations() -> list[bytes]:
    binary = _wire(b"/v2/models/m/infer", BODIES[0], b"Inference-Header-Content-Length: %d" % (len(BODIES[0]) - 8))
    packed = _wire(b"/v2/models/m/infer", gzip.compress(_JSON), b"Content-Encoding: gzip")
    get = b"GET /v2/models/..%2f..%2fetc/stats HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip;q=x\r\n\r\n"
    chunks = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    return [binary, binary * 3, packed, get, get + binary, chunks]


@pytest.mark.timeout(3600)
def test_no_bytes_break_a_connection() -> None:
    dice, watch, terms = random.Random(2), _Watch(), Terms(json_bytes=1 << 16)

    def handle(request: Request) -> None:
        parse_target(request.target)
        if request.method == b"POST":
            parse_infer(MODELS[0], request.body, request.header_length, terms)
        request.answer((b"{}",))

    async def main() -> None:
        codec = Codec(limit_bytes=1 << 16)

        def serve(request: Request) -> None:
            if request.head.encoding is None:
                handle(request)
            else:
                codec.unpacked(request, request.head.encoding, handle)

        server = ServerState(serve, Limits(body_bytes=1 << 16))
        guard = TcpGuard(HostGuard(local_only=True), b"")
        seeds = _conversations()

        def talk(data: bytes) -> None:
            connection, wire = Connection(server, guard), _Wire()
            connection.connection_made(wire)
            cuts = sorted(dice.sample(range(len(data) + 1), k=min(2, len(data) + 1)))
            for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                if begin < end:
                    connection.data_received(data[begin:end])
            connection.eof_received()
            assert not wire.written or wire.written.startswith(b"HTTP/1.1 ")
            assert b"HTTP/1.1 500" not in wire.written, bytes(wire.written[:500])
            connection.connection_lost(None)

        for _ in range(CONNECTION_INPUTS):
            data = _mutated(dice, dice.choice(seeds), [*_WORDS, *_WIRE_WORDS])
            watch.run(lambda data=data: talk(data), data)  # type: ignore[misc]
        assert server.held_bytes == 0
        assert not server.connections
        codec.close()

    asyncio.run(main())
    watch.report("connection")
