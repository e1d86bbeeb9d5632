"""The demonstration's network: bytes pass untouched; a pulled plug cuts what is connected and what would connect."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from edgeward_fleet.demo.cables import Cables


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_echo_all, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _echo_all(listening: socket.socket) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        try:
            while piece := connection.recv(65536):
                connection.sendall(piece)
        except OSError:
            return


def _send_all(end: socket.socket, data: bytes) -> None:
    end.sendall(data)
    end.shutdown(socket.SHUT_WR)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def is_cut(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_what_goes_in_comes_out(echo: int) -> None:
    sent = bytes(range(256)) * 4096
    with Cables() as cables, connect(cables.lay("127.0.0.1", echo).port) as end:
        sender = threading.Thread(target=_send_all, args=(end, sent))
        sender.start()
        with end.makefile("rb") as back:
            assert back.read() == sent
        sender.join()


def test_a_pulled_plug_cuts_and_a_plug_in_again_connects(echo: int) -> None:
    with Cables() as cables:
        cable, other = cables.lay("127.0.0.1", echo), cables.lay("127.0.0.1", echo)
        with connect(cable.port) as end, connect(other.port) as untouched:
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            cable.unplug()
            assert is_cut(end)
            with connect(cable.port) as late:
                assert is_cut(late)
            untouched.sendall(b"y")
            assert untouched.recv(1) == b"y"
        cable.plug()
        with connect(cable.port) as again:
            again.sendall(b"z")
            assert again.recv(1) == b"z"


def test_a_fleet_that_is_not_there_cuts_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Cables() as cables, connect(cables.lay("127.0.0.1", port).port) as end:
        assert is_cut(end)


def test_closing_the_cables_cuts_all_and_says_nothing(echo: int, caplog: pytest.LogCaptureFixture) -> None:
    with Cables() as cables:
        end = connect(cables.lay("127.0.0.1", echo).port)
        end.sendall(b"x")
        assert end.recv(1) == b"x"
    with end:
        assert is_cut(end)
    assert not caplog.messages
