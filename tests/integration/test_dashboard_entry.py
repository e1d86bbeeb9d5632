"""In and out of the dashboard over HTTP: set-up, log-in, the end of sessions, and forms that are not ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from edgeward_fleet.accounts.model import Role
from support.fleet import PASSWORD, Fleet, MovableClock, in_thread, make_settings, running_fleet
from support.web import form_of, log_in, web_client

COOKIE = "__Host-edgeward-session"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def fleet(tmp_path: Path, clock: MovableClock) -> Iterator[Fleet]:
    with running_fleet(tmp_path, clock) as running:
        yield running


@pytest.fixture
def browser(fleet: Fleet) -> Iterator[httpx.Client]:
    with web_client(fleet) as client:
        yield client


@contextmanager
def before_set_up(folder: Path) -> Iterator[tuple[httpx.Client, str]]:
    """A browser at a fleet without an admin, and the token of the link."""
    with in_thread(make_settings(folder)) as ready:
        assert ready.setup_url is not None
        address, _, token = ready.setup_url.partition("?token=")
        with httpx.Client(base_url=address.removesuffix("/setup"), verify=False, trust_env=False) as client:
            yield client, token


def test_the_set_up_link_makes_an_admin_who_is_logged_in_at_once(tmp_path: Path) -> None:
    with before_set_up(tmp_path) as (client, token):
        assert 'name="token" value="' + token in client.get("/setup", params={"token": token}).text
        weak = client.post("/setup", data={"token": token, "username": "ada", "password": "short"})
        assert (weak.status_code, "expected 12 to 256 characters, got 5" in weak.text) == (422, True)
        assert 'value="ada"' in weak.text and "short" not in re.findall('value="([^"]*)"', weak.text)
        made = client.post("/setup", data={"token": token, "username": "ada", "password": PASSWORD})
        assert (made.status_code, "ada is the admin" in made.text) == (201, True)
        assert client.get("/").status_code == 200
        again = client.post("/setup", data={"token": token, "username": "eve", "password": PASSWORD})
        assert (again.status_code, "was used or replaced" in again.text) == (401, True)


def test_without_a_session_every_page_leads_to_the_log_in_and_back(browser: httpx.Client) -> None:
    for path in ("/", "/devices?site=north", "/devices/bed-1", "/models", "/rollouts", "/rollouts/r-x/live", "/audit"):
        answer = browser.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login"), path
    assert browser.get("/devices?site=north").headers["location"] == "/login?next=%2Fdevices%3Fsite%3Dnorth"
    part = browser.get(
        "/rollouts/r-x/live", headers={"HX-Request": "true", "HX-Current-URL": "https://h/rollouts/r-x?standing=FAILED"}
    )
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login?next=%2Frollouts%2Fr-x%3Fstanding%3DFAILED")


def test_a_log_in_gives_a_cookie_that_scripts_and_neighbours_cannot_have(browser: httpx.Client) -> None:
    answer = log_in(browser, Role.VIEWER, then="/audit")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
    cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith(COOKIE))
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert browser.get("/audit").status_code == 200
    assert browser.get("/login").status_code == 303  # who is in already goes on


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "\n//e"]
)
def test_a_log_in_never_leads_to_another_site(browser: httpx.Client, target: str) -> None:
    assert log_in(browser, Role.VIEWER, then=target).headers["location"] == "/"


def test_a_wrong_password_is_refused_with_the_reason_and_the_name_kept(browser: httpx.Client) -> None:
    form = form_of(browser.get("/login").text)
    answer = browser.post("/login", data={"form": form, "username": "viewer", "password": "not the password"})
    assert (answer.status_code, "Expected a known username with its password" in answer.text) == (401, True)
    assert 'value="viewer"' in answer.text
    assert COOKIE not in browser.cookies


def test_a_log_in_form_of_another_site_is_refused(browser: httpx.Client) -> None:
    data = {"username": "viewer", "password": PASSWORD, "form": "0" * 64}
    browser.get("/login")
    assert browser.post("/login", data=data).status_code == 403
    good = {**data, "form": form_of(browser.get("/login").text)}
    assert browser.post("/login", data=good, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.post("/login", data=good).status_code == 303


def test_a_log_in_form_is_good_the_next_morning_and_in_a_second_tab(browser: httpx.Client) -> None:
    shown = browser.get("/login")
    (key,) = (each for each in shown.headers.get_list("set-cookie") if each.startswith("__Host-edgeward-form"))
    assert "max-age" not in key.lower() and "expires" not in key.lower()
    data = {"form": form_of(shown.text), "username": "viewer", "password": PASSWORD}
    assert [browser.post("/login", data=data).status_code for _ in range(2)] == [303, 303]


def test_too_many_tries_have_to_wait(tmp_path: Path) -> None:
    with running_fleet(tmp_path, logins_per_minute=6) as fleet, web_client(fleet) as client:
        form = form_of(client.get("/login").text)
        data = {"form": form, "username": "viewer", "password": "not the password"}
        answers = [client.post("/login", data=data) for _ in range(7)]
        assert answers[-1].status_code == 429
        assert "Expected at most 6 logins for one account a minute" in answers[-1].text


def test_a_log_out_ends_the_session_on_the_fleet_too(browser: httpx.Client) -> None:
    log_in(browser, Role.OPERATOR)
    cookies = dict(browser.cookies)
    form = form_of(browser.get("/").text)
    assert browser.post("/logout", data={"form": "0" * 64}).status_code == 403
    assert browser.post("/logout", data={"form": form}).status_code == 303
    browser.cookies.update(cookies)  # somebody kept a copy
    assert browser.get("/").status_code == 303


def test_a_session_ends_when_nobody_uses_it(browser: httpx.Client, clock: MovableClock) -> None:
    log_in(browser, Role.VIEWER)
    for _ in range(3):
        clock.advance(timedelta(minutes=14))
        assert browser.get("/").status_code == 200  # use keeps it
    for _ in range(2):
        clock.advance(timedelta(minutes=7))
        assert browser.get("/live", headers={"X-Edgeward-Poll": "1"}).status_code == 200  # a poll does not
    clock.advance(timedelta(minutes=1))
    assert browser.get("/live", headers={"X-Edgeward-Poll": "1"}).status_code == 303
    assert "The session ended after 15 minutes without use." in browser.get("/login?next=%2F").text


def test_a_session_ends_after_twelve_hours_however_busy(browser: httpx.Client, clock: MovableClock) -> None:
    log_in(browser, Role.VIEWER)
    for _ in range(71):
        clock.advance(timedelta(minutes=10))
        assert browser.get("/live").status_code == 200
    clock.advance(timedelta(minutes=10))
    assert browser.get("/").status_code == 303


def test_what_ends_an_account_ends_its_sessions(browser: httpx.Client, fleet: Fleet) -> None:
    log_in(browser, Role.OPERATOR)
    assert fleet.client(Role.ADMIN).patch("/accounts/operator", json={"role": "viewer"}).status_code == 200
    assert "viewer on this fleet" in browser.get("/").text  # a demotion holds at once
    assert fleet.client(Role.ADMIN).patch("/accounts/operator", json={"disabled": True}).status_code == 200
    assert browser.get("/").status_code == 303


def test_a_log_in_stands_in_the_audit_log_with_its_address(browser: httpx.Client, fleet: Fleet) -> None:
    log_in(browser, Role.VIEWER)
    entries = fleet.client(Role.VIEWER).get("/audit?limit=1000").json()["items"]
    last = [entry for entry in entries if entry["action"] == "account.login"][-1]
    assert (last["actor"], last["address"]) == ("viewer", "127.0.0.1")


def test_the_look_is_a_cookie_of_this_browser(browser: httpx.Client) -> None:
    assert 'data-theme="auto"' in browser.get("/login").text
    answer = browser.post("/theme", data={"theme": "dark", "back": "//evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert 'data-theme="dark"' in browser.get("/login").text
    browser.post("/theme", data={"theme": "purple", "back": "/"})
    assert 'data-theme="auto"' in browser.get("/login").text
