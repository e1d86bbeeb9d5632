"""A run of `edgeward-agent bench` that ends before its time: what it shows, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeward_agent.bench import machine as looking
from edgeward_agent.bench.daemon import Daemon, daemon
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.schedule import Load
from edgeward_agent.bench.targets import InProcess
from support.bench_command import WIDE_BUDGET, bench
from support.onnx_files import risk_model
from support.serving import slow_model, wait_until


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return risk_model(tmp_path_factory.mktemp("bench") / "risk.onnx")


# -- a server that goes away


@pytest.mark.parametrize(
    ("mode", "codes", "told"),
    [
        (("--soak", "20s"), {1}, "The server of risk.onnx went away"),
        (("--duration", "20s"), {3}, "The server of risk.onnx went away"),
        (("--rate", "500", "--duration", "20s"), {1, 3}, "The server went away in round "),
    ],
)
def test_a_server_that_dies_leaves_what_was_measured(
    model: Path, tmp_path: Path, mode: tuple[str, ...], codes: set[int], told: str
) -> None:
    page = tmp_path / "page.html"
    with daemon(model) as running:
        threading.Thread(target=_kill_at_work, args=(running,), daemon=True).start()
        done = bench(model, "--url", running.tcp, *mode, *WIDE_BUDGET, "--json", "--html", page)
    found = done.json
    path = found["paths"][-1]
    assert done.code == found["exit_code"] and done.code in codes
    assert 0 < path["failed"] < path["n"] and found["lost"].startswith("no connection could be made")
    assert told in page.read_text()
    assert found["next"][0]["why"].startswith("See the server's own log")


def _kill_at_work(running: Daemon) -> None:
    before = running.cpu_s()
    wait_until(lambda: running.cpu_s() > before + 0.7)  # the warm-up takes half a second
    os.kill(running.pid, signal.SIGKILL)


def test_a_process_that_has_ended_holds_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until(lambda: _ended(process.pid))
        assert looking.resident_bytes(process.pid) is None


# -- Ctrl-C


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_shows_what_it_has_and_leaves_no_server(model: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "edgeward_agent", "bench", str(model), "--duration", "60s", *WIDE_BUDGET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: len(_children(process.pid)) == 1)
            (server,) = _children(process.pid)
            wait_until(lambda: looking.process_cpu_s(server) > 0.5)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert not Path(f"/proc/{server}").exists()
    if number == signal.SIGINT:
        assert "interrupted" in out + err and "Traceback" not in err


@pytest.mark.parametrize(
    ("mode", "shown"),
    [(("--soak", "10m"), {"TCP"}), (("--duration", "10m", "--through", "unix,tcp"), {"unix socket", "TCP"})],
)
def test_what_the_first_round_has_is_shown_without_a_verdict(
    model: Path, mode: tuple[str, ...], shown: set[str]
) -> None:
    """Rounds of half a minute, windows of ten seconds: nobody waits for the end of one to end a run."""
    command = [sys.executable, "-m", "edgeward_agent", "bench", str(model), *mode, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: len(_children(process.pid)) == 1)
            (server,) = _children(process.pid)
            wait_until(lambda: looking.process_cpu_s(server) > 0.5)
            time.sleep(6)  # a person who has seen enough: the warm-up, and a turn of each path
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"] and found["verdict"] is None and found["settings"]["rounds"] == 1
    assert {path["name"] for path in found["paths"] if path["n"] > 100} == shown
    assert found["soak"] is None or len(found["soak"]["windows"]) == 1


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C in the measurement of that number, the warm-up's left out."""
    run, asked = InProcess.run, [0]

    def interrupted(self: InProcess, load: Load) -> Any:
        if load.first or load.count > 500 or load.seconds > 0.3:
            asked[0] += 1
            if asked[0] > number:
                raise KeyboardInterrupt
        return run(self, load)

    monkeypatch.setattr(InProcess, "run", interrupted)


def test_a_sweep_that_is_interrupted_in_its_first_round_shows_what_it_has(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt_at(monkeypatch, 2)
    sweep = ("--sweep", "batch=1:2:3", "--requests", "6000")
    done = bench(model, *sweep, "--duration", "3s", "--json")
    rows = done.json["sweep"]
    assert done.code == 130 and [bool(row["n"]) for row in rows] == [True, True, False]
    assert rows[-1]["failure"] == "interrupted before its turn"


def test_a_sweep_that_is_interrupted_says_so_first(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupt_at(monkeypatch, 2)
    done = bench(model, "--sweep", "batch=1:2:3", "--requests", "6000", "--duration", "3s")
    assert done.out.startswith("interrupted in round 1 of 10, ") and "interrupted before its turn" in done.out


@pytest.mark.parametrize(("number", "shown"), [(2, True), (1, False)])
def test_a_quantised_model_is_kept_and_shown_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, shown: bool
) -> None:
    big = slow_model(tmp_path / "big.onnx", rounds=4)
    kept = tmp_path / "int8.onnx"
    probes = iter(range(1000))
    run = InProcess.run

    def interrupted(self: InProcess, load: Load) -> Any:
        if load.count == 50 and next(probes) >= number:
            raise KeyboardInterrupt
        return run(self, load)

    monkeypatch.setattr(InProcess, "run", interrupted)
    probe = looking.Probe.times

    def times(self: looking.Probe, pieces: int) -> Floats:
        if pieces == 40 and shown:
            raise KeyboardInterrupt  # both were asked, and the round is not over
        return probe(self, pieces)

    monkeypatch.setattr(looking.Probe, "times", times)
    done = bench(big, "--quantize", "--through", "process", "--requests", "1000", "--output", kept)
    assert done.code == 130 and kept.is_file(), done.err
    if shown:
        assert "answers to 16 random cases" in done.out and "written to" in done.out
    else:
        assert f"the quantised model was made, and it is in {kept}" in done.err


@pytest.mark.parametrize("cpu_s", [0.05, 0.3, 0.5], ids=["at its start", "in its start", "at work"])
def test_a_run_that_is_killed_leaves_no_server_and_no_file(model: Path, cpu_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="killed-") as scratch:  # a short path: a socket has to fit into it
        with _bench_beside(model, scratch, "--soak", "60s") as process:
            try:
                wait_until(lambda: len(_children(process.pid)) == 1)
                (server,) = _children(process.pid)
                wait_until(lambda: looking.process_cpu_s(server) > cpu_s)
            finally:
                process.kill()
        wait_until(lambda: _ended(server))
        assert not list(Path(scratch).iterdir())


def test_a_place_for_temporary_files_whose_path_is_too_long_for_a_socket_does(model: Path, tmp_path: Path) -> None:
    scratch = tmp_path / ("x" * 90)
    scratch.mkdir()
    with _bench_beside(model, scratch, "--requests", "50", "--json", "--force", *WIDE_BUDGET) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 3), err
    assert [each["name"] for each in json.loads(out)["paths"]] == ["in process", "unix socket", "TCP"]


def _bench_beside(model: Path, scratch: Path | str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgeward_agent", "bench", str(model), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )


def _a_full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _a_reader_that_has_gone() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(
    ("output", "told"),
    [(_a_full_disk, "standard output: the result was not written: no space left"), (_a_reader_that_has_gone, "")],
)
def test_what_cannot_be_shown_costs_neither_the_page_nor_the_exit_code(
    model: Path, tmp_path: Path, output: Callable[[], int], told: str
) -> None:
    html, shown = tmp_path / "page.html", output()
    arguments = ("--through", "process", "--duration", "0.4s", "--budget", "1us@p50", "--force", "--html", html)
    command = [sys.executable, "-m", "edgeward_agent", "bench", str(model), *map(str, arguments)]
    try:
        done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(shown)
    assert done.returncode == 1 and "OVER" in html.read_text(), done.stderr
    assert told in done.stderr and len(done.stderr.splitlines()) == (2 if told else 0)


def _ended(pid: int) -> bool:
    """Gone, or a zombie whose new parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
