"""Broken requests by the hundred thousand, at the parser and at a connection: no crash, no hang, no growth.

`EDGEWARD_SOAK=1` (make soak) takes 1.4 million inputs, each time others.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random

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
from support.fuzz import WORDS, Watch, fuzz, mutated


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
_WIRE_WORDS = [b"\r\n", b"\0", b"Content-Length: 9999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]


@pytest.mark.timeout(3600)
def test_no_body_breaks_the_parser() -> None:
    terms = Terms(json_bytes=1 << 16)

    def ask(model: Interface, body: bytes, length: int | None) -> None:
        try:
            parse_infer(model, body, length, terms)
        except Refusal as refusal:
            assert 400 <= refusal.status < 600
            assert 0 < len(str(refusal)) < 2000

    def one(dice: random.Random, watch: Watch) -> None:
        seed = dice.choice(BODIES)
        body = mutated(dice, seed)
        length = dice.choice([None, 0, len(seed) - 8, dice.randint(0, len(body) + 2)])
        model = dice.choice(MODELS)
        watch.run(lambda: ask(model, body, length), body)

    fuzz("parser", one, inputs=40_000, in_soak=1_000_000)


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
    terms = Terms(json_bytes=1 << 16)

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

        def talk(dice: random.Random, data: bytes) -> None:
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

        def one(dice: random.Random, watch: Watch) -> None:
            data = mutated(dice, dice.choice(seeds), [*WORDS, *_WIRE_WORDS])
            watch.run(lambda: talk(dice, data), data)

        fuzz("connection", one, inputs=15_000, in_soak=400_000)
        assert server.held_bytes == 0
        assert not server.connections
        codec.close()

    asyncio.run(main())
