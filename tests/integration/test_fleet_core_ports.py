"""What a stranger does to a port who never comes to the point: it costs the fleet next to nothing."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest

from edgeward_contract.topics import desired_path
from edgeward_fleet import listeners
from edgeward_fleet.accounts.model import Role
from support.fleet import Fleet, running_fleet

GET = b"GET /enrolment/v1/ca HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /enrolment/v1/enrol HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@contextmanager
def stranger(fleet: Fleet) -> Iterator[ssl.SSLSocket]:
    """Somebody at the enrolment port, which is open to anybody."""
    address = urlsplit(fleet.ready.enrolment_url)
    plain = socket.create_connection((address.hostname, address.port), timeout=10)
    with fleet.tls().wrap_socket(plain, server_hostname="localhost") as talking:
        yield talking


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET /", b"x" * MIB),
        (GET + b"A: ", b"x" * MIB),
        (GET, b"A: xxxxxxxxxxxxxxx\r\n" * (MIB // 20)),
        (POST + b"0\r\nA: ", b"x" * MIB),
        (POST + b"1;", b"x" * MIB),
    ],
    ids=["address", "header", "headers", "trailer", "chunk"],
)
def test_what_has_no_end_is_cut_off(fleet: Fleet, beginning: bytes, more: bytes) -> None:
    with stranger(fleet) as talking, pytest.raises(OSError):
        talking.sendall(beginning)
        for _ in range(64):
            talking.sendall(more)
    assert fleet.client(None).get("/health").status_code == 200


def is_cut(talking: ssl.SSLSocket) -> bool:
    """Raises TimeoutError when nothing comes at all."""
    try:
        return talking.recv(1) == b""
    except (ConnectionResetError, ssl.SSLEOFError):
        return True


@pytest.mark.parametrize("beginning", [b"", GET], ids=["nothing", "half a request"])
def test_who_connects_and_does_not_ask_is_not_waited_for(tmp_path: Path, beginning: bytes) -> None:
    with mock.patch.object(listeners, "_HEAD_S", 0.5), running_fleet(tmp_path) as fleet, stranger(fleet) as talking:
        viewer, device = fleet.client(Role.VIEWER), fleet.device_client(fleet.enrol("bed-1"))
        assert viewer.get("/me").status_code == 200
        if beginning:
            talking.sendall(beginning)
        began = time.monotonic()
        assert device.get(desired_path(0, 1)).status_code == 204  # who has asked may wait for the answer
        assert is_cut(talking)
        assert time.monotonic() - began < 5
        assert viewer.get("/me").status_code == 200
