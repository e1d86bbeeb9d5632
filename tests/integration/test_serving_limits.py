"""What a serving process does with more clients than it has room for. Ten thousand of them are real."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeward_agent.serving.exchange import MOST_CONNECTIONS
from edgeward_agent.serving.files import KEPT_BACK, WANTED, connections
from support.serving import Device, ask, constant_release, device, features_request, wait_until

CROWD = 10_000
_HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
_ROOM = _HARD == resource.RLIM_INFINITY or _HARD >= CROWD + 100

_COME = """
import json, resource, select, socket, sys
port, count, most = map(int, sys.argv[1:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
GET = b"GET /v2/health/live HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"

def come(number):
    made = socket.socket()
    made.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen with the peer
    made.bind((f"127.0.0.{2 + number % 50}", 0))
    made.settimeout(20)
    made.connect(("127.0.0.1", port))
    return made

def said(one):
    answer = b""
    while piece := one.recv(4096):
        answer += piece
    return answer

crowd = [come(number) for number in range(count)]
refused = [said(one) for one in crowd[most:]]
kept = []
for one in crowd[:most]:
    one.sendall(GET)
    kept.append(one.recv(4096).split(b" ")[1])
print(json.dumps({
    "refused": len(refused),
    "in words": sum(b"HTTP/1.1 503" in each and b"Connection: close" in each and b"all are taken" in each and
                    b"Retry-After: 1\\r\\n" in each for each in refused),
    "kept and answered": kept.count(b"200"),
}), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Device]:
    with device(tmp_path / "d") as made:
        made.commit(constant_release(tmp_path, 1.0))
        made.start()
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        yield made


def _crowd(port: int, count: int, most: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-S", "-c", _COME, *map(str, (port, count, most))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _unix(made: Device) -> int:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(made.unix_path))
        asking.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        return int(asking.recv(4096).split(b" ")[1])


@pytest.mark.skipif(not _ROOM, reason=f"the hard limit of open files is {_HARD}: too few for {CROWD} clients")
def test_ten_thousand_idle_connections_are_refused_beyond_the_limit(served: Device) -> None:
    before_bytes = served.memory_bytes()
    began_s = time.monotonic()
    with _crowd(served.port, CROWD, MOST_CONNECTIONS) as crowd:
        assert crowd.stdout is not None and crowd.stdin is not None
        found = json.loads(crowd.stdout.readline())
        beyond = CROWD - MOST_CONNECTIONS
        assert found == {"refused": beyond, "in words": beyond, "kept and answered": MOST_CONNECTIONS}
        assert served.memory_bytes() - before_bytes < 32 << 20
        assert ask(served.port, "/v2/health/live").status == 503  # all places are taken, still
        crowd.stdin.close()
    assert time.monotonic() - began_s < 60  # a few seconds where nothing else runs
    wait_until(lambda: ask(served.port, "/v2/models/toy/infer", features_request()).status == 200)
    assert _unix(served) == 200


def test_few_open_files_leave_room_to_answer(tmp_path: Path) -> None:
    """The limit of connections follows the limit of files: no accept ever fails, whoever comes."""
    files = KEPT_BACK + 80
    with device(tmp_path / "d") as made:
        made.commit(constant_release(tmp_path, 1.0))
        process = made.start()  # and before it has read what it needs to begin:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files, files))
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        with _crowd(made.port, 200, 40) as crowd:
            assert crowd.stdout is not None and crowd.stdin is not None
            found = json.loads(crowd.stdout.readline())
            assert found == {"refused": 160, "in words": 160, "kept and answered": 40}
            assert _files(process.pid) < files
            crowd.stdin.close()
        wait_until(lambda: ask(made.port, "/v2/models/toy/infer", features_request()).status == 200)


def test_a_process_without_files_answers_whom_it_has_and_does_not_spin(served: Device) -> None:
    assert served.process is not None
    pid = served.process.pid
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as held:
        held.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert held.recv(4096).startswith(b"HTTP/1.1 200")
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (_files(pid), _HARD))
        with socket.create_connection(("127.0.0.1", served.port), timeout=20):
            began_s, spent_s = time.monotonic(), _processor_s(pid)
            wait_until(lambda: time.monotonic() - began_s > 1)
            assert _processor_s(pid) - spent_s < 0.5
            held.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.recv(4096).startswith(b"HTTP/1.1 200")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: ask(served.port, "/v2/health/live").status == 200)


def _files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _processor_s(pid: int) -> float:
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def test_the_process_has_as_many_files_as_it_may(served: Device) -> None:
    assert served.process is not None
    soft, hard = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
    assert soft >= min(WANTED, hard) or hard == resource.RLIM_INFINITY


def test_connections_follow_the_files() -> None:
    assert connections(512, 4096) == 512
    assert connections(512, KEPT_BACK + 100) == 50
    assert connections(512, 10) == 8
