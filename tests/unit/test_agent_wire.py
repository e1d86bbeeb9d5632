"""What can go wrong with a request to the fleet has one of two names: worth a retry, or not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from edgeward_agent.errors import LinkError, LinkLost, LinkRefused
from edgeward_agent.identity import tls
from edgeward_agent.link.wire import Call, CertificateNotTaken, FleetNotTrusted, Wire, split_url
from support.pki import TestCa
from support.stub_fleet import CutOff, Reply, Request, StubFleet, problem

GET = Call(method="GET", path="/device/v1/anything", limit_bytes=1000)
Asked = Callable[[StubFleet, Wire], Awaitable[None]]


def ask(folder: Path, asked: Asked, *, timeout_s: float = 5.0, lives: timedelta = timedelta(days=30)) -> None:
    """Run `asked` with a fleet that misbehaves to order and a wire to it."""

    async def run() -> None:
        async with asyncio.timeout(30), StubFleet(folder) as stub:
            identity = stub.ca.enrolled(folder / "identity", stub.device_url, ends=lives)
            wire = Wire(stub.device_url, tls.mutual(identity), timeout_s=timeout_s)
            try:
                await asked(stub, wire)
            finally:
                wire.close()

    asyncio.run(run())


def failure(folder: Path, reply: Reply, *, timeout_s: float = 5.0) -> LinkError:
    """What one call ends with when the fleet gives this answer."""
    caught: list[LinkError] = []

    async def asked(stub: StubFleet, wire: Wire) -> None:
        stub.override = answering(reply)
        with pytest.raises(LinkError) as error:
            await wire.request(GET)
        caught.append(error.value)

    ask(folder, asked, timeout_s=timeout_s)
    return caught[0]


def answering(reply: Reply) -> Callable[[Request], Awaitable[Reply]]:
    async def answer(_: Request) -> Reply:
        return reply

    return answer


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_later_and_server_errors_are_worth_a_retry(tmp_path: Path, status: int) -> None:
    error = failure(tmp_path, problem(status, "too many devices", retry_after="7"))
    assert isinstance(error, LinkLost) and error.retry_after_s == 7
    assert f"too many devices ({status})" in str(error)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_no_is_not_worth_a_retry_and_carries_the_fleets_words(tmp_path: Path, status: int) -> None:
    error = failure(tmp_path, problem(status, "device ward-3 was\nrevoked"))
    assert isinstance(error, LinkRefused) and error.status == status
    assert f"device ward-3 was revoked ({status})" in str(error)
    assert error.hint == "ask the night shift"


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    error = failure(tmp_path, Reply(status=status, headers={"location": "https://example.org/"}))
    assert isinstance(error, LinkRefused)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("120", 120),
        ("-5", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),  # beyond what a clock counts
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(tmp_path: Path, text: str, expected: float | None) -> None:
    error = failure(tmp_path, problem(503, "busy", retry_after=text))
    assert isinstance(error, LinkLost) and error.retry_after_s == expected


def test_more_bytes_than_allowed_are_not_read(tmp_path: Path) -> None:
    error = failure(tmp_path, Reply(body=b"x" * 2_000_000))
    assert isinstance(error, LinkRefused) and "expected at most 1000 bytes" in str(error)


def test_an_error_page_of_a_proxy_is_no_problem_document(tmp_path: Path) -> None:
    error = failure(tmp_path, Reply(status=502, body=b"<html>Bad gateway</html>"))
    assert isinstance(error, LinkLost) and "Whatever (502)" in str(error)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"<html>" + b" " * 100_000, id="as large as a logo"),
        pytest.param(b"[" * 60_000, id="deeper than Python reads"),
    ],
)
@pytest.mark.parametrize(("status", "kind"), [(502, LinkLost), (413, LinkRefused)])
def test_no_error_page_hides_its_status(tmp_path: Path, status: int, kind: type[LinkError], page: bytes) -> None:
    """A large one was a refusal without a status: updates were given up for a proxy's, and no batch was halved."""
    error = failure(tmp_path, Reply(status=status, body=page))
    assert type(error) is kind and f"Whatever ({status})" in str(error)
    assert getattr(error, "status", 413) == 413


def test_a_time_that_no_clock_has_is_none(tmp_path: Path) -> None:
    async def asked(stub: StubFleet, wire: Wire) -> None:
        stub.override = answering(Reply(headers={"date": "Mon, 01 Jan 99999999999 00:00:00 GMT"}))
        assert (await wire.request(GET)).date_s is None

    ask(tmp_path, asked)


def test_half_an_answer_is_none(tmp_path: Path) -> None:
    error = failure(tmp_path, Reply(body=b"half", headers={"content-length": "8"}), timeout_s=0.5)
    assert isinstance(error, LinkLost)


def test_a_fleet_that_says_nothing_is_given_up_after_the_time_out(tmp_path: Path) -> None:
    async def asked(stub: StubFleet, wire: Wire) -> None:
        asleep = asyncio.Event()

        async def never(_: Request) -> Reply:
            await asleep.wait()
            raise CutOff

        stub.override = never
        with pytest.raises(LinkLost, match="expected an answer, got none in time"):
            await wire.request(GET)
        asleep.set()

    ask(tmp_path, asked, timeout_s=0.5)


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    wire = Wire(f"https://127.0.0.1:{port}", tls.unverified(), timeout_s=5)
    with pytest.raises(LinkLost, match=f"fleet at 127.0.0.1:{port}: expected an answer, got .*refused"):
        wire.request_blocking(GET)
    wire.close()


def test_an_alert_about_the_certificate_is_named_as_the_cause(tmp_path: Path) -> None:
    ca = TestCa()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://localhost:{listener.getsockname()[1]}"
        identity = ca.enrolled(tmp_path / "identity", url, ends=timedelta(hours=-1))
        server = threading.Thread(target=refuse_one, args=(listener, ca.server_context(tmp_path, mutual=True)))
        server.start()
        wire = Wire(url, tls.mutual(identity), timeout_s=5)
        with pytest.raises(CertificateNotTaken, match="certificate expired") as error:
            wire.request_blocking(GET)
        wire.close()
        server.join(5)
    assert "enrol again" in error.value.hint


def refuse_one(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Fail one handshake as OpenSSL's own servers do: the alert is sent, and read before the connection ends."""
    connection, _ = listener.accept()
    secure = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    with secure, contextlib.suppress(OSError):
        with pytest.raises(ssl.SSLError):
            secure.do_handshake()
        socket.socket.shutdown(secure, socket.SHUT_WR)
        while socket.socket.recv(secure, 4096):
            pass


def test_an_expired_certificate_is_a_lost_link_however_the_server_says_it(tmp_path: Path) -> None:
    """Servers on asyncio end the connection without the alert: `status` and `doctor` look at the certificate itself."""

    async def asked(_: StubFleet, wire: Wire) -> None:
        with pytest.raises(LinkLost):
            await wire.request(GET)

    ask(tmp_path, asked, lives=timedelta(hours=-1))


def test_another_fleet_at_the_same_address_is_not_trusted(tmp_path: Path) -> None:
    async def asked(stub: StubFleet, _: Wire) -> None:
        stranger = TestCa(name="somebody else's").enrolled(tmp_path / "stranger", stub.device_url)
        wire = Wire(stub.device_url, tls.mutual(stranger), timeout_s=5)
        with pytest.raises(FleetNotTrusted):
            await wire.request(GET)
        wire.close()

    ask(tmp_path, asked)


def test_connections_are_used_again(tmp_path: Path) -> None:
    async def asked(stub: StubFleet, wire: Wire) -> None:
        peers = set()

        async def answer(_: Request) -> Reply:
            peers.add(stub.connections)
            return Reply(body=b"ok")

        stub.override = answer
        for _ in range(3):
            assert (await wire.request(GET)).body == b"ok"
        assert peers == {1}

    ask(tmp_path, asked)


def test_a_connection_that_the_fleet_closed_in_between_is_replaced(tmp_path: Path) -> None:
    async def asked(stub: StubFleet, wire: Wire) -> None:
        stub.override = answering(Reply(body=b"ok"))
        await wire.request(GET)
        await stub.cut_connections()
        deadline = time.monotonic() + 5
        while stub.connections:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert (await wire.request(GET)).body == b"ok"

    ask(tmp_path, asked)


@pytest.mark.parametrize(
    "url", ["http://fleet:8444", "fleet:8444", "https://", "https://fleet/path", "https://fleet:x"]
)
def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(LinkRefused, match="fleet address: expected https://host:port, got"):
        split_url(url)
