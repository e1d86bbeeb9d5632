"""One client in several hands, and one time-out for a whole question."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgeward_agent.client import Client, Unreachable
from support.serving import Device, device, identity_model, manifest_for, wait_until, write_release

WAYS = ("http", "unix", "frames")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Device]:
    path = identity_model(tmp_path / "floats" / "model.onnx", TensorProto.FLOAT, ["n", "m"])
    with device(tmp_path / "device", with_frames=True) as made:
        made.commit(write_release(path.parent, manifest_for(path, "floats")))
        made.start("--deadlines", "off")
        with Client(f"unix:{made.unix_path}") as asking:
            wait_until(asking.ready)
        yield made


@pytest.fixture(params=WAYS)
def connect(request: pytest.FixtureRequest, served: Device) -> Callable[[float], Client]:
    addresses = {
        "http": f"http://127.0.0.1:{served.port}",
        "unix": f"unix:{served.unix_path}",
        "frames": f"frames:{served.frames_path}",
    }
    http = f"unix:{served.unix_path}" if request.param == "frames" else None
    return lambda timeout_s: Client(addresses[request.param], timeout_s=timeout_s, http=http)


def _wrong(client: Client, first: int, count: int = 400) -> int:
    """How many answers were another question's; those of anybody else begin elsewhere."""
    wrong = 0
    for number in range(first, first + count):
        array = np.full((1, 4), number, np.float32)
        wrong += not np.array_equal(client.infer("floats", {"in": array})["out"], array)
    return wrong


def test_threads_that_share_a_client_take_turns(connect: Callable[[float], Client]) -> None:
    wrong: list[int] = []
    with connect(20) as client:
        threads = [
            threading.Thread(target=lambda at=at: wrong.append(_wrong(client, at))) for at in (0, 10_000, 20_000)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    assert wrong == [0, 0, 0]


def test_a_forked_process_has_connections_of_its_own(connect: Callable[[float], Client]) -> None:
    with connect(20) as client:
        _wrong(client, 0, 3)
        child = os.fork()
        if not child:
            os._exit(min(_wrong(client, 10_000), 100))
        here = _wrong(client, 20_000)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert here == 0


def test_who_forks_in_the_middle_of_a_question_can_ask_in_the_child(served: Device) -> None:
    client = Client(f"unix:{served.unix_path}", timeout_s=20)
    _wrong(client, 0, 1)
    assert served.process is not None
    os.kill(served.process.pid, signal.SIGSTOP)
    asking = threading.Thread(target=_wrong, args=(client, 0, 1))
    asking.start()
    time.sleep(0.1)  # it holds the turn now, and nobody gives it back in the child
    child = os.fork()
    if not child:
        os._exit(min(_wrong(client, 10_000), 100))
    os.kill(served.process.pid, signal.SIGCONT)
    asking.join(20)
    client.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_closes_in_the_middle_of_a_question_does_not_wait_for_it(served: Device) -> None:
    client = Client(f"unix:{served.unix_path}", timeout_s=20)
    _wrong(client, 0, 1)
    assert served.process is not None
    os.kill(served.process.pid, signal.SIGSTOP)
    wrong: list[int] = []
    asking = threading.Thread(target=lambda: wrong.append(_wrong(client, 0, 1)))
    asking.start()
    time.sleep(0.1)
    began_s = time.monotonic()
    client.close()
    assert time.monotonic() - began_s < 2
    os.kill(served.process.pid, signal.SIGCONT)
    asking.join(20)
    assert wrong == [0]
    assert client._line is None  # it was left when the question had its answer


def test_a_time_out_is_for_the_whole_question(served: Device, connect: Callable[[float], Client]) -> None:
    large = np.ones((1000, 2000), np.float32)  # more than a socket takes in one go
    with connect(0.6) as client:
        client.infer("floats", {"in": large[:1]})
        assert served.process is not None
        os.kill(served.process.pid, signal.SIGSTOP)
        began_s = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            client.infer("floats", {"in": large})
        assert time.monotonic() - began_s < 1.1  # a wait for each of its parts would make 1.2
        os.kill(served.process.pid, signal.SIGCONT)
        assert _wrong(client, 5, 3) == 0


@contextmanager
def _signals(every_s: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, every_s, every_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("every_s", [0.2, 0.001])
def test_a_time_out_comes_while_signals_do(served: Device, connect: Callable[[float], Client], every_s: float) -> None:
    """Each of them begins a wait anew, and its limit with it."""
    large = np.ones((1000, 2000), np.float32)  # more than a socket takes in one go
    with connect(0.6) as client:
        _wrong(client, 0, 3)
        client.infer("floats", {"in": large[:1]})
        assert served.process is not None
        for given in (np.ones((1, 4), np.float32), large):
            os.kill(served.process.pid, signal.SIGSTOP)
            wakes = threading.Timer(5, os.kill, (served.process.pid, signal.SIGCONT))
            wakes.start()
            began_s = time.monotonic()
            with _signals(every_s), pytest.raises(Unreachable, match="timed out"):
                client.infer("floats", {"in": given})
            assert time.monotonic() - began_s < 1.1
            wakes.cancel()
            os.kill(served.process.pid, signal.SIGCONT)
            assert _wrong(client, 5, 3) == 0
