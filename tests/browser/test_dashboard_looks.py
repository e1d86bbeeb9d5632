"""Every page as it looks: what axe says, whether it fits, and a picture of it to be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from edgeward_fleet.accounts.model import Role
from support.browser import NARROW, THEMES, WIDE, Theme, Visitor, logged_in, visitor
from support.fleet import Fleet, in_thread, make_settings, running_fleet
from support.pretend import PretendDevice
from support.scene import Scene, ask, push

SIZES = (WIDE, NARROW)
PAIRS: tuple[tuple[Theme, tuple[int, int]], ...] = (("light", WIDE), ("dark", NARROW))  # simple pages need no more


def looks_right(person: Visitor, name: str, path: str, theme: Theme, size: tuple[int, int]) -> None:
    response = person.goes(path)
    assert response.status == 200, f"{path}: {response.status}"
    chart = person.page.locator("[data-latency]")
    if chart.count():
        chart.locator("canvas").wait_for()  # the server's picture has given way to the sharper one
    person.pictures(name, theme, size)
    assert person.axe() == [], path
    assert width(person) <= size[0], f"{path} scrolls sideways"


def width(person: Visitor) -> int:
    found = person.page.evaluate("document.documentElement.scrollWidth")
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_a_fleet_with_everything_in_it(
    browser: Browser, fleet: Fleet, built: Scene, theme: Theme, size: tuple[int, int]
) -> None:
    unwell = next(device.name for device in built.devices.values() if device.health.alarms)
    recorded = fleet.client(Role.VIEWER).get("/records?limit=1").json()["records"][0]["device"]
    pages = {
        "fleet": "/",
        "devices": "/devices",
        "devices-filtered": "/devices?site=north&state=online",
        "devices-none": "/devices?search=nobody",
        "device": f"/devices/{recorded}",
        "device-unwell": f"/devices/{unwell}",
        "models": "/models",
        "model": "/models/wdbc-risk",
        "release": "/releases/wdbc-risk/2",
        "rollouts": "/rollouts",
        "rollout": f"/rollouts/{built.half_way}",
        "rollout-done": f"/rollouts/{built.done}",
        "rollout-waiting": f"/rollouts/{built.waiting}",
        "rollout-stopped": f"/rollouts/{built.stopped}",
        "confirm": f"/rollouts/{built.half_way}/rollback",
        "approve": f"/rollouts/{built.waiting}/approve",
        "audit": "/audit",
        "audit-none": "/audit?actor=nobody",
    }
    with logged_in(browser, fleet, Role.APPROVER, theme=theme, size=size) as person:
        for name, path in pages.items():
            looks_right(person, name, path, theme, size)
        person.has_no_complaint()


def test_an_empty_fleet_teaches_the_next_step(browser: Browser, tmp_path: Path) -> None:
    commands = {
        "/": "edgeward device token --site north",
        "/devices": "edgeward device token --site north",
        "/models": "edgeward model push my-model-1",
        "/rollouts": "edgeward rollout create --release wdbc-risk@1 --phases 20%,100% --soak 10m",
    }
    with running_fleet(tmp_path) as fleet:
        for theme, size in PAIRS:
            with logged_in(browser, fleet, Role.OPERATOR, theme=theme, size=size) as person:
                for path, command in commands.items():
                    looks_right(person, f"empty{path.replace('/', '-')}", path, theme, size)
                    assert person.page.locator(f'button[data-copy="{command}"]').is_visible()
                person.has_no_complaint()
        with logged_in(browser, fleet, Role.OPERATOR) as person:
            begun = {"/": "1 device at 1 site", "/devices": "1 device", "/rollouts": "awaiting approval"}
            pages = {path: person.page.context.new_page() for path in begun}
            for path, page in pages.items():
                page.goto(person.base_url + path)
            PretendDevice.enrol(fleet, "bed-1")
            push(fleet, 1)
            ask(fleet, {"release": "wdbc-risk@1"})
            for path, page in pages.items():  # who followed the steps in a terminal finds what came of them
                page.evaluate("htmx.trigger('#live', 'refresh')")
                page.locator("main").get_by_text(begun[path]).first.wait_for()
                assert page.locator(".start").count() == 0


def test_the_way_in(browser: Browser, tmp_path: Path) -> None:
    with in_thread(make_settings(tmp_path)) as ready:
        for theme, size in PAIRS:
            with visitor(browser, ready.admin_url, theme=theme, size=size) as person:
                looks_right(person, "login", "/login", theme, size)
                looks_right(person, "setup", "/setup?token=of-no-use", theme, size)
                person.page.get_by_label("Username").fill("ada")
                person.page.get_by_label("Password").fill("correct horse battery")
                person.page.get_by_role("button", name="Make the admin").click()
                person.page.get_by_role("alert").wait_for()
                person.pictures("setup-refused", theme, size)
                assert person.axe() == []


def test_a_page_that_there_is_not_is_a_page(browser: Browser, fleet: Fleet) -> None:
    with logged_in(browser, fleet, Role.VIEWER) as person:
        assert person.goes("/nowhere").status == 404
        assert "there is no page at /nowhere" in person.page.inner_text("main").lower()
        assert person.axe() == []
