"""The load generator against a server that misbehaves: nothing that a person would wait for is left out."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from edgeward_agent.bench.block import Block, Cut
from edgeward_agent.bench.cases import Feeds
from edgeward_agent.bench.connection import Connection
from edgeward_agent.bench.driving import drive
from edgeward_agent.bench.errors import CannotMeasure, ServerLost
from edgeward_agent.bench.first import check_answers, wrong_with
from edgeward_agent.bench.measuring import measure, planned, warm_up
from edgeward_agent.bench.quantiles import Floats, quantile
from edgeward_agent.bench.schedule import Arrivals, Load, Plan, intended_starts
from edgeward_agent.bench.silence import Silence
from edgeward_agent.bench.targets import InProcess, OverSocket, wait_until
from edgeward_agent.bench.wire import Place, infer_request, parse_place
from edgeward_agent.errors import AgentError
from edgeward_agent.serving.session import Session
from support.bench import OK_BODY, Behave, Pretender, answer, block, pretending, stall_once

FEEDS: Feeds = {"features": np.zeros((1, 3), np.float32)}
CONSTANT_100 = intended_starts(100, 2, Arrivals.CONSTANT, np.random.default_rng(0))


def asked(behave: Behave, load: Load, *, timeout_s: float = 5.0) -> Block:
    """One block against a server that behaves so."""
    with pretending(behave) as server:
        return asked_of(server, load, timeout_s)


def asked_of(server: Pretender, load: Load, timeout_s: float = 5.0) -> Block:
    requests = [infer_request(server.place, "toy", FEEDS, {})]
    target = OverSocket("toy", server.place, requests, clients=load.clients, timeout_s=timeout_s)
    try:
        return target.run(load)
    finally:
        target.close()


@pytest.mark.parametrize("clients", [1, 16])
def test_a_stall_delays_everybody_who_should_have_been_answered_meanwhile(clients: int) -> None:
    """200 requests in 2 s, and half a second in which nothing is answered: a quarter of them wait, evenly up to it."""
    block = asked(stall_once(50, 0.5), Load(starts_s=CONSTANT_100, clients=clients))
    late = np.sort(block.latencies_us)
    assert len(late) == 200 and block.failed == 0
    assert np.count_nonzero(late > 100_000) >= 38  # those who were due in the first 0.4 s of the stall
    assert quantile(late, 0.9) > 200_000
    assert late[-1] >= 490_000


def test_the_same_stall_is_one_request_to_whoever_waits_for_each_answer() -> None:
    """Coordinated omission, for comparison: a closed loop, and an open one measured from when it sent."""
    closed = asked(stall_once(50, 0.5), Load(count=200))
    assert np.count_nonzero(closed.latencies_us > 300_000) == 1
    opened = asked(stall_once(50, 0.5), Load(starts_s=CONSTANT_100, clients=1))
    assert np.count_nonzero(opened.sent_us > 300_000) == 1 < np.count_nonzero(opened.latencies_us > 300_000)


def test_an_overloaded_open_loop_ends_soon_after_its_end_and_owes_what_was_due() -> None:
    """A thousand a second for half a second, of a server that answers fifty: ten seconds of work."""
    starts = intended_starts(1000, 0.5, Arrivals.CONSTANT, np.random.default_rng(0))

    def behave(_: int, __: socket.socket) -> bytes:
        time.sleep(0.02)
        return answer()

    block = asked(behave, Load(starts_s=starts, clients=1, grace_s=0.2))
    answered = np.isfinite(block.latencies_us)
    assert 0.6 < block.seconds < 2 and len(block.latencies_us) == 500
    assert block.failed == 500 - np.count_nonzero(answered) > 400
    assert len(block.sent_us) == np.count_nonzero(answered) and np.isfinite(block.sent_us).all()
    assert block.failure == "still waiting to be sent 0.2 s after the last one of its round was due"


def test_a_stall_shorter_than_the_grace_is_measured_to_its_end() -> None:
    block = asked(stall_once(190, 0.4), Load(starts_s=CONSTANT_100, clients=1, grace_s=0.5))
    assert block.failed == 0 and np.isfinite(block.latencies_us).all()


def test_an_open_loop_keeps_its_pace_while_it_can() -> None:
    starts = intended_starts(200, 0.5, Arrivals.CONSTANT, np.random.default_rng(0))
    block = asked(lambda _, __: answer(), Load(starts_s=starts, clients=4))
    assert len(block.latencies_us) == 100
    assert block.seconds >= 0.49


def test_a_closed_loop_ends_by_count_or_by_time() -> None:
    assert len(asked(lambda _, __: answer(), Load(count=7, clients=3)).latencies_us) == 7
    block = asked(lambda _, __: answer(), Load(seconds=0.1))
    assert len(block.latencies_us) > 1 and 0.1 <= block.seconds < 2


def test_a_refusal_is_an_answer_that_never_came() -> None:
    words = answer(b'{"error":"expected a free place,\\n found none"}', "503 Service Unavailable")
    block = asked(lambda at, _: words if at % 2 else answer(), Load(count=10))
    assert block.failed == 5 and block.failure == "status 503: expected a free place, found none"
    assert np.count_nonzero(np.isinf(block.latencies_us)) == 5


def test_a_refusal_that_is_no_json_is_quoted() -> None:
    block = asked(lambda _, __: answer(b"<h1>Bad Gateway</h1>", "502 Bad Gateway"), Load(count=1))
    assert block.failure == "status 502: <h1>Bad Gateway</h1>"


def test_connections_are_kept() -> None:
    """Else every request would pay for a new one, and be blamed on the server."""
    with pretending() as server:
        target = OverSocket(
            "toy", server.place, [infer_request(server.place, "toy", FEEDS, {})], clients=2, timeout_s=5
        )
        target.run(Load(count=20, clients=2))
        target.run(Load(count=20, clients=2, first=20))
        target.close()
        assert len(server.asked) == 40 and server.connections == 2


def test_a_server_that_closes_after_each_answer_is_asked_again() -> None:
    block = asked(lambda _, __: answer(Load.__name__.encode(), "200 OK", "Connection: close"), Load(count=5))
    assert block.failed == 0 and len(block.latencies_us) == 5


def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    """As after an idle time-out: the first request on it is sent once more, and only then is it a failure."""
    block = asked(lambda at, _: None if at == 3 else answer(), Load(count=6))
    assert block.failed == 0 and len(block.latencies_us) == 6


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    def behave(at: int, connection: socket.socket) -> bytes | None:
        if at == 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return None
        return answer()

    block = asked(behave, Load(count=3))
    assert block.failed == 1 and "closed the connection" in block.failure


def test_what_is_no_http_is_said() -> None:
    block = asked(lambda _, __: b"220 smtp ready\r\n\r\n", Load(count=1))
    assert block.failed == 1 and "expected an answer in HTTP" in block.failure


def test_no_answer_in_time_counts_as_never() -> None:
    def behave(at: int, _: object) -> bytes:
        if at == 0:
            time.sleep(1.0)
        return answer()

    block = asked(behave, Load(count=2), timeout_s=0.2)
    assert block.failed == 1 and "no answer within 0.2 s" in block.failure
    assert math.isinf(block.latencies_us[0]) and math.isfinite(block.latencies_us[1])


def test_a_stall_beyond_the_time_out_is_late_for_all_and_not_the_end() -> None:
    """16 requests are given up at once, and the server is there all the time."""
    block = asked(stall_once(50, 0.7), Load(starts_s=CONSTANT_100, clients=16), timeout_s=0.25)
    assert block.gone == "" and len(block.latencies_us) == 200
    assert 16 <= block.failed == np.count_nonzero(np.isinf(block.latencies_us)) < 100
    assert math.isfinite(block.latencies_us[-1])


def test_a_server_that_takes_connections_and_gives_no_answer_is_late() -> None:
    block = asked(lambda _, __: None, Load(count=100))
    assert block.gone == "" and block.failed == len(block.latencies_us) == 100


@pytest.mark.parametrize(
    ("load", "owed"), [(Load(starts_s=CONSTANT_100, clients=4), 150), (Load(count=200, clients=4), 10)]
)
def test_a_server_that_dies_ends_the_block_and_owes_what_was_due(load: Load, owed: int) -> None:
    def behave(at: int, connection: socket.socket) -> bytes | None:
        if at >= 50:
            server.leave()
            return None
        return answer()

    with pretending(behave) as server:
        block = asked_of(server, load)
    assert block.gone == "no connection could be made, connection refused"
    assert owed <= block.failed == np.count_nonzero(np.isinf(block.latencies_us)) <= owed + 8
    assert len(block.latencies_us) - block.failed <= 50


def test_a_server_that_says_nothing_for_ten_time_outs_is_gone() -> None:
    door = threading.Event()

    def behave(_: int, __: object) -> bytes:
        door.wait(20)
        return answer()

    try:
        block = asked(behave, Load(count=1000), timeout_s=0.02)
    finally:
        door.set()
    assert 1 <= block.failed <= 10  # on a busy machine each takes longer
    assert block.gone.startswith("nothing was answered for ")


def test_an_interrupt_inside_the_parser_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for an answer that is no HTTP, and the run went on for its ten minutes."""
    took, complete = [0], Connection.on_message_complete

    def interrupted(self: Connection) -> None:
        took[0] += 1
        if took[0] == 5:
            raise KeyboardInterrupt
        complete(self)

    monkeypatch.setattr(Connection, "on_message_complete", interrupted)
    with pytest.raises(Cut) as cut:
        asked(lambda _, __: answer(), Load(count=1000))
    assert (len(cut.value.block.latencies_us), cut.value.block.failed) == (4, 0)


def test_silence_lasts_from_block_to_block_and_ends_with_an_answer() -> None:
    silence, late = Silence(), TimeoutError("no answer within 1 s")
    second = 1_000_000_000
    lost = [silence.lose(late, at * second, (at + 1) * second, second) for at in range(1, 11)]
    assert lost[:9] == [""] * 9 and lost[9] == "nothing was answered for 10 s"
    silence.broken()
    assert silence.lose(late, 11 * second, 12 * second, second) == ""


def test_a_server_that_is_not_there_is_said() -> None:
    place = Place(host="127.0.0.1", port=1)
    assert drive([Connection(place, 1.0)], [b""], Load(count=1), 1.0, Silence()).gone.endswith("connection refused")
    with pytest.raises(ServerLost, match="toy: expected a server that answers, got: .*connection refused"):
        warm_up([OverSocket("toy", place, [b""], clients=1, timeout_s=1)])


BINARY = b'{"model_name":"toy","outputs":[{"name":"risk","parameters":{"binary_data_size":4}}]}'


@pytest.mark.parametrize(
    ("body", "json_bytes", "told"),
    [
        (OK_BODY, "", ""),
        (BINARY + bytes(4), str(len(BINARY)), ""),
        (BINARY + bytes(3), str(len(BINARY)), "outputs of 4 bytes in an answer that has 3 of them"),
        (BINARY, "", "outputs of 4 bytes in an answer that has 0 of them"),
        (BINARY + bytes(4), "", 'status 200 and no JSON: \'{"model_name":"toy","outputs":'),
        (b'{"error":"not loaded"}', "", "status 200 and the error 'not loaded'"),
        (b"<html>log in</html>", "", "status 200 and no JSON: '<html>log in</html>'"),
        (b"", "", "status 200 and nothing"),
        (b'{"model_name":"toy"}', "", "status 200 and no outputs"),
        (b'{"model_name":"toy","outputs":[]}', "", "status 200 and no outputs"),
        (b'{"model_name":"toy","outputs":"1"}', "", "status 200 and outputs: expected a list, got '1'"),
        (b'{"model_name":"toy","outputs":[{"name":"y"}]}', "", "status 200 and outputs[0].parameters: expected a"),
        (b'{"outputs":[{"name":"y","data":[1]}]}', "", "status 200 and model_name: expected a value, got nothing"),
        (OK_BODY.replace(b"toy", b"big"), "", "one of 'big'"),
    ],
)
def test_what_is_no_answer_of_the_model_is_told_from_one(body: bytes, json_bytes: str, told: str) -> None:
    found = wrong_with(body, json_bytes, "toy")
    assert found.startswith(told) and bool(found) == bool(told)


def test_the_first_answer_to_each_case_is_read_and_no_other() -> None:
    def behave(at: int, _: object) -> bytes:
        if at == 1:
            return answer(BINARY + bytes(4), "200 OK", f"inference-header-content-length: {len(BINARY)}")
        return answer() if at < 3 else answer(b"{}")

    with pretending(behave) as server:
        requests = [infer_request(server.place, "toy", FEEDS, {})] * 3
        target = OverSocket("toy", server.place, requests, clients=1, timeout_s=5, model="toy")
        assert warm_up([target])["toy"] > 0
        with pytest.raises(CannotMeasure, match="toy: expected an answer of the model 'toy', got status 200"):
            target.check()
        target.close()


@pytest.mark.parametrize(
    ("reply", "kind", "words", "way_out"),
    [
        (None, ServerLost, "got: the server closed the connection", "See the server's own log"),
        (answer(b"", "400 Bad Request"), CannotMeasure, "got status 400", "Give inputs that the model takes"),
        (answer(b"", "401 Unauthorized"), ServerLost, "got status 401", "Send a token that may ask"),
        (answer(b"", "404 Not Found"), ServerLost, "got status 404", "Check that the model is ready there"),
        (answer(b"", "429 Too Many"), ServerLost, "got status 429", "Measure when nobody else asks"),
        (answer(b"", "500 No"), ServerLost, "got status 500", "See the server's own log"),
        (answer(b"", "302 Found"), CannotMeasure, "got status 302", "Check the address, and that the model is"),
        (answer(b"", "204 No Content"), CannotMeasure, "got status 204", "Check the address, and that the model is"),
        (b"220 smtp\r\n\r\n", CannotMeasure, "expected an answer in HTTP, got: ", "Check the address"),
    ],
)
def test_whose_fault_it_is_that_there_is_no_first_answer(
    reply: bytes | None, kind: type[AgentError], words: str, way_out: str
) -> None:
    with pretending(lambda _, __: reply) as server, pytest.raises(kind, match=words) as told:
        check_answers("toy", server.place, "toy", [infer_request(server.place, "toy", FEEDS, {})], 5)
    assert told.value.hint.startswith(way_out)


@pytest.mark.parametrize("late", [1, 2, 3])
def test_a_slow_first_answer_is_waited_for_and_a_server_that_gives_none_in_time_is_no_wrong_input(late: int) -> None:
    def behave(at: int, _: object) -> bytes:
        time.sleep(0.4 if at < late else 0.0)
        return answer()

    with pretending(behave) as server:
        asked = ("toy", server.place, "toy", [infer_request(server.place, "toy", FEEDS, {})], 0.2)
        if late < 3:
            check_answers(*asked)
            assert len(server.asked) == late + 1
            return
        with pytest.raises(ServerLost, match="expected an answer within 0.2 s, got none to 3 requests") as told:
            check_answers(*asked)
        assert told.value.hint.startswith("Give a longer --timeout")


def interrupting(at_request: int, after_s: float) -> Behave:
    """Ctrl-C while the request of that number is under way, and no answer to it."""

    def behave(at: int, _: socket.socket) -> bytes:
        if at == at_request:
            time.sleep(after_s)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        return answer()

    return behave


@pytest.mark.parametrize("starts_s", [None, CONSTANT_100])
@pytest.mark.parametrize(("late", "grace_s"), [(False, 60.0), (True, 0.2)])
def test_ctrl_c_keeps_what_was_answered_and_counts_what_had_waited_too_long(
    late: bool, grace_s: float, starts_s: Floats | None
) -> None:
    count = 1000 if starts_s is None else 0
    with pytest.raises(Cut) as told:
        asked(interrupting(50, 0.3), Load(count=count, starts_s=starts_s, grace_s=grace_s))
    found = told.value.block
    assert np.count_nonzero(np.isfinite(found.latencies_us)) == 50 and found.gone == ""
    assert found.failed == len(found.latencies_us) - 50 and (found.failed > 0) == late
    assert found.failure == ("no answer when the run was interrupted" if late else "")


class Interrupted:
    """A session that Ctrl-C meets at that call."""

    def __init__(self, at: int) -> None:
        self.interface = SimpleNamespace(outputs=())
        self._left = at

    def run(self, *_: object) -> list[object]:
        self._left -= 1
        if self._left < 0:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return []


@pytest.mark.parametrize(
    ("load", "late"),
    [(Load(count=100), 0), (Load(starts_s=np.zeros(100)), 0), (Load(starts_s=np.zeros(100), grace_s=0.02), 90)],
)
def test_ctrl_c_keeps_what_this_process_answered(load: Load, late: int) -> None:
    target = InProcess("in process", cast(Session, Interrupted(10)), [FEEDS])
    with pytest.raises(Cut) as told:
        target.run(load)
    assert len(told.value.block.latencies_us) == 10 + late and told.value.block.failed == late


@dataclass
class Counted:
    """Asked as often as told, and interrupted at the request of that number."""

    name: str
    most: int
    asked: list[Load] = field(default_factory=list)

    def check(self) -> None: ...

    def close(self) -> None: ...

    def run(self, load: Load) -> Block:
        before = sum(each.count for each in self.asked)
        self.asked.append(load)
        if before + load.count > self.most:
            raise Cut(block([1.0] * (self.most - before)))
        return block([1.0] * load.count)


@pytest.mark.parametrize(
    ("most", "first", "second", "begun"),
    [
        (250, [100, 100, 50], [100, 100, 40], {}),
        (205, [100, 100, 5], [100, 100, 20], {}),
        (45, [], [], {"a": 45, "b": 60}),
        (0, [], [], {}),
    ],
)
def test_a_round_that_is_interrupted_is_kept_as_far_as_it_came(
    most: int, first: list[int], second: list[int], begun: dict[str, int]
) -> None:
    targets = Counted("a", most), Counted("b", 1000)
    plan = Plan(rounds=20, requests=2000, seconds=15.0)
    found = measure(targets, plan.rounds, planned(plan, targets, 0), lambda *_: None)
    kept = {name: [len(each.latencies_us) for each in blocks] for name, blocks in found.blocks.items()}
    assert found.interrupted and kept == {"a": first, "b": second}
    assert {name: len(each.latencies_us) for name, each in found.begun.items()} == begun
    assert all((load.count, load.first) == (20, at * 20) for at, load in enumerate(targets[0].asked))


def test_a_large_request_goes_out_in_pieces() -> None:
    with pretending() as server:
        large: Feeds = {"features": np.zeros((1, 4 << 20), np.float32)}
        requests = [infer_request(server.place, "toy", large, {})]
        target = OverSocket("toy", server.place, requests, clients=2, timeout_s=20)
        block = target.run(Load(count=4, clients=2))
        target.close()
    assert block.failed == 0 and len(block.latencies_us) == 4


def test_a_request_has_what_the_protocol_asks_for() -> None:
    place = Place(host="triton.local", port=8000, prefix="/base")
    request = infer_request(place, "a/b", FEEDS, {"Authorization": "Bearer x"}, patient=True)
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/v2/models/a%2Fb/infer HTTP/1.1"
    assert "Host: triton.local:8000" in lines and "Authorization: Bearer x" in lines
    length = next(int(line.split(": ")[1]) for line in lines if line.startswith("Inference-Header"))
    assert body[:length].startswith(b'{"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 3]')
    assert b'"timeout": 60000000' in body[:length] and len(body) - length == 12


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v2", "http://127.0.0.1:8000"),
        ("https://kserve.example/models/a/", "https://kserve.example/models/a"),
        ("http://[::1]:8500", "http://[::1]:8500"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_addresses_that_are_understood(url: str, told: str) -> None:
    assert str(parse_place(url)) == told


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port", "unix:", "grpc://x:8001"])
def test_addresses_that_are_not(url: str) -> None:
    with pytest.raises(CannotMeasure, match="--url: expected http://HOST:PORT"):
        parse_place(url)


def test_nobody_starts_early() -> None:
    moment = time.perf_counter_ns() + 3_000_000
    wait_until(moment)
    assert 0 <= time.perf_counter_ns() - moment < 1e9


def test_nothing_is_left_behind_for_a_collector_that_is_switched_off() -> None:
    with pretending() as server:
        target = OverSocket(
            "toy", server.place, [infer_request(server.place, "toy", FEEDS, {})], clients=1, timeout_s=5
        )
        target.run(Load(count=5))
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            target.run(Load(count=300))
            left = len(gc.get_objects()) - before
        finally:
            gc.enable()
            target.close()
    assert left < 100
