"""The latency benchmark in its short form: every way of ours is asked, by the load generator, beside its floor."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from benchmarks.latency import native, page, peers, plan, result, rounds, servers, store, tree, wire, workload
from benchmarks.latency.native import Load, LoadFailed, NoCompiler, Target
from benchmarks.latency.ours import Start, free_port
from benchmarks.latency.servers import NotStarted
from benchmarks.latency.store import Line, Store
from benchmarks.latency.way import Way
from benchmarks.latency.wire import Form

from support.serving import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
REQUEST = b"x" * 64


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("a C compiler is absent")


@pytest.mark.parametrize("kind", ["tcp", "stream", "seqpacket"])
@pytest.mark.parametrize("connections", [1, 4])
def test_every_request_is_answered_and_timed(kind: native.Kind, connections: int, tmp_path: Path) -> None:
    kept = tmp_path / "answer"
    with native.echo(kind, request_bytes=len(REQUEST), answer=ANSWER) as echo:
        what = Load(request=REQUEST, connections=connections, seconds=0.1, warm_up_s=0.05)
        sample = native.load(echo.target, what, keep_answer=kept)
    assert len(sample.latencies_ns) > 100
    assert sample.per_s == pytest.approx(len(sample.latencies_ns) / 0.1, rel=0.2)
    assert 0 < sample.quantile_us(0.5) <= sample.quantile_us(0.99) <= float(sample.latencies_ns[-1]) / 1e3
    assert kept.read_bytes() == ANSWER


def test_a_large_request_to_a_server_that_is_busy_does_not_hold_up_the_others() -> None:
    request = bytes(1 << 20)
    with native.echo("tcp", request_bytes=len(request), answer=ANSWER) as echo:
        sample = native.load(echo.target, Load(request=request, connections=8, seconds=0.2, warm_up_s=0.0))
    assert len(sample.latencies_ns) > 8


def test_a_paced_load_counts_from_the_intended_time() -> None:
    with native.echo("tcp", request_bytes=len(REQUEST), answer=ANSWER) as echo:
        sample = native.load(echo.target, Load(request=REQUEST, seconds=0.2, warm_up_s=0.0, every_us=2000))
    assert 95 <= len(sample.latencies_ns) <= 101


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "expected status 200: HTTP/1.1 503"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "expected Content-Length"),
        (ANSWER + b"x", "more than one answer to a request"),
    ],
)
def test_a_wrong_answer_ends_the_run_and_is_shown(answer: bytes, told: str) -> None:
    with (
        native.echo("tcp", request_bytes=len(REQUEST), answer=answer) as echo,
        pytest.raises(LoadFailed, match=told),
    ):
        native.load(echo.target, Load(request=REQUEST, seconds=0.1))


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "CACHE", tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NoCompiler, match=r"found no no-such-compiler\. Install one"):
        native.program("load")


def test_a_server_between_its_turns_stands_still() -> None:
    with native.echo("tcp", request_bytes=len(REQUEST), answer=ANSWER) as echo:
        with tree.awake(echo.pid, (0,)):
            assert os.sched_getaffinity(echo.pid) == {0}
        stat = Path("/proc") / str(echo.pid) / "stat"
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        assert tree.memory(echo.pid).processes == 1


def test_one_short_round_of_ours_reaches_the_page(tmp_path: Path) -> None:
    """Stopped in the middle and gone on with: nothing is measured twice, and every case has its figures."""
    cases = plan.cases(["wdbc-risk"], ["raw", "raw huge", "echo", "ours", "bare"])
    assert not rounds.measure(cases, 1, Store(tmp_path), time.monotonic(), pace=0.1)
    assert rounds.measure(cases, 1, Store(tmp_path), time.monotonic() + 100, pace=0.2)
    measured = Store(tmp_path)
    kept = result.kept(cases, measured.lines())
    assert [row.note for row in kept.cases if row.note] == []
    assert all(row.figures["p50_us"] > 0 for row in kept.cases)
    assert any(goal.found is not None for goal in kept.goals)
    assert all(len(values) == 1 for line in measured.lines() for values in line.turns.values())  # a rehearsal has one
    assert rounds.measure(cases, 1, measured, time.monotonic(), pace=0.1)  # nothing is missing: no time is needed
    assert "Edgeward" in page.written("<!-- free: benchmarks/latency/page.py writes this -->\n<!-- end -->", kept)


def test_figures_of_other_code_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).add(Line(key="k", round=0, figures={"p50_us": 1.0}))
    assert Store(tmp_path).has("k", 0)
    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.latency.store.fingerprint", lambda: "other")
        assert not Store(tmp_path).has("k", 0)
    assert Store(tmp_path).has("k", 0)
    assert not Store(tmp_path, pace=0.1).has("k", 0)
    assert not Store(tmp_path, fresh=True).has("k", 0)


def test_figures_of_another_benchmark_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another clock, or other turns, are another figure."""
    monkeypatch.setattr(store, "BENCHMARKS", tmp_path)
    found = {store.fingerprint()}
    for name in ("load.c", "common.h", "plan.py", "notes.txt"):
        (tmp_path / name).write_text(name)
        found.add(store.fingerprint())
    assert len(found) == 4


_PEER = """
import http.server, pathlib, sys
starts, ends, port = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with starts.open("a") as file:
    file.write(f"{port} ")
if len(starts.read_text().split()) <= ends:
    raise SystemExit("Traceback of /somewhere\\nthe port is taken")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.mark.parametrize("ends", [1, 3])
def test_a_peer_whose_other_port_was_taken_is_started_again(
    ends: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> Start:
        port = str(free_port())
        endpoint = wire.v2("m", Form.V2_JSON)
        request = b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n"
        way = Way(target=Target(kind="tcp", where=port), request=request, endpoint=endpoint)
        return Start(command=(sys.executable, "-c", _PEER, starts, str(ends), port), ways={"tcp": way})

    starts = tmp_path / "starts"
    monkeypatch.setattr(peers, "start", start)
    monkeypatch.setattr(servers, "_check_all", lambda *_: None)
    if ends == 1:
        with servers.start("mlserver", workload.prepare("wdbc-risk")) as server:
            assert server.name == "mlserver"
        assert len(set(starts.read_text().split())) == 2
    else:
        with pytest.raises(NotStarted) as told, servers.start("mlserver", workload.prepare("wdbc-risk")):
            pass
        assert str(told.value) == "it ended before it had answered: the port is taken"
        assert len(starts.read_text().split()) == 3
