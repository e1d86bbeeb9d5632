"""The admin port of a real fleet: who may do what, and what everybody gets who may not."""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from edgeward_fleet import app
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.dashboard.install import ROUTERS as DASHBOARD
from support.fleet import PASSWORD, Fleet, MovableClock, in_thread, make_settings, running_fleet
from support.link_fleet import open_fleet
from support.roles import CERTIFIED, DESCRIPTION, NEEDS, OPEN, offered

CALLERS = [None, *Role]


@pytest.fixture(scope="module")
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, clock: MovableClock) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), clock, logins_per_minute=1000) as running:
        yield running


def routes(fleet: Fleet) -> dict[str, dict[str, dict[str, object]]]:
    document = fleet.client(None).get("/openapi.json").json()
    return {
        f"{method.upper()} {path}": operation["responses"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_has_a_row_here(fleet: Fleet) -> None:
    assert set(routes(fleet)) == set(NEEDS)


def test_no_port_answers_to_anything_that_has_no_row(tmp_path: Path) -> None:
    """Whether it is described or not, and however it came to the application."""
    build_device_app = app.build_device_app
    with open_fleet(tmp_path) as opened:
        built = {
            "admin": app.build_admin_app(opened.services),
            "device": build_device_app(opened.services),
            "enrolment": app.build_enrolment_app(opened.services),
        }
    found = {port: set(offered(each.routes)) for port, each in built.items()}
    pages = {row for router in DASHBOARD for row in offered(router.routes)}  # their rows: test_dashboard_pages.py
    assert found["admin"] == set(NEEDS) | pages | DESCRIPTION
    assert found["device"] == CERTIFIED
    assert found["enrolment"] == OPEN


def test_every_route_says_which_problems_it_may_answer_with(fleet: Fleet) -> None:
    for route, responses in routes(fleet).items():
        assert {"400", "413", "422"} <= set(responses), route
        assert ("401" in responses and "403" in responses) or NEEDS[route] is None, route
        for status, response in responses.items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (route, status)  # type: ignore[call-overload]


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: str(caller or "stranger"))
@pytest.mark.parametrize("route", NEEDS)
def test_a_route_lets_in_whoever_may_and_nobody_else(fleet: Fleet, route: str, caller: Role | None) -> None:
    method, _, template = route.partition(" ")
    path = template.removeprefix("/api/v1").replace("{sha256}", "0" * 64).replace("{version}", "1")
    for name in ("token_id", "username", "device_id", "name", "rollout_id"):
        path = path.replace("{" + name + "}", "nobody")
    needed = NEEDS[route]
    headers = {"Authorization": f"Bearer {fresh_token(fleet, caller)}"} if caller and path == "/logout" else None
    answer = fleet.client(caller).request(method, path, headers=headers)
    if needed is None or (caller is not None and caller.covers(needed)):
        assert answer.status_code not in (401, 403, 500), answer.text
    else:
        assert answer.status_code == (401 if caller is None else 403), answer.text
        assert_problem(answer, "expected a token" if caller is None else f"expected the role {needed} or higher")


def fresh_token(fleet: Fleet, role: Role) -> str:
    answer = fleet.client(None).post("/login", json={"username": role.value, "password": PASSWORD})
    return str(answer.json()["token"])


def assert_problem(answer: httpx.Response, *words: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "hint"}
    assert body["status"] == answer.status_code
    assert body["hint"]
    for word in words:
        assert word in body["detail"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make_account(fleet: Fleet, username: str, role: Role = Role.OPERATOR) -> str:
    body = {"username": username, "password": PASSWORD, "role": role.value}
    made = fleet.client(Role.ADMIN).post("/accounts", json=body)
    assert made.status_code == 201, made.text
    return str(fleet.client(None).post("/login", json={"username": username, "password": PASSWORD}).json()["token"])


def test_the_set_up_link_works_once(fleet: Fleet) -> None:
    assert fleet.ready.setup_url is not None
    token = fleet.ready.setup_url.partition("token=")[2]
    answer = fleet.client(None).post("/setup", json={"token": token, "username": "eve", "password": PASSWORD})
    assert answer.status_code == 401
    assert_problem(answer, "expected the valid set-up link, got one that was used or replaced")


def test_the_set_up_page_makes_the_admin_in_a_browser(tmp_path: Path) -> None:
    with in_thread(make_settings(tmp_path)) as ready:
        assert ready.setup_url is not None
        token = ready.setup_url.partition("token=")[2]
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        with httpx.Client(base_url=ready.admin_url, verify=trust, trust_env=False) as browser:
            page = browser.get("/setup", params={"token": '"><b>' + token})
            assert page.status_code == 200
            assert "<b>" + token not in page.text  # escaped
            assert "default-src 'none'" in page.headers["content-security-policy"]
            form = {"token": token, "username": "ada", "password": "short"}
            weak = browser.post("/setup", data=form)
            assert (weak.status_code, "expected 12 to 256 characters, got 5" in weak.text) == (422, True)
            form["password"] = PASSWORD
            assert browser.post("/setup", data=form).status_code == 201
            assert browser.post("/setup", data=form).status_code == 401
            login = browser.post("/api/v1/login", json={"username": "ada", "password": PASSWORD})
            assert login.json()["role"] == "admin"


def test_a_wrong_password_and_an_unknown_name_get_the_same_words(fleet: Fleet) -> None:
    make_account(fleet, "grace")
    answers = [
        fleet.client(None).post("/login", json={"username": name, "password": "not the password"})
        for name in ("grace", "nobody")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()


def test_logins_are_throttled(tmp_path: Path) -> None:
    with running_fleet(tmp_path, logins_per_minute=5) as fleet:
        answers = [
            fleet.client(None).post("/login", json={"username": "eve", "password": "wrong wrong"}) for _ in range(6)
        ]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert_problem(answers[-1], "expected at most 5 logins for one account a minute")
    assert int(answers[-1].headers["retry-after"]) > 0


def test_a_token_carries_at_most_its_makers_role_and_a_demotion_holds_at_once(fleet: Fleet) -> None:
    token = make_account(fleet, "alan", Role.APPROVER)
    stranger, admin = fleet.client(None), fleet.client(Role.ADMIN)
    above = stranger.post("/tokens", json={"name": "ci", "role": "admin"}, headers=bearer(token))
    assert above.status_code == 403
    assert_problem(above, "expected at most your own (approver), got admin")
    made = stranger.post("/tokens", json={"name": "ci", "role": "operator"}, headers=bearer(token)).json()
    assert made["token"].startswith("ew_")
    assert stranger.get("/me", headers=bearer(made["token"])).json() == {"username": "alan", "role": "operator"}
    admin.patch("/accounts/alan", json={"role": "viewer"})
    assert stranger.get("/me", headers=bearer(made["token"])).json()["role"] == "viewer"
    assert stranger.delete(f"/tokens/{made['token_id']}", headers=bearer(token)).status_code == 204
    assert stranger.get("/me", headers=bearer(made["token"])).status_code == 401


def test_a_token_of_somebody_else_cannot_be_ended(fleet: Fleet) -> None:
    token = make_account(fleet, "barbara")
    mine = fleet.client(Role.VIEWER).get("/tokens").json()["items"][0]["token_id"]
    assert fleet.client(None).delete(f"/tokens/{mine}", headers=bearer(token)).status_code == 404


def test_a_token_ends_no_token_with_a_higher_role_but_itself(fleet: Fleet) -> None:
    login = make_account(fleet, "mary", Role.OPERATOR)
    stranger = fleet.client(None)
    asked = {"name": "ci", "role": "viewer"}
    low, other = (stranger.post("/tokens", json=asked, headers=bearer(login)).json() for _ in range(2))
    mine = stranger.get("/tokens", headers=bearer(login)).json()["items"]
    high = next(each for each in mine if each["role"] == "operator")
    assert_problem(
        stranger.delete(f"/tokens/{high['token_id']}", headers=bearer(low["token"])),
        f"token {high['token_id']}: expected one with at most your own role (viewer), got operator",
    )
    assert stranger.get("/me", headers=bearer(login)).status_code == 200
    assert stranger.delete(f"/tokens/{other['token_id']}", headers=bearer(low["token"])).status_code == 204
    assert stranger.delete(f"/tokens/{low['token_id']}", headers=bearer(low["token"])).status_code == 204


def test_a_token_expires(fleet: Fleet, clock: MovableClock) -> None:
    token = make_account(fleet, "donald")
    clock.advance(timedelta(hours=11))
    assert fleet.client(None).get("/me", headers=bearer(token)).status_code == 200
    clock.advance(timedelta(hours=2))
    answer = fleet.client(None).get("/me", headers=bearer(token))
    clock.advance(timedelta(hours=-13))
    assert answer.status_code == 401
    assert_problem(answer, "got one that has expired")


@pytest.mark.parametrize("change", [{"disabled": True}, {"password": "another set of words"}])
def test_disabling_or_a_new_password_ends_the_tokens(fleet: Fleet, change: dict[str, object]) -> None:
    name = f"frances-{len(change)}-{'d' if 'disabled' in change else 'p'}"
    token = make_account(fleet, name)
    assert fleet.client(Role.ADMIN).patch(f"/accounts/{name}", json=change).status_code == 200
    assert fleet.client(None).get("/me", headers=bearer(token)).status_code == 401
    again = fleet.client(None).post("/login", json={"username": name, "password": PASSWORD})
    assert again.status_code == 401


def test_one_changes_the_own_password_with_the_present_one(fleet: Fleet) -> None:
    token = make_account(fleet, "katherine")
    stranger = fleet.client(None)
    wrong = stranger.post("/me/password", json={"current": "no", "new": "x" * 9}, headers=bearer(token))
    assert wrong.status_code == 403
    new = "quite another set of words"
    right = stranger.post("/me/password", json={"current": PASSWORD, "new": new}, headers=bearer(token))
    assert right.status_code == 204
    assert stranger.get("/me", headers=bearer(token)).status_code == 401
    assert stranger.post("/login", json={"username": "katherine", "password": new}).status_code == 200


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "operator"}])
def test_the_last_admin_stays(fleet: Fleet, change: dict[str, object]) -> None:
    answer = fleet.client(Role.ADMIN).patch("/accounts/admin", json=change)
    assert answer.status_code == 409
    assert_problem(answer, "expected at least one active admin, this would leave none")
    assert fleet.client(Role.ADMIN).get("/me").json()["role"] == "admin"


def test_a_name_is_taken_once(fleet: Fleet) -> None:
    body = {"username": "viewer", "password": PASSWORD, "role": "viewer"}
    answer = fleet.client(Role.ADMIN).post("/accounts", json=body)
    assert answer.status_code == 409
    assert_problem(answer, "account 'viewer': expected a new name, there is one already")


def test_accounts_come_in_pages(fleet: Fleet) -> None:
    admin = fleet.client(Role.ADMIN)
    first = admin.get("/accounts", params={"limit": 2}).json()
    assert [each["username"] for each in first["items"]] == sorted(each["username"] for each in first["items"])
    rest = admin.get("/accounts", params={"limit": 1000, "after": first["next"]}).json()
    assert rest["next"] is None
    assert {"admin", "viewer"} <= {each["username"] for each in first["items"] + rest["items"]}


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        ("GET", "/nowhere", b"", 404, "GET /api/v1/nowhere: expected a path of this port"),
        ("PUT", "/login", b"", 405, "Method Not Allowed"),
        ("POST", "/login", b"{", 400, "expected JSON"),
        ("POST", "/login", b"[]", 422, "body:"),
        ("POST", "/login", b'{"username":1}', 422, "username: expected a valid string; password: expected a value"),
        ("POST", "/login", b" " * (2 << 20) + b"{}", 413, "expected at most 2097152 bytes"),
        ("GET", "/audit?limit=0", b"", 422, "limit: expected greater than or equal to 1"),
        ("GET", "/audit?limit=99999999", b"", 422, "limit: expected less than or equal to 1000"),
        ("GET", f"/audit?after={10**20}", b"", 422, "after: expected less than or equal to"),
        ("GET", f"/devices/d-1/events?before={10**20}", b"", 422, "before: expected less than or equal to"),
        ("GET", "/rollouts?after=0", b"", 422, "after: Value error, expected a time such as 2026-11-23T22:00:00Z"),
        ("GET", "/records?kind=a&kind=b", b"", 422, "kind: expected one value, got 2"),
        ("GET", "/rollouts?after=2026-11-23T00:00:00", b"", 422, "after: Input should have timezone info"),
        ("GET", "/devices?state=asleep", b"", 422, "state: expected 'online'"),
    ],
)
def test_bad_input_gets_one_clear_line(
    fleet: Fleet, method: str, path: str, content: bytes, status: int, words: str
) -> None:
    answer = fleet.client(Role.ADMIN).request(
        method, path, content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert_problem(answer, words)


@pytest.mark.parametrize(
    ("path", "methods"), [("/me", "GET"), ("/tokens", "GET, POST"), (f"/artifacts/{'0' * 64}", "GET, PUT")]
)
def test_a_wrong_method_is_told_the_right_ones(fleet: Fleet, path: str, methods: str) -> None:
    answer = fleet.client(None).patch(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_a_body_that_hides_its_length_is_cut_off(fleet: Fleet) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    answer = fleet.client(Role.ADMIN).post("/login", content=endless())
    assert answer.status_code == 413
    assert_problem(answer, "expected at most 2097152 bytes")


def test_a_problem_never_repeats_a_password(fleet: Fleet) -> None:
    body = {"username": "x" * 99, "password": "secret-" * 200}
    assert "secret-" not in fleet.client(None).post("/login", json=body).text


def test_every_answer_carries_the_standard_headers(fleet: Fleet) -> None:
    for answer in (fleet.client(None).get("/health"), fleet.client(None).get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_the_audit_log_tells_who_did_what_from_where(fleet: Fleet) -> None:
    make_account(fleet, "radia")
    entries: list[dict[str, object]] = []
    after: int | None = 0
    while after is not None:
        page = fleet.client(Role.VIEWER).get("/audit", params={"after": after, "limit": 10}).json()
        entries += page["items"]
        after = page["next"]
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))
    made = next(entry for entry in entries if entry["subject"] == "radia")
    assert (made["actor"], made["address"], made["action"]) == ("admin", "127.0.0.1", "account.create")
    assert {"ca.create", "account.set_up", "account.login"} <= {str(entry["action"]) for entry in entries}
    assert PASSWORD not in json.dumps(entries)


def test_old_tls_is_refused(fleet: Fleet) -> None:
    context = fleet.tls()
    context.set_ciphers("ALL:@SECLEVEL=0")
    port = int(fleet.ready.admin_url.rpartition(":")[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")
