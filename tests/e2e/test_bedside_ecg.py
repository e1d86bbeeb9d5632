"""The bedside example streams ECG through a real device, keeps its pace, and says what it saw."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bedside_ecg import Stream, Unfit, check
from ecg_beats import Rhythm
from ecg_screen import Verdict, braille, clock, summary

from edgeward_agent.client import Client, ModelInfo
from edgeward_contract.manifest import Datatype, TensorSpec
from support.ecg import RELEASE, real_recording, write_wfdb
from support.models import ROOT, wdbc_release
from support.waiting import until

EXAMPLE = (sys.executable, str(ROOT / "examples/bedside_ecg.py"))
VERDICT = re.compile(r"^(\d\d:\d\d)  (\w+) +(\d\.\d\d) +(\d+\.\d) ms$", re.MULTILINE)


@contextmanager
def serving(folder: Path, *releases: Path) -> Iterator[tuple[str, str]]:
    """`edgeward-agent serve` as a person starts it: its two addresses, once it answers."""
    socket_path, log = folder / "e.sock", folder / "serve.log"
    command = [sys.executable, "-m", "edgeward_agent", "serve", *map(str, releases)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--http", "127.0.0.1:0", "--unix", str(socket_path)], stdout=file, stderr=file
        )
    try:
        until(lambda: "serving on" in log.read_text() or process.poll() is not None, "the device to serve")
        found = re.search(r"serving on (http://\S+)", log.read_text())
        assert found is not None, log.read_text()
        yield found[1], f"unix:{socket_path}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with serving(tmp_path_factory.mktemp("device"), RELEASE, wdbc_release(2)) as both:
        yield both


def bedside(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EXAMPLE, *options], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("way", [0, 1], ids=["tcp", "unix"])
def test_each_second_of_a_simulated_stream_gets_its_verdict(addresses: tuple[str, str], way: int) -> None:
    done = bedside("--device", addresses[way], "--simulate", "ventricular_bigeminy", "--seconds", "15", "--speed", "0")
    assert done.returncode == 0, done.stderr
    found = VERDICT.findall(done.stdout)
    assert [at for at, *_ in found] == [f"00:{second}" for second in range(10, 16)]
    assert [rhythm for _, rhythm, *_ in found].count("ventricular_bigeminy") >= 4
    assert all(0.0 < float(probability) <= 1.0 for _, _, probability, _ in found)
    assert all(float(latency) > 0.0 for *_, latency in found)
    assert re.search(r"^6 windows: \d × \w+", done.stdout, re.MULTILINE)
    assert re.search(r"^latency: median \d+\.\d ms, longest \d+\.\d ms$", done.stdout, re.MULTILINE)


def test_a_real_recording_streams_to_its_end(addresses: tuple[str, str]) -> None:
    done = bedside("--device", addresses[1], "--record", str(real_recording()), "--speed", "0")
    assert done.returncode == 0, done.stderr
    found = VERDICT.findall(done.stdout)
    assert [at for at, *_ in found] == [clock(second) for second in range(10, 39)]
    assert [rhythm for _, rhythm, *_ in found].count("sinus_rhythm") > len(found) / 2


def test_the_pace_is_that_of_the_heart_times_the_speed(addresses: tuple[str, str]) -> None:
    began = time.monotonic()
    done = bedside("--device", addresses[0], "--seconds", "12", "--speed", "8")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began >= 12 / 8
    assert len(VERDICT.findall(done.stdout)) == 3


def test_a_terminal_shows_the_trace_with_the_verdict_beside_it_and_is_left_as_it_was(
    addresses: tuple[str, str],
) -> None:
    status, shown = in_terminal("--device", addresses[1], "--seconds", "12", "--speed", "20")
    assert status == 0, shown
    assert shown.startswith("\x1b[?1049h")
    picture, after = shown.split("\x1b[?25h\x1b[?1049l")
    frame = picture.split("\x1b[H")[-1]
    rows = [line for line in frame.split("\r\n") if any("\u2801" <= each <= "\u28ff" for each in line)]
    assert 3 <= len(rows) <= 7
    assert any("sinus rhythm" in row for row in frame.split("\r\n"))
    assert re.search(r"answered in \d+\.\d ms", frame)
    assert "not for clinical use" in frame
    assert "3 windows:" in after


def in_terminal(*options: str) -> tuple[int, str]:
    """Run the example on a terminal of 100 columns; its exit status and everything that it wrote."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen([*EXAMPLE, *options], stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    try:
        shown = _read_to_the_end(leader, deadline=time.monotonic() + 60)
        return process.wait(20), shown.decode()
    finally:
        os.close(leader)
        if process.poll() is None:
            process.kill()
            process.wait()


def _read_to_the_end(leader: int, *, deadline: float) -> bytes:
    parts: list[bytes] = []
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 0.5)[0]:
            continue
        try:
            parts.append(os.read(leader, 65536))
        except OSError:  # Linux says EIO where the other side has gone
            break
    return b"".join(parts)


def test_a_device_that_goes_away_costs_verdicts_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path, RELEASE) as (_, unix), Client(unix) as client:
        assert client.ready()
        running = subprocess.Popen(
            [*EXAMPLE, "--device", unix, "--seconds", "30", "--speed", "5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stdout is not None
        first = running.stdout.readline()
    rest, complaint = running.communicate(timeout=60)
    assert running.returncode == 0, complaint
    assert VERDICT.match(first)
    assert "no answer: " in rest
    missing = re.search(r"^without an answer: (\d+)$", rest, re.MULTILINE)
    assert missing is not None
    assert int(missing[1]) == rest.count("  no answer: ")
    assert "21 windows: " in rest


def test_ctrl_c_ends_it_with_a_summary(addresses: tuple[str, str]) -> None:
    running = subprocess.Popen(
        [*EXAMPLE, "--device", addresses[1], "--seconds", "600", "--speed", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert VERDICT.match(running.stdout.readline())
    running.send_signal(signal.SIGINT)
    rest, complaint = running.communicate(timeout=20)
    assert (running.returncode, complaint) == (0, "")
    assert re.search(r"^\d+ windows?: ", rest, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--record", "nowhere.hea"], 2, "nowhere.hea"),
        (["--seconds", "5"], 2, "expected 10 or more whole seconds, got '5'"),
        (["--speed", "nan"], 2, "expected a number from 0 on, got 'nan'"),
        (["--simulate", "asystole"], 2, "invalid choice: 'asystole'"),
        (["--model", "no-such"], 1, "no-such"),
        (["--model", "wdbc-risk"], 1, "wdbc-risk: expected an input ecg [-1, 12, 5000]"),
        (["--device", "unix:/nowhere/e.sock"], 1, "unix:/nowhere/e.sock: expected an answer"),
        (["--device", "ftp://here"], 1, "expected http://HOST:PORT, unix:PATH or frames:PATH, got 'ftp://here'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_the_way_out(
    addresses: tuple[str, str], options: Sequence[str], code: int, words: str
) -> None:
    done = bedside("--device", addresses[0], *options)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert (code == 2) or "edgeward-agent serve models/ecg-rhythm/releases/1" in done.stderr


def test_a_recording_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, "short", np.zeros((2500, 12), dtype=np.int16), rate_hz=500)
    done = bedside("--record", str(header))
    assert (done.returncode, done.stdout) == (2, "")
    assert "short.hea: expected 10 s or more, found 5" in done.stderr


# -- its parts


def test_a_model_with_other_tensors_is_refused() -> None:
    def info(samples: int) -> ModelInfo:
        ecg = TensorSpec(name="ecg", datatype=Datatype.FP32, shape=(-1, 12, samples))
        probability = TensorSpec(name="probability", datatype=Datatype.FP32, shape=(-1, len(Rhythm)))
        return ModelInfo(name="m", versions=("1",), inputs=(ecg,), outputs=(probability,))

    check(info(5000))
    with pytest.raises(Unfit, match=re.escape("expected an input ecg [-1, 12, 5000]")):
        check(info(2500))


def test_a_window_is_the_last_ten_seconds_or_what_there_is() -> None:
    ecg = np.tile(np.arange(8000, dtype=np.float32), (12, 1))
    stream = Stream(title="", ecg=ecg, speed=0)
    assert list(stream.moments()) == [float(second) for second in range(1, 17)]
    assert stream.until(3.0).shape == (12, 1500)
    assert stream.until(12.0).shape == (12, 5000)
    assert (float(stream.until(12.0)[0, 0]), float(stream.until(12.0)[0, -1])) == (1000.0, 5999.0)


def test_a_spike_of_one_sample_is_not_lost_in_the_drawing() -> None:
    samples = np.zeros(5000, dtype=np.float32)
    samples[2501] = 1.0
    top, *_, bottom = braille(samples, 40, 4)
    assert [index for index, each in enumerate(top) if each != "\u2800"] == [20]
    assert bottom.count("\u2800") == 0


def test_a_flat_line_is_drawn_flat() -> None:
    rows = braille(np.full(500, 3.0, dtype=np.float32), 10, 3)
    assert [row == "\u2800" * 10 for row in rows] == [True, False, True]


def test_a_summary_counts_what_was_missing_too() -> None:
    verdicts = [
        Verdict(at_s=10, rhythm="a", probability=0.9, latency_ms=2.0),
        Verdict(at_s=11, problem="nobody there"),
        Verdict(at_s=12, rhythm="a", probability=0.9, latency_ms=4.0),
    ]
    assert summary(verdicts).splitlines() == [
        "3 windows: 2 × a",
        "without an answer: 1",
        "latency: median 3.0 ms, longest 4.0 ms",
    ]
    assert summary(verdicts[1:2]).splitlines() == ["1 window: no answer", "without an answer: 1"]
