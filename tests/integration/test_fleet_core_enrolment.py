"""Devices of a real fleet over real TLS: in with a token, out within one request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward_contract.artifact import DeviceId
from edgeward_contract.topics import CERTIFICATE, ENROL, desired_path
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.clock import utc_now
from edgeward_fleet.enrolment import authority, ca, passphrase
from edgeward_fleet.opening import opened
from support.fleet import (
    PASSWORD,
    EnrolledDevice,
    Fleet,
    MovableClock,
    make_settings,
    private_pem,
    running_fleet,
    signing_request,
)

NOT_LET_IN = (httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError, httpx.WriteError)
NOW = desired_path(0, 0)


@pytest.fixture(scope="module")
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, clock: MovableClock) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), clock) as running:
        yield running


def csr() -> str:
    return signing_request(ec.generate_private_key(ec.SECP256R1()))


def enrol(fleet: Fleet, token: str, request: str | None = None) -> httpx.Response:
    return fleet.enrolment_client().post(ENROL, json={"token": token, "csr_pem": request or csr()})


def detail(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["detail"])


def events(fleet: Fleet, device_id: str) -> list[str]:
    found = fleet.client(Role.VIEWER).get(f"/devices/{device_id}").json()["events"]
    return [event["kind"] for event in found]


def test_a_device_enrols_and_is_let_in_with_its_certificate(fleet: Fleet) -> None:
    device = fleet.enrol("in-1", "north")
    assert fleet.device_client(device).get(NOW).status_code == 204
    shown = fleet.client(Role.VIEWER).get("/devices/in-1").json()
    assert (shown["site"], shown["state"], shown["last_address"]) == ("north", "online", "127.0.0.1")
    assert shown["certificate"]["revoked_at"] is None
    assert events(fleet, "in-1") == ["enrolled"]


def test_the_answer_has_all_that_a_device_needs(fleet: Fleet) -> None:
    token = fleet.device_token("south-wing")
    hardware = {"machine": "aarch64", "os": "Debian 12", "cpus": 4, "memory_bytes": 8 << 30, "new": "key"}
    answer = fleet.enrolment_client().post(ENROL, json={"token": token.token, "csr_pem": csr(), "hardware": hardware})
    body = answer.json()
    assert answer.status_code == 201
    assert set(body) == {"device_id", "site", "certificate_pem", "ca_pem", "device_url", "mqtt_url", "not_after"}
    assert body["device_id"] == token.device_id
    assert token.device_id.startswith("south-wing-")
    assert body["device_url"] == fleet.ready.device_url
    assert body["mqtt_url"] is None
    shown = fleet.client(Role.VIEWER).get(f"/devices/{token.device_id}").json()
    assert shown["hardware"] == {"machine": "aarch64", "os": "Debian 12", "cpus": 4, "memory_bytes": 8 << 30}


def test_a_token_works_once(fleet: Fleet) -> None:
    token = fleet.device_token("north", "once-1").token
    assert enrol(fleet, token).status_code == 201
    again = enrol(fleet, token)
    assert again.status_code == 409
    assert "token: expected an unused one, this one has enrolled once-1 already" in detail(again)
    assert "edgeward device token" in again.json()["hint"]


def test_who_lost_the_answer_asks_again_with_the_same_key(fleet: Fleet, clock: MovableClock) -> None:
    token, request = fleet.device_token("north", "lost-1").token, csr()
    first, second = (enrol(fleet, token, request) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    certificates = [x509.load_pem_x509_certificate(each.json()["certificate_pem"].encode()) for each in (first, second)]
    assert certificates[0].public_key() == certificates[1].public_key()
    assert enrol(fleet, token).status_code == 409  # another key
    assert events(fleet, "lost-1") == ["enrolled", "enrolled"]
    clock.advance(timedelta(hours=24, seconds=1))
    late = enrol(fleet, token, request)
    clock.advance(-timedelta(hours=24, seconds=1))
    assert late.status_code == 409


def test_an_answer_is_not_repeated_once_the_device_has_enrolled_anew(fleet: Fleet) -> None:
    token, request = fleet.device_token("north", "anew-1").token, csr()
    assert enrol(fleet, token, request).status_code == 201
    fleet.enrol("anew-1")
    answer = enrol(fleet, token, request)
    assert answer.status_code == 409
    assert "this one has enrolled anew-1 already" in detail(answer)


def test_of_many_who_use_a_token_at_once_exactly_one_wins(fleet: Fleet) -> None:
    token = fleet.device_token("north", "race-1").token
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda request: enrol(fleet, token, request), [csr() for _ in range(8)]))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert events(fleet, "race-1") == ["enrolled"]


def test_an_unknown_token_is_refused(fleet: Fleet) -> None:
    answer = enrol(fleet, "ewe_nothing")
    assert answer.status_code == 401
    assert "token: expected one that this fleet gave out, got an unknown one" in detail(answer)


def test_a_token_expires_after_its_time(fleet: Fleet, clock: MovableClock) -> None:
    token = fleet.device_token("north", "slow-1").token
    clock.advance(timedelta(hours=24, seconds=1))
    answer = enrol(fleet, token)
    clock.advance(-timedelta(hours=24, seconds=1))
    assert answer.status_code == 410
    assert "this one expired at" in detail(answer)


def test_a_bad_request_does_not_burn_the_token(fleet: Fleet) -> None:
    token = fleet.device_token("north", "bad-1").token
    wrong_key = signing_request(ec.generate_private_key(ec.SECP521R1()))
    for request, words in (("no request", "expected a PEM"), (wrong_key, "expected a key on the curve P-256")):
        answer = enrol(fleet, token, request)
        assert answer.status_code == 422
        assert words in detail(answer)
    assert enrol(fleet, token).status_code == 201


def test_a_huge_body_is_refused(fleet: Fleet) -> None:
    answer = fleet.enrolment_client().post(ENROL, json={"token": "x", "csr_pem": "x" * 100_000})
    assert answer.status_code == 413
    assert "expected at most 65536 bytes" in detail(answer)


def test_enrolment_is_rate_limited_by_address(tmp_path: Path) -> None:
    with running_fleet(tmp_path, enrolments_per_minute=3) as slow:
        answers = [enrol(slow, "ewe_guess") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert int(answers[-1].headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("site", "device_id", "words"),
    [
        ("North", None, "site: expected a name of"),
        ("north", "Bed 1", "device_id: expected a name of"),
        ("north", "../etc", "device_id: expected"),
    ],
)
def test_names_that_break_the_rule_are_refused(fleet: Fleet, site: str, device_id: str | None, words: str) -> None:
    answer = fleet.client(Role.OPERATOR).post("/device-tokens", json={"site": site, "device_id": device_id})
    assert answer.status_code == 422
    assert words in detail(answer)


def test_a_name_that_the_fleet_chooses_has_room_at_a_site_of_a_long_name(fleet: Fleet) -> None:
    answer = fleet.client(Role.OPERATOR).post("/device-tokens", json={"site": "s" * 56 + "-" + "t" * 7})
    assert (answer.status_code, answer.json()["device_id"][:57]) == (201, "s" * 56 + "-")


def test_another_token_for_the_device_ends_one_that_went_astray(fleet: Fleet) -> None:
    astray, other = fleet.device_token("north", "astray-1").token, fleet.device_token("north", "astray-2").token
    instead = fleet.device_token("north", "astray-1").token
    assert enrol(fleet, astray).status_code == 410
    assert [enrol(fleet, token).status_code for token in (instead, other)] == [201, 201]


def test_a_token_is_worth_what_its_maker_may_do_now(fleet: Fleet) -> None:
    admin = fleet.client(Role.ADMIN)
    made = admin.post("/accounts", json={"username": "leaver", "password": PASSWORD, "role": "operator"})
    assert made.status_code == 201
    token = admin.post("/login", json={"username": "leaver", "password": PASSWORD}).json()["token"]
    left = [
        admin.post(
            "/device-tokens",
            json={"site": "north", "device_id": f"left-{number}"},
            headers={"Authorization": f"Bearer {token}"},
        ).json()["token"]
        for number in range(2)
    ]
    for change in ({"role": "viewer"}, {"role": "operator", "disabled": True}):
        assert admin.patch("/accounts/leaver", json=change).status_code == 200
        answer = enrol(fleet, left[0])
        assert answer.status_code == 410
        assert "expected one of an operator, who made this one is none any more" in detail(answer)
    assert admin.patch("/accounts/leaver", json={"disabled": False}).status_code == 200
    assert enrol(fleet, left[1]).status_code == 201


def test_a_token_comes_with_the_command_to_type(fleet: Fleet) -> None:
    body = fleet.client(Role.OPERATOR).post("/device-tokens", json={"site": "north", "expires_in_h": 1}).json()
    assert body["command"] == (
        f"edgeward-agent enrol --fleet {fleet.ready.enrolment_url} --token {body['token']}"
        f" --ca-fingerprint {fleet.ready.ca_fingerprint}"
    )


def test_a_revoked_device_is_out_with_its_next_request_on_the_same_connection(fleet: Fleet) -> None:
    device = fleet.enrol("out-1")
    link = fleet.device_client(device)
    assert link.get(NOW).status_code == 204
    revoked = fleet.client(Role.ADMIN).post("/devices/out-1/revoke", json={"reason": "stolen"})
    assert revoked.json()["state"] == "revoked"
    answer = link.get(NOW)
    assert answer.status_code == 403
    assert "device out-1: expected a device in good standing, it was revoked" in detail(answer)
    assert answer.json()["hint"].startswith("A revoked name is never used again")
    assert events(fleet, "out-1") == ["revoked", "enrolled"]
    assert fleet.client(Role.ADMIN).post("/devices/out-1/revoke").status_code == 409


def test_a_parked_poll_of_a_revoked_device_is_cut(fleet: Fleet) -> None:
    device = fleet.enrol("parked-1")
    link = fleet.device_client(device)
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(link.get, desired_path(0, 55), timeout=60)
        wait_until_seen(fleet, "parked-1")
        began = time.monotonic()
        fleet.client(Role.ADMIN).post("/devices/parked-1/revoke")
        answer = poll.result(timeout=5)
    assert answer.status_code == 403
    assert time.monotonic() - began < 5


def wait_until_seen(fleet: Fleet, device_id: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if fleet.client(Role.VIEWER).get(f"/devices/{device_id}").json()["last_seen_at"]:
            return
        time.sleep(0.02)
    raise AssertionError(f"expected {device_id} to be seen")


def test_a_revoked_name_is_never_used_again(fleet: Fleet) -> None:
    fleet.enrol("dead-1")
    earlier = fleet.device_token("north", "dead-1").token
    fleet.client(Role.ADMIN).post("/devices/dead-1/revoke")
    later = fleet.client(Role.OPERATOR).post("/device-tokens", json={"site": "north", "device_id": "dead-1"})
    for answer in (later, enrol(fleet, earlier)):
        assert answer.status_code == 409
        assert "expected a device in good standing, it was revoked" in detail(answer)


def test_a_device_stays_at_its_site(fleet: Fleet) -> None:
    fleet.enrol("home-1", "north")
    answer = fleet.client(Role.OPERATOR).post("/device-tokens", json={"site": "south", "device_id": "home-1"})
    assert answer.status_code == 409
    assert "expected the site north it is enrolled at, got south" in detail(answer)


def test_who_enrols_again_ends_the_certificate_before(fleet: Fleet) -> None:
    first = fleet.enrol("again-1")
    old_link = fleet.device_client(first)
    assert old_link.get(NOW).status_code == 204
    second = fleet.enrol("again-1")
    assert fleet.device_client(second).get(NOW).status_code == 204
    answer = old_link.get(NOW)
    assert answer.status_code == 403
    assert "this one was revoked: enrolled again" in detail(answer)


def renewed(fleet: Fleet, device: EnrolledDevice) -> EnrolledDevice:
    """The device with a new key and the certificate that a renewal gave it."""
    key = ec.generate_private_key(ec.SECP256R1())
    answer = fleet.device_client(device).post(CERTIFICATE, json={"csr_pem": signing_request(key)})
    assert answer.status_code == 200, answer.text
    folder = device.key_file.parent
    number = len(list(folder.iterdir()))
    key_file, certificate_file = folder / f"{number}.key", folder / f"{number}.pem"
    key_file.write_bytes(private_pem(key))
    certificate_file.write_text(answer.json()["certificate_pem"])
    return EnrolledDevice(
        device_id=device.device_id,
        site=device.site,
        key_file=key_file,
        certificate_file=certificate_file,
        ca_file=device.ca_file,
        device_url=device.device_url,
    )


def test_a_renewal_gives_a_new_certificate_and_leaves_the_present_one_good(fleet: Fleet) -> None:
    first = fleet.enrol("renew-1")
    second = renewed(fleet, first)
    assert fleet.device_client(second).get(NOW).status_code == 204
    assert fleet.device_client(first).get(NOW).status_code == 204  # the new one may not have arrived
    third = renewed(fleet, second)
    assert fleet.device_client(third).get(NOW).status_code == 204
    superseded = fleet.device_client(first).get(NOW)
    assert superseded.status_code == 403
    assert "superseded by a renewal" in detail(superseded)
    certificate = x509.load_pem_x509_certificate(third.certificate_file.read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=renew-1"
    assert events(fleet, "renew-1") == ["renewed", "renewed", "enrolled"]


def test_a_device_that_renews_again_and_again_is_told_when_to_come_back(fleet: Fleet) -> None:
    device = fleet.enrol("hasty-1")
    request = {"csr_pem": signing_request(ec.generate_private_key(ec.SECP256R1()))}
    link = fleet.device_client(device)
    answers = [link.post(CERTIFICATE, json=request) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert "expected at most 10 renewals of one device an hour, got more" in detail(answers[-1])
    assert 0 < int(answers[-1].headers["retry-after"]) <= 360
    assert events(fleet, "hasty-1").count("renewed") == 10
    assert renewed(fleet, fleet.enrol("calm-1")).device_id == "calm-1"


def test_an_expired_certificate_is_out_on_an_open_connection_too(fleet: Fleet, clock: MovableClock) -> None:
    device = fleet.enrol("old-1")
    link = fleet.device_client(device)
    clock.advance(timedelta(days=31))
    answer = link.get(NOW)
    clock.advance(-timedelta(days=31))
    assert answer.status_code == 403
    assert "expected a valid certificate, it has expired" in detail(answer)
    assert "--device-id NAME`; without the name it becomes another device" in answer.json()["hint"]


def test_a_device_that_was_seen_while_the_clock_ran_ahead_is_seen_again(fleet: Fleet, clock: MovableClock) -> None:
    """Otherwise it would be online for as long as the clock was ahead, dead or alive."""
    link = fleet.device_client(fleet.enrol("ahead-1"))
    clock.advance(timedelta(days=1))
    assert link.get(NOW).status_code == 204
    clock.advance(-timedelta(days=1))
    request = {"csr_pem": signing_request(ca.new_key())}
    assert link.post(CERTIFICATE, json=request).status_code == 200  # who was let in a moment ago is not looked up
    assert link.get(NOW).status_code == 204
    seen = datetime.fromisoformat(fleet.client(Role.VIEWER).get("/devices/ahead-1").json()["last_seen_at"])
    assert abs(clock() - seen) < timedelta(hours=1)


def test_without_a_certificate_of_this_fleet_nobody_gets_to_speak(fleet: Fleet, tmp_path: Path) -> None:
    device = fleet.enrol("only-1")
    stranger = ca.new_root(utc_now())
    key = ca.new_key()
    certificate = ca.device_certificate(stranger, key.public_key(), DeviceId("only-1"), utc_now(), timedelta(days=1))
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "forged.pem").write_text(ca.pem(certificate))
    forged = EnrolledDevice(
        device_id="only-1",
        site="north",
        key_file=tmp_path / "key.pem",
        certificate_file=tmp_path / "forged.pem",
        ca_file=device.ca_file,
        device_url=device.device_url,
    )
    with pytest.raises(NOT_LET_IN):
        fleet.device_client(forged).get(NOW)
    with (
        httpx.Client(base_url=fleet.ready.device_url, verify=fleet.tls(), trust_env=False) as bare,
        pytest.raises(NOT_LET_IN),
    ):
        bare.get(NOW)


def test_the_servers_own_certificate_does_not_pass_for_a_device(fleet: Fleet) -> None:
    context = fleet.tls()
    context.load_cert_chain(fleet.folder / "fleet" / "server.pem")
    with (
        httpx.Client(base_url=fleet.ready.device_url, verify=context, trust_env=False) as impostor,
        pytest.raises(NOT_LET_IN),
    ):
        impostor.get(NOW)


def test_a_certificate_that_the_ca_signed_but_the_fleet_did_not_record_is_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    key = ca.new_key()
    with opened(settings) as database:
        secret = passphrase.find(os.environ, settings.data_dir, make=True)
        known = database.run_sync(lambda session: authority.load_or_create(session, secret, utc_now()))
    certificate = known.issue_device(key.public_key(), DeviceId("ghost"), utc_now(), timedelta(days=1))
    (tmp_path / "ghost.key").write_bytes(private_pem(key))
    (tmp_path / "ghost.pem").write_text(ca.pem(certificate))
    with running_fleet(tmp_path) as fleet:
        ghost = EnrolledDevice(
            device_id="ghost",
            site="north",
            key_file=tmp_path / "ghost.key",
            certificate_file=tmp_path / "ghost.pem",
            ca_file=fleet.ca_file,
            device_url=fleet.ready.device_url,
        )
        answer = fleet.device_client(ghost).get(NOW)
    assert answer.status_code == 403
    assert "expected a certificate that this fleet gave out, got another" in detail(answer)


def test_devices_come_in_pages_by_site_and_by_state(tmp_path: Path) -> None:
    clock = MovableClock()
    with running_fleet(tmp_path, clock) as fleet:
        for device_id, site in (("a", "north"), ("b", "north"), ("c", "south"), ("d", "south"), ("e", "south")):
            device = fleet.enrol(device_id, site)
            if device_id != "e":
                assert fleet.device_client(device).get(NOW).status_code == 204
            clock.advance(timedelta(minutes=8))
        fleet.client(Role.ADMIN).post("/devices/a/revoke")
        clock.advance(timedelta(minutes=-14))
        states = {"a": "revoked", "b": "offline", "c": "late", "d": "online", "e": "never"}
        assert_states(fleet, states)
        assert list(listed(fleet, site="south")) == ["c", "d", "e"]
        page = fleet.client(Role.VIEWER).get("/devices", params={"limit": 2}).json()
        assert page["next"] == "b"
        assert list(listed(fleet, after="b")) == ["c", "d", "e"]
        clock.advance(timedelta(minutes=-20))  # it was ahead: what it noted proves nothing of now
        assert_states(fleet, {"a": "revoked", "b": "online", "c": "late", "d": "offline", "e": "never"})
        assert fleet.device_client(fleet.enrol("d", "south")).get(NOW).status_code == 204
        assert list(listed(fleet, state="online")) == ["b", "d"]


def assert_states(fleet: Fleet, states: dict[str, str]) -> None:
    """As each device is shown, and as the list is asked for by them."""
    everybody = listed(fleet)
    assert {each: str(everybody[each]["state"]) for each in everybody} == states
    for state in states.values():
        assert list(listed(fleet, state=state)) == [name for name, has in states.items() if has == state]


def listed(fleet: Fleet, **query: str) -> dict[str, dict[str, object]]:
    page = fleet.client(Role.VIEWER).get("/devices", params=query).json()
    return {each["device_id"]: each for each in page["items"]}
