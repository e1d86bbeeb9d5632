"""Whatever comes in, the process stays up: one real process, every rule of the protocol broken, one after the other.

What each rule answers in detail is held by the unit tests that docs/threat-model.md names.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.frames import SEALS, FrameClient, connect, memory_file, open_plan
from support.serving import FEATURES, Device, Json, ask, constant_release, device, features_request, wait_until

INFER = "/v2/models/toy/infer"
BOMB = 200 << 20
ONES = np.ones((1, FEATURES), np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("hostile")
    with device(folder / "d") as made:
        made.commit(constant_release(folder, 1.0))
        made.start("--frames", str(folder / "f.sock"))
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        yield made


@pytest.fixture(autouse=True)
def stays_up(served: Device) -> Iterator[None]:
    """The same process answers rightly after each test, and nothing in it has failed."""
    yield
    reply = ask(served.port, INFER, features_request())
    assert (reply.status, reply.json["outputs"][0]["data"]) == (200, [1.0])
    assert served.process is not None and served.process.poll() is None
    assert "Traceback" not in served.log.read_text()


def _frames(made: Device) -> Path:
    return made.folder.parent / "f.sock"


def _body(**changes: object) -> bytes:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, FEATURES], "data": [0.5] * FEATURES, **changes}
    return json.dumps({"inputs": [tensor]}).encode()


def _twice(name: str) -> bytes:
    return json.dumps({**json.loads(_body()), "outputs": [{"name": name}] * 2}).encode()


def _bomb(wbits: int) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([*(squeeze.compress(bytes(1 << 20)) for _ in range(BOMB >> 20)), squeeze.flush()])


_LENGTH = "Inference-Header-Content-Length"
BROKEN: dict[str, tuple[bytes, dict[str, str], int]] = {
    "a shape that overflows": (_body(shape=[1 << 62, FEATURES]), {}, 400),
    "a shape beyond any number": (_body(shape=[1 << 80, FEATURES]), {}, 400),
    "a negative shape": (_body(shape=[-1, FEATURES]), {}, 400),
    "a shape without its data": (_body(shape=[1 << 40, FEATURES]), {}, 400),
    "a header longer than the body": (_body(), {_LENGTH: "100000"}, 400),
    "a header beyond any number": (_body(), {_LENGTH: "9" * 40}, 400),
    "a negative header": (_body(), {_LENGTH: "-1"}, 400),
    "a header that ends within the JSON": (_body(), {_LENGTH: "10"}, 400),
    "an output twice": (_twice("score"), {}, 400),
    "an input twice": (b'{"inputs":[' + _body()[11:-2] + b"," + _body()[11:-2] + b"]}", {}, 400),
    "deep JSON": (b'{"inputs":' + b"[" * 200_000, {}, 400),
    "deep JSON that ends": (b'{"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, {}, 400),
    "deep data": (_body(data=[]).replace(b"[]", b"[" * 100_000 + b"]" * 100_000), {}, 400),
    "much JSON": (b'{"inputs":[' + b" " * (5 << 20) + b"]}", {}, 413),
    "a bomb": (_bomb(31), {"Content-Encoding": "gzip"}, 413),
    "another bomb": (_bomb(15), {"Content-Encoding": "deflate"}, 413),
    "a bomb in a bomb": (gzip.compress(_bomb(31)), {"Content-Encoding": "gzip, gzip"}, 415),
    "a stream that is cut": (gzip.compress(_body())[:-9], {"Content-Encoding": "gzip"}, 400),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_refused(served: Device, case: str) -> None:
    body, headers, status = BROKEN[case]
    before = served.memory_bytes()
    reply = ask(served.port, INFER, body, headers=headers)
    assert reply.status == status, reply
    assert reply.error
    assert served.memory_bytes() - before < 160 << 20


def _connected(made: Device) -> socket.socket:
    return socket.create_connection(("127.0.0.1", made.port), timeout=20)


def _raw(body: bytes, *, length: int | None = None) -> bytes:
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def test_slow_senders_hold_up_nobody(served: Device) -> None:
    slow = [_connected(served) for _ in range(100)]
    whole = _raw(_body())
    for index, each in enumerate(slow):
        each.sendall(whole[: 1 + index * 2])
    for _ in range(20):
        assert ask(served.port, INFER, features_request()).status == 200
    for index, each in enumerate(slow):
        each.sendall(whole[1 + index * 2 :])
        assert each.recv(4096).startswith(b"HTTP/1.1 200")
        each.close()


def test_a_half_closed_client_gets_its_answer_and_the_end(served: Device) -> None:
    with _connected(served) as half:
        half.sendall(_raw(_body()))
        half.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := half.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'"data":[1.0]}]}')


def test_a_client_that_closes_within_a_request_is_forgotten(served: Device) -> None:
    for cut in (1, 30, 90, 150):
        with _connected(served) as gone:
            gone.sendall(_raw(_body())[:cut])
            gone.shutdown(socket.SHUT_WR)
            while gone.recv(4096):
                pass
        with _connected(served) as reset:
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # the end is a reset
            reset.sendall(_raw(_body())[:cut])


def test_pipelined_requests_are_answered_in_order_and_a_wrong_one_among_them(served: Device) -> None:
    with _connected(served) as piped:
        good, wrong = _raw(_body()), _raw(_body(shape=[2, 2]))
        piped.sendall((good * 3 + wrong) * 25 + b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while piece := piped.recv(1 << 16):
            answer += piece
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"200", b"400"] * 25 + [b"403"]


# -- the frames socket

PLAN: Json = {
    "model": "toy",
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, FEATURES], "offset": 0}],
    "outputs": [{"name": "score", "offset": 128, "size_bytes": 64}],
}


def _right(made: Device) -> None:
    with FrameClient(_frames(made), "toy", {"features": ONES}, {"score": 64}) as client:
        assert client.ask().status == 200


@pytest.mark.parametrize(
    "packet",
    [b"\x01", b"\x02" + bytes(15), b"\x01\x01" + bytes(6) + b"[" * 60_000, b"\x01\x01" + bytes(70_000), b"\xff" * 64],
    ids=["short", "a request before a plan", "deep", "long", "noise"],
)
def test_a_malformed_plan_ends_its_own_connection(served: Device, packet: bytes) -> None:
    with connect(_frames(served)) as asking:
        asking.send(packet)
        assert asking.recv(4096)
        assert asking.recv(4096) == b""
    _right(served)


def test_memory_of_the_wrong_kind_is_refused(served: Device, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(256)
        wrong = [
            os.dup(file.fileno()),
            os.open("/dev/zero", os.O_RDWR),
            os.open("/dev/null", os.O_RDWR),
            os.open(tmp_path, os.O_RDONLY),
            socket.socket().detach(),
            memory_file(256, seals=0),
            memory_file(64),
        ]
    for descriptor in wrong:
        with connect(_frames(served)) as asking:
            status, document = open_plan(asking, PLAN, [descriptor])
            os.close(descriptor)
            assert status == 400, document
    for many in (0, 2):
        files = [memory_file(256, seals=SEALS) for _ in range(many)]
        with connect(_frames(served)) as asking:
            assert open_plan(asking, PLAN, files)[0] == 400
        for each in files:
            os.close(each)
    _right(served)


def test_a_plan_larger_than_its_memory_is_refused(served: Device) -> None:
    descriptor = memory_file(256)
    plan: Json = {
        **PLAN,
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [1 << 50, FEATURES], "offset": 0}],
    }
    with connect(_frames(served)) as asking:
        assert open_plan(asking, plan, [descriptor])[0] == 400
    os.close(descriptor)
    _right(served)
