"""What people do at the dashboard, in a real browser against a real fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, Route

from edgeward_contract.reported import UpdateState
from edgeward_contract.schema import JsonValue
from edgeward_fleet.accounts.model import Role
from support import scene
from support.browser import Visitor, logged_in, visitor, wait_until_shown
from support.fleet import PASSWORD, Fleet, MovableClock, in_thread, make_settings, running_fleet
from support.pretend import PretendDevice
from support.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Ward:
    """A fleet of three devices on version 1, and a rollout of version 2 whose canary has the offer."""

    fleet: Fleet
    devices: dict[str, PretendDevice]
    rollout: str
    canary: str


@pytest.fixture
def ward(browser: Browser, tmp_path: Path) -> Iterator[Ward]:
    with running_fleet(tmp_path) as fleet:
        devices = {name: PretendDevice.enrol(fleet, name) for name in ("bed-1", "bed-2", "bed-3")}
        for version in (1, 2):
            scene.push(fleet, version)
        scene.install(fleet, list(devices.values()), "wdbc-risk@1")
        phases = [scene.phase("canary", 33), scene.phase("everyone", 100)]
        rollout = scene.start(fleet, "wdbc-risk@2", phases=list(phases))
        (canary,) = scene.until_offered(fleet, rollout, 0)
        yield Ward(fleet=fleet, devices=devices, rollout=rollout, canary=canary)


def test_the_first_admin_comes_in_through_the_one_time_link(browser: Browser, tmp_path: Path) -> None:
    with in_thread(make_settings(tmp_path)) as ready, visitor(browser, ready.admin_url) as person:
        assert ready.setup_url is not None
        page = person.page
        page.goto(ready.setup_url)
        make_admin(page, "short but long?")
        wait_until_shown(page, "ada is the admin")
        page.get_by_role("link", name="Open the fleet").click()
        page.get_by_role("heading", name="Bring the first device in").wait_for()
        log_out(person)
        person.logs_in("ada", "short but long?")
        page.get_by_role("heading", level=1, name="Fleet").wait_for()
        log_out(person)
        person.has_no_complaint()
        page.goto(ready.setup_url)
        make_admin(page, "another good one")
        page.get_by_role("alert").get_by_text("Expected the valid set-up link, got one that was used").wait_for()


def make_admin(page: Page, password: str) -> None:
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Make the admin").click()


def log_out(person: Visitor) -> None:
    person.page.locator("details.menu summary").click()
    person.page.get_by_role("button", name="Log out").click()
    person.page.get_by_role("heading", name="Log in").wait_for()


def test_a_rollout_moves_without_a_reload_and_is_rolled_back(browser: Browser, ward: Ward) -> None:
    with logged_in(browser, ward.fleet, Role.OPERATOR) as person:
        page = person.page
        person.goes(f"/rollouts/{ward.rollout}")
        page.evaluate("window.notReloaded = true")
        sentence = page.locator(".sentence")
        sentence.get_by_text("Phase 'canary' (1 of 2): 0 of 1 device succeeded, 1 not heard of.").wait_for()
        ward.devices[ward.canary].step(UpdateState.DOWNLOADING, progress_percent=40)
        sentence.get_by_text("0 of 1 device succeeded, 1 at it").wait_for()
        ward.devices[ward.canary].take_all()
        sentence.get_by_text("Phase 'everyone' (2 of 2)").wait_for()
        wait_until_shown(page, "0 failures in 1 device bounds the failure rate at 95 % (95 % confidence).")
        assert "Phase 'everyone'" in page.locator("#announce").inner_text()  # read out as well
        roll_back(page, "a ward asked for it")
        page.locator(".standing").get_by_text("rolling back").first.wait_for()
        assert page.evaluate("window.notReloaded") is None  # the command itself loads the page anew
        page.evaluate("window.notReloaded = true")
        for device in ward.devices.values():
            device.take_all()
        page.locator(".standing").get_by_text("rolled back", exact=True).wait_for()
        assert page.evaluate("window.notReloaded") is True
        person.has_no_complaint()
        person.goes("/audit?action=rollout.roll_back")
        row = page.locator("tbody tr").first.inner_text()
        assert "operator" in row and "a ward asked for it" in row


def roll_back(page: Page, reason: str) -> None:
    page.get_by_role("link", name="Roll back").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Every device that was offered wdbc-risk@2 is given its former release").wait_for()
    dialog.get_by_label("Why").fill(reason)
    dialog.get_by_role("button", name="Roll back").click()


def test_pause_and_resume_by_keyboard_alone(browser: Browser, ward: Ward) -> None:
    with logged_in(browser, ward.fleet, Role.OPERATOR) as person:
        page = person.page
        person.goes(f"/rollouts/{ward.rollout}")
        page.locator("#do-pause").focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_label("Why").wait_for()
        assert page.evaluate("document.activeElement.name") == "reason"
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        assert page.evaluate("document.activeElement.id") == "do-pause"
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_label("Why").wait_for()
        page.keyboard.type("lunch")
        page.keyboard.press("Enter")
        page.locator(".sentence").get_by_text("Paused: lunch.").wait_for()
        page.locator("#do-resume").focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        page.locator(".sentence").get_by_text("Phase 'canary'").wait_for()
        person.has_no_complaint()


def test_an_approver_approves_what_somebody_else_asked_for(browser: Browser, ward: Ward) -> None:
    spec: dict[str, JsonValue] = {"release": "wdbc-risk@1", "supersedes": ward.rollout}
    own = scene.ask(ward.fleet, spec, Role.APPROVER)
    with logged_in(browser, ward.fleet, Role.APPROVER) as person:
        page = person.page
        person.goes(f"/rollouts/{own.id}")
        wait_until_shown(page, "You asked for this rollout; somebody else has to approve it.")
        assert page.get_by_role("link", name="Approve").count() == 0
        assert ward.fleet.client(Role.APPROVER).post(f"/rollouts/{own.id}/abort", json={}).status_code == 200
        scene.until(ward.fleet, own.id, lambda found: found.text("state") == "ABORTED")
        other = scene.ask(ward.fleet, spec)
        person.goes(f"/rollouts/{other.id}")
        page.get_by_role("link", name="Approve").click()
        page.get_by_role("dialog").get_by_role("button", name="Approve").dblclick()  # as people do
        page.get_by_text("by approver, ").wait_for()
        assert page.get_by_role("heading", level=1).inner_text().startswith("wdbc-risk@1")
        person.has_no_complaint()


def test_a_colleague_who_was_faster_is_named(browser: Browser, ward: Ward) -> None:
    with logged_in(browser, ward.fleet, Role.OPERATOR) as person:
        page = person.page
        page.route("**/live?*", lambda route: route.abort())  # the page has not heard of it yet
        person.goes(f"/rollouts/{ward.rollout}")
        paused = ward.fleet.client(Role.APPROVER).post(f"/rollouts/{ward.rollout}/pause", json={"reason": "mine"})
        assert paused.status_code == 200
        page.get_by_role("link", name="Pause").click()
        wait_until_shown(page, "it is paused; approver paused it at")
        page.get_by_role("link", name="Look at the rollout").click()
        page.locator(".sentence").get_by_text("Paused: mine.").wait_for()


def test_who_walks_by_keyboard_stays_in_place_while_the_page_moves(browser: Browser, ward: Ward) -> None:
    with logged_in(browser, ward.fleet, Role.VIEWER) as person:
        page = person.page
        person.goes(f"/rollouts/{ward.rollout}")
        link = page.locator(f'#devices a[href="/devices/{ward.canary}"]')
        link.focus()
        page.evaluate("document.activeElement.marked = true")
        ward.devices[ward.canary].step(UpdateState.DOWNLOADING, progress_percent=40)
        page.locator(".sentence").get_by_text("1 at it").wait_for()
        assert page.evaluate("document.activeElement.marked") is None  # another element, and the same link
        assert page.evaluate("document.activeElement.getAttribute('href')") == f"/devices/{ward.canary}"
        person.has_no_complaint()


def test_the_skip_link_and_the_sections_come_first(browser: Browser, fleet: Fleet) -> None:
    with logged_in(browser, fleet, Role.VIEWER) as person:
        page = person.page
        person.goes("/devices")
        reached = []
        for _ in range(7):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert reached == ["Skip to the content", "Edgeward", "Fleet", "Devices", "Models", "Rollouts", "Audit"]
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Log out").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Log out").wait_for(state="hidden")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_the_list_of_devices_moves_by_itself(browser: Browser, ward: Ward) -> None:
    with logged_in(browser, ward.fleet, Role.VIEWER) as person:
        page = person.page
        person.goes("/devices?order=trouble")
        page.get_by_role("heading", name="3 devices").wait_for()
        poorly = ward.devices["bed-3"]
        poorly.health = dataclasses.replace(poorly.health, alarms="outbox_full")
        poorly.report()
        page.evaluate("htmx.trigger('#live', 'refresh')")  # what the clock does every ten seconds
        page.locator("tbody tr").first.get_by_text("failing").wait_for()
        assert page.locator("tbody th").first.inner_text() == "bed-3"
        page.get_by_role("link", name="failing 1").click()
        page.get_by_role("heading", name="1 device found").wait_for()
        assert page.url.endswith("/devices?state=failing&order=trouble")
        person.has_no_complaint()


def test_the_chart_says_what_an_answer_took(browser: Browser, ward: Ward) -> None:
    ward.devices["bed-1"].deliver(scene.latencies())
    with logged_in(browser, ward.fleet, Role.VIEWER) as person:
        page = person.page
        person.goes("/devices/bed-1")
        page.locator("[data-latency] canvas").wait_for()
        box = page.locator(".u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 40)
        page.locator(".chart .tip").get_by_text("12.4 ms at").wait_for()
        assert "1 over 10 ms" in (page.locator(".chart").get_attribute("aria-label") or "")
        person.has_no_complaint()


def test_a_chart_that_was_drawn_anew_leaves_nothing_behind(browser: Browser, ward: Ward) -> None:
    """Every ten seconds, in a window that stands open all day."""
    ward.devices["bed-1"].deliver(scene.latencies())
    with logged_in(browser, ward.fleet, Role.VIEWER) as person:
        page = person.page
        person.goes("/devices/bed-1")
        page.locator("[data-latency] canvas").wait_for()
        page.evaluate(
            """() => {
              const real = uPlot;
              window.alive = 0;
              uPlot = function (...given) {
                const plot = new real(...given), end = plot.destroy;
                window.alive += 1;
                plot.destroy = () => { window.alive -= 1; end(); };
                return plot;
              };
            }"""
        )
        schemes: tuple[Literal["dark", "light"], ...] = ("dark", "light", "dark", "light")
        for scheme in schemes:
            with page.expect_response("**/latency*"):
                page.emulate_media(color_scheme=scheme)
            page.wait_for_function("window.alive === 1")
        assert page.locator("[data-latency] canvas").count() == 1
        person.has_no_complaint()


def test_a_viewer_sees_everything_and_can_do_nothing(browser: Browser, fleet: Fleet, built: Scene) -> None:
    with logged_in(browser, fleet, Role.VIEWER) as person:
        page = person.page
        person.goes(f"/rollouts/{built.half_way}")
        page.get_by_role("heading", name="Phases").wait_for()
        for label in ("Pause", "Resume", "Abort", "Roll back", "Approve"):
            assert page.get_by_role("link", name=label).count() == 0
        form = page.locator('form[action="/logout"] input[name="form"]').get_attribute("value")
        assert form is not None
        target = f"{person.base_url}/rollouts/{built.half_way}/rollback"
        refused = page.request.post(target, form={"form": form, "reason": "I should not"})
        assert refused.status == 403
        assert "expected the role operator or higher, viewer has viewer here" in refused.text().lower()
        assert page.request.get(target).status == 403
        assert scene.until(fleet, built.half_way, lambda _: True).text("state") == "PROGRESSING"


def test_a_form_that_is_not_ours_is_refused(browser: Browser, fleet: Fleet, built: Scene) -> None:
    with logged_in(browser, fleet, Role.ADMIN) as person:
        target = f"{person.base_url}/rollouts/{built.half_way}/rollback"
        for form in ({}, {"form": "0" * 64}):
            refused = person.page.request.post(target, form=dict(form))
            assert (refused.status, "a form of this session" in refused.text()) == (403, True)
        assert scene.until(fleet, built.half_way, lambda _: True).text("state") == "PROGRESSING"


def test_another_site_cannot_use_the_session(browser: Browser, fleet: Fleet, built: Scene) -> None:
    """A page of a stranger that sends a form here: the browser keeps the cookie back, and the form token is missing."""
    with logged_in(browser, fleet, Role.ADMIN) as person:
        target = f"{person.base_url}/rollouts/{built.half_way}/rollback"
        person.page.goto("about:blank")
        person.page.set_content(f'<form method="post" action="{target}"><button>Win a prize</button></form>')
        person.page.get_by_role("button").click()
        person.page.get_by_role("heading", level=1).wait_for()
        assert scene.until(fleet, built.half_way, lambda _: True).text("state") == "PROGRESSING"


def test_who_is_idle_is_logged_out_also_on_a_page_that_refreshes_itself(browser: Browser, tmp_path: Path) -> None:
    clock = MovableClock()
    with running_fleet(tmp_path, clock) as fleet:
        device = PretendDevice.enrol(fleet, "bed-1")
        scene.push(fleet, 1)
        rollout = scene.start(fleet, "wdbc-risk@1", phases=[scene.phase("everyone", 100, soak_s=86_400)])
        scene.until_offered(fleet, rollout, 0)
        with logged_in(browser, fleet, Role.VIEWER) as person:
            page = person.page
            person.goes(f"/rollouts/{rollout}")
            clock.advance(timedelta(minutes=14))
            device.take_all()
            page.locator(".sentence").get_by_text(
                "1 of 1 device succeeded; soaking"
            ).wait_for()  # polls are no activity
            clock.advance(timedelta(minutes=2))
            page.get_by_role("heading", name="Log in").wait_for(timeout=20_000)
            wait_until_shown(page, "The session ended after 15 minutes without use.")
            page.get_by_label("Username").fill("viewer")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("heading", name="wdbc-risk@1").wait_for()  # back where it was


def test_a_session_that_ends_over_a_question_loses_no_word_of_it(browser: Browser, tmp_path: Path) -> None:
    clock = MovableClock()
    with running_fleet(tmp_path, clock) as fleet:
        PretendDevice.enrol(fleet, "bed-1").report()
        scene.push(fleet, 1)
        rollout = scene.start(fleet, "wdbc-risk@1")
        scene.until_offered(fleet, rollout, 0)
        with logged_in(browser, fleet, Role.OPERATOR) as person:
            page = person.page
            person.goes(f"/rollouts/{rollout}")
            page.get_by_role("link", name="Pause").click()
            page.get_by_role("dialog").get_by_label("Why").fill("wait for the ward round")
            clock.advance(timedelta(minutes=16))
            page.evaluate("htmx.trigger('#live', 'refresh')")  # the page itself takes nobody away from the question
            page.get_by_role("dialog").get_by_role("button", name="Pause").click()
            page.get_by_label("Username").fill("operator")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            assert page.get_by_label("Why").input_value() == "wait for the ward round"
            page.get_by_role("button", name="Pause").click()
            page.locator(".sentence").get_by_text("Paused: wait for the ward round.").wait_for()


def test_everything_can_be_read_and_done_without_scripts(browser: Browser, ward: Ward) -> None:
    with visitor(browser, ward.fleet.ready.admin_url, scripts=False) as person:
        person.logs_in("operator")
        page = person.page
        page.get_by_role("link", name="Rollouts", exact=True).click()
        page.get_by_role("link", name="wdbc-risk@2").click()
        page.get_by_role("link", name="Pause").click()
        page.get_by_label("Why").fill("no scripts here")
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("Paused: no scripts here.").wait_for()
        ward.devices[ward.canary].deliver(scene.latencies())
        person.goes(f"/devices/{ward.canary}")
        assert page.locator(".chart svg circle.over").count() == 1
        page.get_by_text("1 over 10 ms").wait_for()


def test_the_look_is_chosen_and_kept(browser: Browser, fleet: Fleet) -> None:
    with logged_in(browser, fleet, Role.VIEWER, theme="light") as person:
        page = person.page
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.locator("details.menu summary").click()
        page.get_by_role("button", name="dark").click()
        page.locator('html[data-theme="dark"]').wait_for()
        assert page.evaluate(ground) != light
        person.goes("/audit")
        assert page.locator('html[data-theme="dark"]').count() == 1
        person.has_no_complaint()


def test_a_page_without_news_says_so_wherever_one_reads(browser: Browser, ward: Ward) -> None:
    """A fleet that is gone, one that hangs, a rollout that is there no more, and a proxy that wants a log-in."""
    with logged_in(browser, ward.fleet, Role.VIEWER, size=(1440, 400)) as person:
        page, live = person.page, "**/live?*"
        person.goes(f"/rollouts/{ward.rollout}")
        assert page.evaluate("htmx.config.timeout") == 10_000
        page.evaluate("htmx.config.timeout = 200; scrollTo(0, document.body.scrollHeight)")
        troubles: tuple[Callable[[Route], None], ...] = (
            lambda route: route.abort(),
            lambda route: None,
            lambda route: route.fulfill(status=404, body="gone"),
            lambda route: route.fulfill(status=200, body="<h1>Who are you?</h1>"),
        )
        for trouble in troubles:
            page.route(live, trouble)
            page.get_by_text("No news from the fleet").wait_for()
            assert page.evaluate("document.querySelector('#connection').getBoundingClientRect().top") == 0
            page.unroute(live)
            page.get_by_text("No news from the fleet").wait_for(state="hidden")
        page.get_by_role("heading", name="Phases").wait_for()


def test_text_that_is_selected_holds_a_page_up_for_a_minute(browser: Browser, ward: Ward) -> None:
    with logged_in(browser, ward.fleet, Role.VIEWER) as person:
        page = person.page
        person.goes(f"/rollouts/{ward.rollout}")
        page.locator(".sentence").dblclick()
        ward.devices[ward.canary].step(UpdateState.DOWNLOADING, progress_percent=40)
        page.evaluate(
            """() => new Promise((resolve) => {
              document.addEventListener("htmx:beforeRequest", (event) => event.defaultPrevented && resolve());
            })"""
        )
        page.evaluate("() => { const now = Date.now; Date.now = () => now() + 61000; }")
        page.locator(".sentence").get_by_text("1 at it").wait_for()
