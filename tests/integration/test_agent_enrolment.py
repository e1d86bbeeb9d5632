"""Enrolment and renewal: against a real fleet where that can happen, against one that misbehaves where it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgeward_agent.clock import Clock, SystemClock
from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_agent.health import clock_trusted
from edgeward_agent.identity import tls
from edgeward_agent.identity.enrolment import EnrolmentFailed, Invitation, enrol
from edgeward_agent.identity.keys import IdentityDamaged, load_identity
from edgeward_agent.identity.renewal import Renewal
from edgeward_agent.link.https import hello
from edgeward_agent.link.wire import Wire
from edgeward_contract.schema import parse_json
from edgeward_contract.topics import CERTIFICATE
from support.agent import Agent, until
from support.fleet import Fleet, running_fleet
from support.pki import TestCa
from support.stub_fleet import CutOff, Reply, Request, StubFleet, problem

MINUTES = timedelta(minutes=1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "state")


def test_a_token_makes_a_device_whose_identity_the_fleet_takes(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token("ward", "bed-7")
    done = agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device_id"] == "bed-7"
    identity = load_identity(agent.state_dir / "identity")
    assert (identity.facts.site, identity.facts.enrolment_url) == ("ward", token.enrolment_url)
    wire = Wire(identity.facts.device_url, tls.mutual(identity), timeout_s=10)
    assert wire.request_blocking(hello()).status in (200, 204)
    wire.close()


def test_the_fingerprint_may_have_colons_and_capitals(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token()
    digits = token.ca_fingerprint.removeprefix("sha256:").upper()
    spelt = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    assert agent.enrol(token.enrolment_url, token.token, spelt).returncode == 0


def test_a_token_works_once(fleet: Fleet, agent: Agent, tmp_path: Path) -> None:
    token = fleet.device_token()
    assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0
    again = Agent(tmp_path / "another").enrol(token.enrolment_url, token.token, token.ca_fingerprint)
    assert again.returncode == 4
    assert "(409)" in again.stderr and "Traceback" not in again.stderr
    assert list((tmp_path / "another/identity").iterdir()) == []  # no key waits for an answer that will not come


def test_a_token_that_nobody_gave_out_is_refused(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token()
    done = agent.enrol(token.enrolment_url, "not-a-token", token.ca_fingerprint)
    assert done.returncode == 4 and done.stderr.startswith("error: fleet at localhost:")


def test_a_wrong_fingerprint_ends_it_before_the_token_is_shown(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token()
    done = agent.enrol(token.enrolment_url, token.token, "sha256:" + "00" * 32)
    assert done.returncode == 1
    line = f"error: CA fingerprint of {token.enrolment_url}: expected sha256:{'00' * 32}, got {token.ca_fingerprint}\n"
    assert done.stderr.startswith(line)
    assert not (agent.state_dir / "identity").exists()
    assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0  # it is not used up


def test_a_fleet_that_is_down_is_one_clear_line(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"https://127.0.0.1:{nobody.getsockname()[1]}"
    done = agent.enrol(url, "t", "ab" * 32)
    assert done.returncode == 3
    where = url.removeprefix("https://")
    assert done.stderr.startswith(
        f"error: fleet at {where}: expected an answer, got connection refused\n  Check the network"
    )
    assert "the token stays good for it" in done.stderr and "retries by itself" not in done.stderr


@pytest.mark.parametrize("url", ["http://fleet.example:8445", "fleet.example:8445", "nonsense", "https://host:port"])
def test_an_address_that_is_none_is_a_usage_error(agent: Agent, url: str) -> None:
    done = agent.enrol(url, "t", "ab" * 32)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --fleet: expected an address that begins with https://, such as ")
    assert "`edgeward device token`" in done.stderr


def test_the_device_port_is_not_the_enrolment_port(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token()
    done = agent.enrol(fleet.ready.device_url, token.token, token.ca_fingerprint)
    assert done.returncode == 3
    assert "expected an answer, got none: the connection was closed\n" in done.stderr
    assert "--fleet is the enrolment address (port 8445" in done.stderr


def test_a_full_disk_is_noticed_before_the_token_is_shown(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token()
    options = ("--fleet", token.enrolment_url, "--token", token.token, "--ca-fingerprint", token.ca_fingerprint)
    command = [sys.executable, "-m", "edgeward_agent", "enrol", "--state-dir", str(agent.state_dir), *options]
    full = ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command]  # no file may grow: as if there were no room
    done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "identity: expected room for a key and a certificate, got: File too large\n" in done.stderr
    assert "the token was not used" in done.stderr
    assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0


def test_who_lost_the_answer_asks_again_with_the_same_key(tmp_path: Path) -> None:
    keys: list[str] = []

    async def asked(stub: StubFleet) -> None:
        invitation = Invitation(fleet_url=stub.enrolment_url, token="good-token", ca_fingerprint=stub.ca.fingerprint)

        async def cut_once(request: Request) -> Reply:
            if request.method == "POST":
                csr = x509.load_pem_x509_csr(parse_json(request.body).text("csr_pem", max_length=10_000).encode())
                keys.append(csr.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
                if len(keys) == 1:
                    raise CutOff
            return await stub.enrolment(request)

        stub.override = cut_once
        with pytest.raises(LinkLost) as lost:
            await asyncio.to_thread(enrol, tmp_path / "identity", invitation)
        assert "run the same command again" in lost.value.hint
        await asyncio.to_thread(enrol, tmp_path / "identity", invitation)

    run_with_stub(tmp_path, asked)
    assert len(keys) == 2 and keys[0] == keys[1]
    names = {path.name for path in (tmp_path / "identity").iterdir()}
    assert names == {"device.key", "device.pem", "ca.pem", "identity.json"}


def test_an_enrolled_device_is_not_enrolled_again_by_accident(fleet: Fleet, agent: Agent) -> None:
    first, second = fleet.device_token("north", "bed-1"), fleet.device_token("north", "bed-2")
    assert agent.enrol(first.enrolment_url, first.token, first.ca_fingerprint).returncode == 0
    refused = agent.enrol(second.enrolment_url, second.token, second.ca_fingerprint)
    assert refused.returncode == 1
    assert "found the identity of bed-1\n  Add --force to replace it" in refused.stderr
    assert agent.enrol(second.enrolment_url, second.token, second.ca_fingerprint, "--force").returncode == 0
    assert load_identity(agent.state_dir / "identity").facts.device_id == "bed-2"
    assert (agent.state_dir / "identity/previous.key").exists()


def test_the_admin_port_is_not_the_enrolment_port(fleet: Fleet, agent: Agent) -> None:
    token = fleet.device_token()
    done = agent.enrol(fleet.ready.admin_url, token.token, token.ca_fingerprint)
    assert done.returncode == 1
    assert "Check that --fleet is the enrolment address" in done.stderr


def test_answers_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    """What a broken proxy, or somebody in between, could say."""
    stranger = TestCa(name="somebody else's")

    async def asked(stub: StubFleet) -> None:
        invitation = Invitation(fleet_url=stub.enrolment_url, token="good-token", ca_fingerprint=stub.ca.fingerprint)
        for reply, complaint in (
            (Reply(body=b"<html>"), "expected application/json"),
            (Reply(body=b"{}"), "expected a CA certificate, got: ca_pem"),
            (Reply(body=json.dumps({"ca_pem": "no"}).encode()), "expected a CA certificate, got: "),
            (Reply(body=json.dumps({"ca_pem": stranger.pem.decode()}).encode()), "CA fingerprint of"),
        ):
            stub.override = answering(reply)
            with pytest.raises(Exception, match=complaint):
                await asyncio.to_thread(enrol, tmp_path / "identity", invitation)
        stub.override = None
        stub.ca.key = stranger.key  # it signs with a key that is not the CA's that we were told of
        with pytest.raises((EnrolmentFailed, LinkLost)):
            await asyncio.to_thread(enrol, tmp_path / "identity", invitation)

    run_with_stub(tmp_path, asked)
    assert not (tmp_path / "identity/device.pem").exists()


def test_a_renewed_certificate_is_used_from_then_on_and_the_old_pair_is_kept(tmp_path: Path) -> None:
    async def asked(stub: StubFleet) -> None:
        renewal, wire = renewing(stub, tmp_path)
        before = renewal.identity
        after = await renewal.renew()
        assert after.certificate.serial_number != before.certificate.serial_number
        assert after.certificate.public_key() != before.certificate.public_key()
        assert load_identity(tmp_path / "identity").certificate == after.certificate
        assert (tmp_path / "identity/previous.pem").exists()
        assert (await wire.request(hello())).status == 204
        wire.close()

    run_with_stub(tmp_path, asked)


@pytest.mark.parametrize("failure", ["refused", "cut", "foreign", "not taken"])
def test_a_renewal_that_fails_leaves_the_old_certificate(tmp_path: Path, failure: str) -> None:
    async def asked(stub: StubFleet) -> None:
        renewal, wire = renewing(stub, tmp_path)
        before = renewal.identity.certificate
        stub.override = failing(stub, failure)
        with pytest.raises((LinkLost, LinkRefused, IdentityDamaged)):
            await renewal.renew()
        assert renewal.identity.certificate == load_identity(tmp_path / "identity").certificate == before
        stub.override = None
        await renewal.renew()
        wire.close()

    run_with_stub(tmp_path, asked)


def test_the_task_renews_by_itself_when_the_time_has_come(tmp_path: Path) -> None:
    async def asked(stub: StubFleet) -> None:
        renewal, wire = renewing(stub, tmp_path, begins=-29 * 1440 * MINUTES, ends=1440 * MINUTES)
        task = asyncio.create_task(renewal.run())
        await asyncio.to_thread(lambda: until(lambda: renewal.identity.days_left(SystemClock().wall()) > 20))
        task.cancel()
        wire.close()

    run_with_stub(tmp_path, asked)


class FastClock(SystemClock):
    """Ahead of every other clock. It sleeps no time at all, and remembers how long it should have been; of so many
    sleeps the last has no end.
    """

    def __init__(self, ahead_days: float, sleeps: int = 1) -> None:
        self.ahead_s, self.passed_s = ahead_days * 86_400, 0.0
        self.slept: list[float] = []
        self.sleeps = sleeps

    def monotonic(self) -> float:
        return super().monotonic() + self.passed_s

    def wall(self) -> float:
        return super().wall() + self.passed_s + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self.sleeps:
            await asyncio.Event().wait()
        self.passed_s += seconds


def test_a_clock_that_runs_ahead_makes_no_haste_and_is_not_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def asked(stub: StubFleet) -> None:
        clock = FastClock(ahead_days=60, sleeps=6)
        renewal, wire = renewing(stub, tmp_path, clock=clock)
        assert clock_trusted(renewal, clock)  # so far nobody can tell
        task = asyncio.create_task(renewal.run())
        await asyncio.to_thread(lambda: until(lambda: len(clock.slept) == 6))
        task.cancel()
        hours = [seconds / 3600 for seconds in clock.slept]
        assert stub.seen.count(f"POST {CERTIFICATE}") == 6 and hours == pytest.approx([2, 4, 8, 16, 24, 24], abs=0.01)
        assert not clock_trusted(renewal, clock)
        clock.ahead_s = -clock.passed_s  # the fleet did not sleep with us
        assert clock_trusted(renewal, clock)
        wire.close()

    with caplog.at_level(logging.WARNING):
        run_with_stub(tmp_path, asked)
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert said[0] == "the clock is 61 days ahead of the fleet's, by the new certificate; set it"  # dated back by a day


def test_an_ordinary_renewal_is_left_alone_for_an_hour_and_the_clock_is_trusted(tmp_path: Path) -> None:
    async def asked(stub: StubFleet) -> None:
        clock = FastClock(ahead_days=0)
        renewal, wire = renewing(stub, tmp_path, begins=-29 * 1440 * MINUTES, ends=1440 * MINUTES, clock=clock)
        task = asyncio.create_task(renewal.run())
        await asyncio.to_thread(lambda: until(lambda: clock.slept))
        task.cancel()
        assert clock.slept[0] == pytest.approx(3600, abs=1) and clock_trusted(renewal, clock)
        wire.close()

    run_with_stub(tmp_path, asked)


def test_a_fleet_that_says_when_to_ask_for_a_certificate_again_is_heeded(tmp_path: Path) -> None:
    async def asked(stub: StubFleet) -> None:
        clock = FastClock(ahead_days=60)
        renewal, wire = renewing(stub, tmp_path, clock=clock)
        stub.override = answering(problem(429, "expected fewer renewals", retry_after="1800"))
        task = asyncio.create_task(renewal.run())
        await asyncio.to_thread(lambda: until(lambda: clock.slept))
        task.cancel()
        assert clock.slept[0] >= 1800
        wire.close()

    run_with_stub(tmp_path, asked)


def test_an_expired_certificate_is_said_in_one_line_and_serving_goes_on(tmp_path: Path) -> None:
    async def asked(stub: StubFleet) -> None:
        agent = Agent(tmp_path / "state")
        stub.ca.enrolled(agent.state_dir / "identity", stub.device_url, ends=-MINUTES)
        agent.start()
        status = await asyncio.to_thread(agent.ready)
        assert status.device.problem.startswith("the device certificate expired on ")
        assert status.device.certificate_days_left == -1
        link = await asyncio.to_thread(lambda: until(lambda: agent.status().link.error))
        assert link.startswith("the device certificate expired on ")
        assert agent.live()
        assert await asyncio.to_thread(agent.stop) == 0
        assert agent.log.count("the fleet is out of reach: the device certificate expired on ") == 1

    run_with_stub(tmp_path, asked)


def renewing(
    stub: StubFleet,
    folder: Path,
    *,
    begins: timedelta = -MINUTES,
    ends: timedelta = 1440 * 30 * MINUTES,
    clock: Clock | None = None,
) -> tuple[Renewal, Wire]:
    identity = stub.ca.enrolled(folder / "identity", stub.device_url, begins=begins, ends=ends)
    wire = Wire(stub.device_url, tls.mutual(identity), timeout_s=10)
    return Renewal(identity, wire, clock=clock or SystemClock(), timeout_s=10), wire


def failing(stub: StubFleet, failure: str) -> Callable[[Request], Awaitable[Reply]]:
    """How the fleet answers the request for a certificate, or the first question with the new one."""

    async def answer(request: Request) -> Reply:
        if failure == "refused":
            return problem(403, "the device is revoked")
        if failure == "cut":
            return problem(503, "restarting")
        if request.method == "GET":
            return problem(403, "this certificate is not known")
        ca = TestCa(name="somebody else's") if failure == "foreign" else stub.ca
        return stub.signed(request, ca)

    return answer


def answering(reply: Reply) -> Callable[[Request], Awaitable[Reply]]:
    async def answer(_: Request) -> Reply:
        return reply

    return answer


def run_with_stub(folder: Path, asked: Callable[[StubFleet], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), StubFleet(folder) as stub:
            await asked(stub)

    asyncio.run(run())
