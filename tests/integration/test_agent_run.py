"""The agent as people start it, against a real fleet: enrolment, supervision, status, and every way to get it wrong."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgeward_agent.client import Client
from edgeward_agent.status import Status
from edgeward_fleet.accounts.model import Role
from support.agent import Agent, device, edgeward_agent, until
from support.fleet import Fleet, running_fleet
from support.rpc import triton_rpc
from support.turns import turn, turns_are_known


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def agent(fleet: Fleet, tmp_path: Path) -> Iterator[Agent]:
    """Enrolled, not running."""
    token = fleet.device_token()
    with device(tmp_path / "state") as agent:
        done = agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint)
        assert done.returncode == 0, done.stderr
        yield agent


def test_a_device_runs_reports_and_stops_cleanly(fleet: Fleet, agent: Agent) -> None:
    agent.start()
    status = agent.ready()
    until(lambda: agent.status().link.connected)
    seen = until(lambda: fleet.client(Role.VIEWER).get(f"/devices/{status.device.id}").json()["reported"])
    assert seen["health"]["certificate_days_left"] >= 28
    shown = edgeward_agent("status", "--json", "--state-dir", agent.state_dir)
    assert msgspec.json.decode(shown.stdout, type=Status).device == status.device
    assert "Traceback" not in agent.log
    serving = agent.serving_pid()
    given = Path(f"/proc/{serving}/environ").read_bytes()
    assert b"glibc.malloc.hugetlb=1" in given
    assert b"OPENBLAS_NUM_THREADS=1" in given
    assert agent.stop() == 0
    assert not alive(serving)
    assert [path.name for path in (agent.state_dir / "run").iterdir()] == ["agent.pid"]


def test_the_thread_that_answers_takes_short_turns_and_no_other(agent: Agent) -> None:
    if not turns_are_known():
        pytest.skip("this kernel knows no turns")
    agent.start()
    agent.ready()
    pid = agent.serving_pid()
    usual = turn()[2]
    found = {int(each.name): turn(int(each.name)) for each in Path(f"/proc/{pid}/task").iterdir()}
    policy, _, length = found.pop(pid)
    assert (policy, length) == (os.SCHED_OTHER, 100_000)
    assert found and {each[2] for each in found.values()} == {usual}
    assert os.sched_getscheduler(agent.status().agent.pid) == os.SCHED_BATCH  # it interrupts none


def test_what_the_folder_holds_is_its_owners_alone(agent: Agent) -> None:
    os.umask(before := os.umask(0o022))
    assert before == 0o022  # else this shows nothing
    agent.start()
    agent.ready()
    assert mode(agent.state_dir) == 0o711  # a socket that is for others may lie below
    private = {path.name: mode(path) for path in agent.state_dir.iterdir() if path.is_dir() and path.name != "socket"}
    assert set(private.values()) == {0o700}, private
    files = {path.name: mode(path) for path in agent.state_dir.iterdir() if path.name.endswith((".db", "-wal"))}
    assert {"outbox.db", "outbox.db-wal", "agent.db"} <= set(files)
    assert set(files.values()) == {0o600}, files
    assert mode(agent.state_dir / "identity/device.key") == 0o600


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_killed_serving_process_answers_again_within_two_seconds_on_the_same_port(agent: Agent) -> None:
    agent.start()
    agent.ready()
    port, killed = agent.port(), agent.serving_pid()
    os.kill(killed, signal.SIGKILL)
    began_s = time.monotonic()
    until(agent.live, within_s=10)
    assert time.monotonic() - began_s < 2
    assert (agent.port(), agent.serving_pid() != killed) == (port, True)
    until(lambda: agent.status().serving.restarts == 1)


def test_grpc_keeps_its_port_when_the_serving_process_is_killed(agent: Agent) -> None:
    agent.start("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
    agent.ready()
    address, killed = agent.status().serving.grpc, agent.serving_pid()
    with triton_rpc(address) as client:
        assert until(client.is_server_ready)
        os.kill(killed, signal.SIGKILL)
        until(lambda: agent.serving_pid() not in (0, killed) and agent.live())
        assert agent.status().serving.grpc == address
    with triton_rpc(address) as client:
        assert until(client.is_server_ready)
    shown = edgeward_agent("status", "--state-dir", agent.state_dir)
    assert f"grpc://{address}" in shown.stdout
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", int(address.rpartition(":")[2])))


def test_connections_wait_while_the_serving_process_is_started_again(agent: Agent) -> None:
    """Nobody is refused: the listening socket outlives the process."""
    agent.start()
    agent.ready()
    port, killed = agent.port(), agent.serving_pid()
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(killed), what="the end of the serving process")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as waiting:
        waiting.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")


def test_a_killed_agent_costs_no_answer_and_the_next_one_takes_over(agent: Agent) -> None:
    agent.start()
    agent.ready()
    serving, port = agent.serving_pid(), agent.port()
    agent.kill()
    assert agent.live()
    offline = agent.status()
    assert (offline.agent.pid, offline.serving.pid) == (0, serving)
    agent.start()
    until(lambda: agent.status().agent.pid, what="the next agent")
    assert (agent.serving_pid(), agent.live()) == (serving, True)
    os.kill(serving, signal.SIGKILL)
    until(agent.live, within_s=2)
    assert (agent.port(), agent.serving_pid() != serving) == (port, True)


def test_other_settings_replace_the_process_that_was_left_running(agent: Agent) -> None:
    agent.start()
    agent.ready()
    left = agent.serving_pid()
    agent.kill()
    agent.start("--http", "127.0.0.1:0", "--unix", "")
    status = agent.ready()
    assert status.serving.unix == "" and status.serving.pid != left
    assert not alive(left)


def test_the_private_sockets_are_not_beside_the_one_for_applications(agent: Agent) -> None:
    agent.start()
    public = Path(agent.ready().serving.unix)
    assert public == agent.state_dir / "socket/serving.sock"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (public, public.parent, agent.state_dir / "run")}
    assert list(modes.values()) == [0o660, 0o755, 0o700]
    with Client(f"unix:{public}") as client:
        assert client.ready()  # of no model, every one answers
    assert {path.name for path in (agent.state_dir / "run").glob("*.sock")} == {
        "agent.sock",
        "capture.sock",
        "control.sock",
    }


def test_a_recorded_id_that_is_another_process_now_is_let_alone(agent: Agent) -> None:
    agent.start()
    agent.ready()
    agent.stop()
    innocent = os.getpid()
    recorded = f'{{"pid":{innocent},"started":"1","boot":"{boot()}","version":"0","allowed":{{}}'
    (agent.state_dir / "run/serving.pid").write_text(recorded + ',"wanted":{},"bound":{}}')
    agent.start()
    assert agent.ready().serving.pid != innocent


def test_a_folder_has_one_agent(agent: Agent) -> None:
    agent.start()
    agent.ready()
    second = edgeward_agent("run", "--state-dir", agent.state_dir, "--http", "127.0.0.1:0")
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: {agent.state_dir}: expected no agent, found a running one (pid ")
    assert agent.live()


def test_a_port_in_use_is_one_clear_line(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = edgeward_agent("run", "--state-dir", agent.state_dir, "--http", address)
    assert done.returncode == 1
    assert f"error: {address}: expected a free address, found it in use\n  Stop the other program" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_journal_that_cannot_be_opened_ends_the_agent_in_one_line_and_the_models_answer_on(agent: Agent) -> None:
    (agent.state_dir / "agent.db").mkdir()
    agent.start()
    assert agent.process is not None and agent.process.wait(30) == 1
    assert "error: agent.db: expected a database on a disk that works, got: unable to open database file\n" in agent.log
    assert "Traceback" not in agent.log
    assert agent.live()
    assert agent.status().alarms == ("journal-unreadable:JournalUnusable",)
    (agent.state_dir / "agent.db").rmdir()
    agent.start()
    agent.ready()  # and has the serving process again, which ends with it


def test_a_damaged_configuration_is_one_clear_line(agent: Agent) -> None:
    agent.configure("[link]\nwait_s = 'abc'\n")
    done = edgeward_agent("run", "--state-dir", agent.state_dir)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {agent.state_dir}/agent.toml:2: link.wait_s: expected int, got 'abc'\n")


def test_running_before_enrolment_says_what_to_run(tmp_path: Path) -> None:
    done = edgeward_agent("run", "--state-dir", tmp_path / "new")
    assert done.returncode == 1
    assert "error: expected an enrolled device, found no identity" in done.stderr
    assert "edgeward-agent enrol --fleet" in done.stderr


def test_without_a_fleet_the_device_serves_and_says_so(agent: Agent, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = f"https://127.0.0.1:{nobody.getsockname()[1]}"
    facts = agent.state_dir / "identity/identity.json"
    facts.write_text(facts.read_text().replace(agent.status().device.fleet, gone))
    agent.start()
    agent.ready()
    until(lambda: "refused" in agent.status().link.error)
    assert not agent.status().link.connected
    doctor = edgeward_agent("doctor", "--state-dir", agent.state_dir)
    assert doctor.returncode == 0 and "warn  fleet" in doctor.stdout
    assert agent.stop() == 0


def asks(agent: Agent, token: str) -> int:
    return agent.get("/v2", {"Authorization": f"Bearer {token}"}).status


def new_token(agent: Agent) -> str:
    done = edgeward_agent("token", "new", "--force", "--state-dir", agent.state_dir)
    assert done.returncode == 0, done.stderr
    return (agent.state_dir / "serving.token").read_text().strip()


def test_a_new_token_is_wanted_from_the_next_start(agent: Agent) -> None:
    agent.configure('[serving]\ntoken_file = "serving.token"\n')
    before = new_token(agent)
    agent.start()
    left = agent.ready().serving.pid
    assert (asks(agent, before), asks(agent, ""), agent.get("/v2").status) == (200, 401, 401)
    after = new_token(agent)
    assert asks(agent, before) == 200
    agent.kill()  # the serving process goes on, and must not be taken over with the token that it knows
    agent.start()
    assert agent.ready().serving.pid != left
    assert (asks(agent, before), asks(agent, after)) == (401, 200)


def test_a_token_that_others_may_read_ends_the_start_in_one_line(agent: Agent) -> None:
    agent.configure('[serving]\ntoken_file = "serving.token"\n')
    new_token(agent)
    (agent.state_dir / "serving.token").chmod(0o640)
    done = edgeward_agent("run", "--http", "127.0.0.1:0", "--state-dir", agent.state_dir)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {agent.state_dir}/serving.token: expected a file that its owner alone may")
    assert done.stderr.count("\n") == 2 and "  chmod 600" in done.stderr


def test_other_machines_are_not_served_by_accident(agent: Agent) -> None:
    done = edgeward_agent("run", "--http", "0.0.0.0:0", "--state-dir", agent.state_dir)
    assert done.returncode == 2
    assert "error: serving on 0.0.0.0:0: expected a token, since other machines reach it" in done.stderr


def test_both_sockets_have_the_mode_that_is_configured(agent: Agent) -> None:
    agent.configure('[serving]\nunix_mode = "0600"\n')
    agent.start()
    serving = agent.ready().serving
    found = [Path(path).stat() for path in (serving.unix, serving.frames)]
    assert [(each.st_mode & 0o7777, each.st_uid) for each in found] == [(0o600, os.geteuid())] * 2


def test_the_doctor_finds_a_healthy_device_healthy(agent: Agent) -> None:
    agent.configure('[serving]\ntoken_file = "serving.token"\n')  # else it warns where several people can log in
    new_token(agent)
    agent.start()
    agent.ready()
    done = edgeward_agent("doctor", "--state-dir", agent.state_dir)
    assert done.returncode == 0, done.stdout
    assert "who may ask    127.0.0.1:8500: programs on this machine with the token; unix:socket/" in done.stdout
    assert "clock          as the fleet's\n" in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}, done.stdout


def test_a_key_that_others_may_read_is_a_failure(agent: Agent) -> None:
    (agent.state_dir / "identity/device.key").chmod(0o644)
    done = edgeward_agent("doctor", "--state-dir", agent.state_dir)
    assert done.returncode == 1
    assert "device.key: expected 600, got 644" in done.stdout and "chmod 600" in done.stdout


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
