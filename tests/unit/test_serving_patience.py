"""Waiting for the next request where the last one was answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from edgeward_agent.serving import patience
from edgeward_agent.serving.patience import Patience


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_what_is_there_is_found_and_left(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    waiting = Patience(ours)
    theirs.send(b"next")
    assert waiting.pays() and waiting.wait()
    assert ours.recv(10) == b"next"


def test_what_comes_meanwhile_is_found(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    turns = iter(range(5))

    def other_work() -> None:
        if next(turns) == 3:
            theirs.send(b"next")

    monkeypatch.setattr(patience, "_yield", other_work)
    monkeypatch.setattr(patience, "_MOMENT_NS", 10**12)
    assert Patience(ours).wait()


def test_an_end_is_found_too(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert Patience(ours).wait()


def test_who_comes_late_again_and_again_is_rarely_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    waiting = Patience(ours)
    looked = []
    for _ in range(200):
        looked.append(waiting.pays())
        if looked[-1]:
            assert not waiting.wait()
    assert looked[:3] == [True] * 3
    assert sum(looked[3:]) == 197 // 32

    while not waiting.pays():
        pass
    theirs.send(b"next")
    assert waiting.wait()  # and is expected again, once it was not in vain
    ours.recv(10)


def test_one_that_was_in_time_is_forgiven_two_that_are_late(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    waiting = Patience(ours)
    for _ in range(10):
        assert waiting.pays() and not waiting.wait()
        assert waiting.pays() and not waiting.wait()
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(patience, "_yield", lambda: theirs.send(b"next"))
            meanwhile.setattr(patience, "_MOMENT_NS", 10**12)
            assert waiting.pays() and waiting.wait()
        ours.recv(100)


def test_who_is_always_there_already_is_left_to_the_loop(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    waiting = Patience(ours)
    theirs.send(b"next")
    looked = [waiting.pays() and waiting.wait() for _ in range(200)]
    assert looked[:8] == [True] * 8
    assert sum(looked[8:]) == 192 // 32


def test_where_nobody_can_look_nobody_does(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_CAN_LOOK", False)
    monkeypatch.delattr("select.poll")
    monkeypatch.delattr("os.sched_yield")
    assert not Patience(pair[0]).pays()
