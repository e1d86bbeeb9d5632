"""The shell of the agent: log lines, status text, sockets, process identity, the agent's own socket, reports."""

from __future__ import annotations

import asyncio
import errno
import grp
import itertools
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from edgeward_agent import log
from edgeward_agent.agent_socket import AgentNotRunning, AgentSilent, answering, ask
from edgeward_agent.errors import AgentError, AgentRunning, ConfigError, LinkLost, LinkRefused, PortInUse
from edgeward_agent.link import follow
from edgeward_agent.link.follow import follow_desired
from edgeward_agent.link.memory import MemoryFleet, MemoryLink
from edgeward_agent.link.observed import LinkCondition, ObservedLink
from edgeward_agent.listening import (
    NoFileLeft,
    OpenToAll,
    bound_address,
    check_exposed,
    exposure,
    listen_frames,
    listen_tcp,
    listen_unix,
    reserve_grpc,
)
from edgeward_agent.private_socket import private_socket
from edgeward_agent.process import ProcessRef, StateFolderLock, Watched, agent_is_running
from edgeward_agent.reporter import Reporter, Rhythm, Snapshot
from edgeward_agent.status import (
    AgentStatus,
    DeviceStatus,
    LinkStatus,
    ModelStatus,
    OutboxStatus,
    ServingStatus,
    Status,
)
from edgeward_agent.status_text import duration, size, status_text
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import DeviceHealth, ReportedState
from edgeward_contract.schema import Fields
from support.link import reported_state
from support.waiting import eventually


def record(message: str, *arguments: object, **pairs: object) -> logging.LogRecord:
    made = logging.LogRecord("edgeward_agent.link.https", logging.WARNING, "f", 1, message, arguments, None)
    made.created = 1_700_000_000.5
    made.fields = pairs
    return made


def test_a_log_line_is_one_line_for_people() -> None:
    text = log.TextLines().format(record("lost\nagain %d", 3, reason="no route", count=2, why='say "no"'))
    assert text == (
        '2023-11-14T22:13:20.500Z warning link.https: lost\\nagain 3 reason="no route" count=2 why="say \\"no\\""'
    )


def test_a_log_line_is_one_document_for_machines() -> None:
    line = log.JsonLines().format(record("lost", generation=4, error=ValueError("x")))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "warning",
        "source": "link.https",
        "message": "lost",
        "generation": 4,
        "error": "x",
    }


def test_a_failure_with_a_traceback_stays_one_line() -> None:
    made = record("broken")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "\n" not in log.TextLines().format(made)


def test_the_status_of_a_healthy_device() -> None:
    model = ModelStatus(
        name="risk",
        live="risk@2",
        slot="current",
        requests=10,
        p99_us=850,
        late=2,
        refused=1,
        fallback="expected cuda, runs on cpu (cuda: the runtime could not load it)",
        update="risk@2",
        update_state="COMMITTED",
    )
    text = status_text(
        Status(
            agent=AgentStatus(pid=7, version="1", uptime_s=7300),
            device=DeviceStatus(id="bed-1", site="north", fleet="https://f:8444", certificate_days_left=29),
            link=LinkStatus(connected=True, heard_s_ago=4),
            serving=ServingStatus(pid=8, http="127.0.0.1:8500", unix="/run/s.sock", restarts=1),
            models=(model,),
            outbox=OutboxStatus(records=3, oldest_s=90, bytes=1, quarantined=1, dropped=0, not_kept=12),
            disk_free_bytes=5 * 10**9,
        )
    )
    assert text.splitlines() == [
        "agent        running, pid 7, for 2 h, version 1",
        "device       bed-1 of site north",
        "certificate  good for 29 days",
        "fleet        connected, last heard 4 s ago",
        "serving      pid 8 on http://127.0.0.1:8500, unix:/run/s.sock, restarted once",
        "outbox       3 records wait, the oldest for 1 min, 1 in quarantine, 12 results not kept",
        "disk         5.0 GB free",
        "",
        "model  live    slot     requests  errors  late  refused  p99      update",
        "risk   risk@2  current  10        0       2     1        0.85 ms  risk@2 COMMITTED",
        "risk: expected cuda, runs on cpu (cuda: the runtime could not load it)",
    ]


def test_the_status_of_a_device_in_trouble() -> None:
    model = ModelStatus(name="risk", update="risk@3", update_state="FAILED", reason="golden_mismatch", detail="case 1")
    text = status_text(
        Status(
            agent=AgentStatus(pid=7),
            device=DeviceStatus(id="bed-1", site="north", problem="the device certificate expired on 2026-01-01"),
            link=LinkStatus(error="nobody answers"),
            models=(
                model,
                ModelStatus(name="other", update="other@1", update_state="DOWNLOADING", progress_percent=40),
            ),
            alarms=("outbox_full",),
        )
    )
    assert "certificate  the device certificate expired on 2026-01-01" in text
    assert "fleet        out of reach, not heard yet: nobody answers" in text
    assert "serving      not running" in text
    assert "alarms       outbox_full" in text
    assert "risk@3 FAILED (golden_mismatch)" in text and "risk: case 1" in text
    assert "other@1 DOWNLOADING 40 %" in text


def test_a_stopped_agent_says_that_it_is() -> None:
    text = status_text(Status(device=DeviceStatus(problem="expected an enrolled device")))
    assert text.startswith("agent        not running; what follows was read from the disk.")
    assert "device       expected an enrolled device" in text and "\nfleet " not in text


def test_what_is_live_is_unknown_while_models_answer_and_no_agent_runs() -> None:
    model = ModelStatus(name="risk", update="risk@2", update_state="COMMITTED")
    text = status_text(Status(serving=ServingStatus(pid=8, http="127.0.0.1:8500"), models=(model,)))
    assert text.splitlines()[-3:] == [
        "model  live     slot  requests  errors  late  refused  p99  update",
        "risk   unknown  ?     ?         ?       ?     ?        ?    risk@2 COMMITTED",
        "what is live is unknown: the control process is down, and the serving process goes on without it",
    ]
    nothing_serves = status_text(Status(models=(model,)))
    assert "risk   -     -" in nothing_serves and "unknown" not in nothing_serves


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59, "59 s"), (3599, "59 min"), (200_000, "2 d")])
def test_durations_are_short(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_are_short() -> None:
    assert [size(count) for count in (5, 1500, 2 * 10**6)] == ["5 B", "1.5 kB", "2.0 MB"]


def test_a_taken_port_and_an_impossible_one_are_told_apart() -> None:
    with listen_tcp("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PortInUse, match=f"{address}: expected a free address, found it in use"):
            listen_tcp(address)
    with pytest.raises(ConfigError, match=r"192.0.2.1:1: cannot listen there"):
        listen_tcp("192.0.2.1:1")


def test_a_socket_that_nobody_serves_is_replaced_and_a_served_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    listen_unix(path).close()
    with listen_unix(path), pytest.raises(PortInUse, match="found somebody listening"):
        listen_unix(path)


def test_what_is_no_socket_is_not_taken_away(tmp_path: Path) -> None:
    for listen in (listen_unix, listen_frames):
        for path in (tmp_path / "model.onnx", tmp_path / "link"):
            if path.name == "link":
                path.unlink(missing_ok=True)
                path.symlink_to(tmp_path / "model.onnx")
            else:
                path.write_bytes(b"a model")
            with pytest.raises(ConfigError, match="expected a free path or an old socket, found something else there"):
                listen(path)
            assert path.read_bytes() == b"a model"


def test_a_disk_without_a_file_left_is_not_looked_for_in_the_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_socket: socket.socket, _address: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def private() -> None:
        async with private_socket(tmp_path / "a.sock", lambda *_: asyncio.sleep(0), name="agent"):
            raise AssertionError("expected no socket")

    monkeypatch.setattr(socket.socket, "bind", full)
    for listen in (lambda: listen_unix(tmp_path / "s.sock"), lambda: asyncio.run(private())):
        with pytest.raises(NoFileLeft, match="expected a disk that takes one more file, got: no space left") as caught:
            listen()
        assert "df -i" in caught.value.hint


def test_only_one_folder_is_made_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen there: no such file or directory"):
        listen_unix(tmp_path / "mistyped" / "run" / "s.sock")
    assert not list(tmp_path.iterdir())


def test_a_socket_belongs_to_the_group_that_may_use_it(tmp_path: Path) -> None:
    """Under the strictest umask too: an application of another user must come as far as the socket."""
    path = tmp_path / "socket" / "s.sock"
    before = os.umask(0o077)
    try:
        with listen_unix(path, group=grp.getgrgid(os.getgid()).gr_name):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert path.stat().st_gid == os.getgid()
    finally:
        os.umask(before)


def test_a_group_that_cannot_have_the_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, uid: int, gid: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(ConfigError, match="serving.unix_group: expected a group of this machine, got 'nobody-has-it'"):
        listen_unix(tmp_path / "s.sock", group="nobody-has-it")
    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ConfigError, match="serving.unix_group: expected a group that the agent's user is a member of"):
        listen_unix(tmp_path / "s.sock", group=grp.getgrgid(os.getgid()).gr_name)


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a socket path of at most 107 bytes") as error:
        listen_unix(tmp_path / ("x" * 110))
    assert "--state-dir" in error.value.hint


def test_a_port_is_kept_for_grpc_and_shared_with_nobody_else() -> None:
    with reserve_grpc("127.0.0.1:0") as first:
        address = bound_address(first)
        for taking in (reserve_grpc, listen_tcp):
            with pytest.raises(PortInUse, match=f"{address}: expected a free address, found it in use"):
                taking(address)
        with socket.socket() as serving:  # as grpc opens its own
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                serving.setsockopt(socket.SOL_SOCKET, option, 1)
            serving.bind(first.getsockname())
            serving.listen()
            with pytest.raises(PortInUse):
                reserve_grpc(address)
            with socket.create_connection(first.getsockname(), timeout=5):
                serving.accept()[0].close()
    reserve_grpc(address).close()


def test_grpc_without_its_library_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match="the packages grpcio and protobuf, found them not") as error:
        reserve_grpc("127.0.0.1:0")
    assert "pip install 'edgeward[agent,grpc]'" in error.value.hint


def test_only_addresses_beyond_this_machine_are_warned_of() -> None:
    assert exposure("127.0.0.1:1") == exposure("[::1]:1") == exposure("") == ""
    assert exposure("0.0.0.0:8500").startswith("serving on 0.0.0.0:8500: everyone who reaches this machine")
    assert "anybody on the way can read them" in exposure("0.0.0.0:8500", token=True)


def test_other_machines_need_a_token_or_somebody_who_says_that_they_need_none() -> None:
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1", "", "nonsense"):
        check_exposed(address, token=False, without_token=False)
    check_exposed("0.0.0.0:1", token=True, without_token=False)
    check_exposed("0.0.0.0:1", token=False, without_token=True)
    with pytest.raises(OpenToAll, match=r"serving on \[::\]:1: expected a token, since other machines") as caught:
        check_exposed("[::]:1", token=False, without_token=False)
    assert "serving.token_file" in caught.value.hint and "--without-token" in caught.value.hint


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run/agent.pid"
    assert not agent_is_running(path)
    lock = StateFolderLock(path)
    assert agent_is_running(path)
    with pytest.raises(
        AgentRunning, match=rf"{tmp_path}: expected no agent, found a running one \(pid {os.getpid()}\)"
    ):
        StateFolderLock(path)
    lock.close()
    assert not agent_is_running(path)
    StateFolderLock(path).close()


def test_a_process_is_not_taken_for_dead_because_no_file_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    me = ProcessRef.of(os.getpid())

    def full(*_: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", full)
        assert me.alive()
        unknown = ProcessRef.of(os.getpid())
        with pytest.raises(ProcessLookupError):
            ProcessRef.of(2**22 + 1)  # no process has such an id
    assert unknown.alive()


def test_a_process_is_its_id_and_its_start() -> None:
    me = ProcessRef.of(os.getpid())
    assert me.alive()
    with pytest.raises(ProcessLookupError):
        Watched.hold(ProcessRef(pid=me.pid, started="1"))


def test_the_end_of_a_process_is_seen_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    async def run() -> None:
        watched = Watched.child(child.pid)
        watched.send(signal.SIGTERM)
        await asyncio.wait_for(watched.ended(), 5)
        watched.send(signal.SIGTERM)  # nobody there any more
        watched.close()

    asyncio.run(run())
    assert child.wait(5) == -signal.SIGTERM


async def answer(question: Fields) -> AsyncIterator[str]:
    if question.text("ask") == "trouble":
        raise LinkLost("no fleet")
    for number in range(3):
        yield json.dumps({"line": number})


def test_a_question_gets_its_lines_or_the_reason_why_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def run() -> None:
        async with answering(path, answer):
            assert path.stat().st_mode & 0o777 == 0o600
            lines = await asyncio.to_thread(lambda: list(ask(path, {"ask": "lines"})))
            assert [json.loads(line)["line"] for line in lines] == [0, 1, 2]
            with pytest.raises(AgentError, match="no fleet") as error:
                await asyncio.to_thread(lambda: list(ask(path, {"ask": "trouble"})))
            assert error.value.hint == LinkLost.hint
            with pytest.raises(AgentError, match="ask: expected a value"):
                await asyncio.to_thread(lambda: list(ask(path, {})))

    asyncio.run(run())
    assert not path.exists()


def test_a_socket_that_cannot_be_removed_does_not_hide_what_went_wrong(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def run() -> None:
        async with answering(path, answer):
            path.unlink()
            path.mkdir()
            raise LinkLost("the real reason")

    with pytest.raises(LinkLost, match="the real reason"):
        asyncio.run(run())


def test_half_an_answer_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with pytest.raises(AgentNotRunning):
        list(ask(path, {"ask": "status"}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b'{"line": 0}\n')

        async def run() -> None:
            serving = asyncio.to_thread(serve)
            asking = asyncio.to_thread(lambda: list(ask(path, {"ask": "lines"})))
            with pytest.raises(AgentSilent, match="stopped in the middle"):
                await asyncio.gather(asking, serving)

        asyncio.run(run())


@dataclass(slots=True)
class SteppingClock:
    """Sleeping moves the time on and lets everybody else run."""

    now_s: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now_s += seconds


async def look() -> Snapshot:
    return Snapshot(generation=3, models={}, health=DeviceHealth())


def test_reports_come_often_after_news_and_rarely_without() -> None:
    async def run() -> None:
        fleet, clock, news = MemoryFleet(), SteppingClock(), asyncio.Event()
        rhythm = Rhythm(heartbeat_s=60, min_interval_s=1)
        reporter = Reporter(MemoryLink(fleet), look, news=news, clock=clock, rhythm=rhythm, draw=lambda: 0.5)
        task = asyncio.create_task(reporter.run())
        times = await times_of_reports(fleet, clock, 40)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps[0] == pytest.approx(5) and gaps[-1] == pytest.approx(60)
        news.set()
        await times_of_reports(fleet, clock, 41)
        assert [each.sequence for each in fleet.reports] == list(range(1, len(fleet.reports) + 1))
        assert len({each.boot for each in fleet.reports}) == 1
        task.cancel()

    asyncio.run(run())


def test_heartbeats_of_devices_that_were_updated_together_drift_apart() -> None:
    async def run() -> None:
        fleet, clock, draws = MemoryFleet(), SteppingClock(), itertools.cycle((0.0, 1.0))
        rhythm = Rhythm(heartbeat_s=60, min_interval_s=1)
        link = MemoryLink(fleet)
        reporter = Reporter(link, look, news=asyncio.Event(), clock=clock, rhythm=rhythm, draw=lambda: next(draws))
        task = asyncio.create_task(reporter.run())
        times = await times_of_reports(fleet, clock, 40)
        assert sorted(later - earlier for earlier, later in pairwise(times[-3:])) == pytest.approx([54, 66])
        task.cancel()

    asyncio.run(run())


async def times_of_reports(fleet: MemoryFleet, clock: SteppingClock, count: int) -> list[float]:
    times: list[float] = []

    def note() -> bool:
        if len(fleet.reports) > len(times):
            times.append(clock.now_s)
        return len(fleet.reports) >= count

    await turns(note)
    return times


async def turns(condition: Callable[[], bool]) -> None:
    """Let the other tasks have their turns until it is so: no time passes but that of the stepping clock."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("expected it to come about, it did not")


def test_a_report_that_does_not_arrive_is_tried_again_with_newer_contents() -> None:
    async def run() -> None:
        fleet, clock = MemoryFleet(online=False), SteppingClock()
        rhythm = Rhythm(heartbeat_s=60, min_interval_s=1)
        link = MemoryLink(fleet)
        reporter = Reporter(link, look, news=asyncio.Event(), clock=clock, rhythm=rhythm, draw=lambda: 0.5)
        task = asyncio.create_task(reporter.run())
        await turns(lambda: len(clock.slept) >= 10)
        await fleet.set_online(True)
        await turns(lambda: bool(fleet.reports))
        assert fleet.reports[0].sequence > 1
        task.cancel()

    asyncio.run(run())


class Refusing(MemoryLink):
    """To a fleet that cannot read what it is told."""

    async def report(self, reported: ReportedState) -> None:
        raise LinkRefused("the fleet: expected health.free_bytes, got nothing", status=422)


def test_a_report_that_the_fleet_cannot_read_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The dashboard shows what the device said last for as long, and nobody at the site would know why."""

    async def run() -> None:
        clock, rhythm = SteppingClock(), Rhythm(heartbeat_s=60, min_interval_s=1)
        link, news = Refusing(MemoryFleet()), asyncio.Event()
        reporter = Reporter(link, look, news=news, clock=clock, rhythm=rhythm, draw=lambda: 0.5)
        task = asyncio.create_task(reporter.run())
        await turns(lambda: len(clock.slept) >= 10)
        task.cancel()

    asyncio.run(run())
    (told,) = caplog.messages
    assert told.endswith("told last: the fleet: expected health.free_bytes, got nothing")


def test_a_fleet_that_asks_for_time_gets_it_whatever_is_new() -> None:
    async def run() -> None:
        fleet, clock, news = MemoryFleet(retry_after_s=120), SteppingClock(), asyncio.Event()
        rhythm = Rhythm(heartbeat_s=60, min_interval_s=1)
        reporter = Reporter(MemoryLink(fleet), look, news=news, clock=clock, rhythm=rhythm, draw=lambda: 0.5)
        task = asyncio.create_task(reporter.run())
        news.set()
        await turns(lambda: len(clock.slept) >= 2)
        assert min(clock.slept) >= 120
        task.cancel()

    asyncio.run(run())


@dataclass(slots=True)
class Taken:
    generation: int = 0
    offers: list[int] = field(default_factory=list)

    def offer(self, desired: DesiredState) -> None:
        self.generation = desired.generation
        self.offers.append(desired.generation)


async def following(
    fleet: MemoryFleet, taken: Taken, clock: SteppingClock, nudged: asyncio.Event | None = None
) -> None:
    await follow_desired(MemoryLink(fleet), taken, clock=clock, draw=lambda: 0.0, nudged=nudged)


def test_following_goes_on_after_an_outage_and_after_a_refusal() -> None:
    async def run() -> None:
        fleet, taken, clock = MemoryFleet(refusal="revoked"), Taken(), SteppingClock()
        task = asyncio.create_task(following(fleet, taken, clock))
        await turns(lambda: len(clock.slept) >= 3)
        fleet.refusal = ""
        for generation in (1, 2):
            await fleet.set_desired(DesiredState(generation=generation))
            await turns(lambda: taken.generation == fleet.desired.generation)
        assert taken.offers == [1, 2]
        task.cancel()

    asyncio.run(run())


def test_a_cut_after_a_quiet_day_is_a_first_failure() -> None:
    """With what had failed long before it counted as the eleventh, and cost up to five minutes."""

    class Cut(MemoryLink):
        async def next_desired(self, after: int) -> DesiredState:
            if len(clock.slept) == 10:
                clock.now_s += 86_400
            raise LinkLost("cut")

    async def run() -> None:
        link = Cut(MemoryFleet())
        task = asyncio.create_task(follow_desired(link, Taken(), clock=clock, draw=lambda: 1.0))
        await turns(lambda: len(clock.slept) >= 11)
        assert clock.slept[9] == 300 and clock.slept[10] == 2
        task.cancel()

    clock = SteppingClock()
    asyncio.run(run())


class StandingClock(SteppingClock):
    """Nobody wakes up by themselves."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.Event().wait()


def test_following_goes_on_as_soon_as_somebody_else_has_reached_the_fleet() -> None:
    """After a day without a network it would otherwise wait for up to five minutes more."""

    async def run() -> None:
        fleet, taken, clock, nudged = MemoryFleet(refusal="away"), Taken(), StandingClock(), asyncio.Event()
        task = asyncio.create_task(following(fleet, taken, clock, nudged))
        await turns(lambda: len(clock.slept) == 1)
        fleet.refusal = ""
        await fleet.set_desired(DesiredState(generation=1))
        nudged.set()
        await turns(lambda: taken.offers == [1])
        task.cancel()

    asyncio.run(run())


def test_a_follower_that_falls_back_is_given_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_LOOK_S", 0.01)

    async def run() -> None:
        fleet, taken = MemoryFleet(), Taken()
        task = asyncio.create_task(following(fleet, taken, SteppingClock()))
        await fleet.set_desired(DesiredState(generation=2))
        await turns(lambda: taken.offers == [2])
        taken.generation = 1
        await eventually(lambda: taken.offers == [2, 2], "the state it missed")
        task.cancel()

    asyncio.run(run())


def test_the_log_says_once_that_the_fleet_is_gone_and_once_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def run() -> None:
        fleet = MemoryFleet()
        link = ObservedLink(MemoryLink(fleet), clock=SteppingClock(), explain=lambda: "")
        link.on_return.append(lambda: told.append("back"))
        report = reported_state(1)
        await link.report(report)
        await fleet.set_online(False)
        for _ in range(3):
            with pytest.raises(LinkLost):
                await link.report(report)
            with pytest.raises(LinkLost):
                await link.deliver(Batch(batch_id="b", records=()))
        assert "offline" in link.condition.error and link.condition.heard_s == 1000
        await fleet.set_online(True)
        await link.report(report)
        assert link.condition.error == ""

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    messages = [each.getMessage() for each in caplog.records]
    assert messages == [
        "the fleet answers",
        "the fleet is out of reach: fleet in memory: expected an answer, it is offline",
        "the fleet answers",
    ]
    assert told == ["back", "back"]


def test_a_fleet_that_takes_reports_and_fails_at_records_is_not_back_with_each_report(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each report was a return, and ended the pause of the records: a batch a second, from every device."""
    told: list[str] = []

    class Partly(MemoryLink):
        async def deliver(self, batch: Batch) -> Acknowledgement:
            raise LinkLost("the fleet failed (500)")

    async def run() -> None:
        link = ObservedLink(Partly(MemoryFleet()), clock=SteppingClock(), explain=lambda: "")
        link.on_return.append(lambda: told.append("back"))
        await link.report(reported_state(1))
        for number in range(2, 7):
            with pytest.raises(LinkLost):
                await link.deliver(Batch(batch_id="b", records=()))
            await link.report(reported_state(number))

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert told == ["back", "back"]
    messages = [each.getMessage() for each in caplog.records]
    assert messages.count("the fleet is out of reach: the fleet failed (500)") == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_that_is_refused_for_what_is_in_it_says_nothing_of_the_way(status: int) -> None:
    class Choosy(MemoryLink):
        async def report(self, reported: ReportedState) -> None:
            raise LinkRefused("too large", status=status)

    async def run() -> None:
        link = ObservedLink(Choosy(MemoryFleet()), clock=SteppingClock(), explain=lambda: "")
        with pytest.raises(LinkRefused):
            await link.report(reported_state(1))
        assert link.condition == LinkCondition()

    asyncio.run(run())


def test_what_the_device_knows_itself_explains_a_failure() -> None:
    async def run() -> None:
        fleet = MemoryFleet(refusal="unknown certificate")
        link = ObservedLink(MemoryLink(fleet), clock=SteppingClock(), explain=lambda: "the certificate expired")
        with pytest.raises(LinkRefused):
            await link.next_desired(0)
        assert link.condition.error == "the certificate expired"

    asyncio.run(run())
