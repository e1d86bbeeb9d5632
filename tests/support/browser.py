"""Real headless Chromium against a real fleet: what a person does, what axe says, and pictures to look at.

Chromium is Debian's; where it is absent, tests that need it skip.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, sync_playwright

from edgeward_fleet.accounts.model import Role
from support.fleet import PASSWORD, Fleet
from support.models import ROOT

Theme = Literal["light", "dark"]
THEMES: Final[tuple[Theme, ...]] = ("light", "dark")
WIDE: Final = (1440, 900)
NARROW: Final = (390, 844)
PICTURES: Final = ROOT / "artifacts" / "dashboard"
_AXE: Final = ROOT / "tests" / "browser" / "vendor" / "axe.min.js"
_ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_TIMEOUT_MS: Final = 10_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; skips where there is none."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is absent")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass(slots=True)
class Visitor:
    """A person at a browser. `complaints` are console errors, refused content and failed requests."""

    page: Page
    base_url: str
    complaints: list[str] = field(default_factory=list)

    def goes(self, path: str) -> Response:
        response = self.page.goto(self.base_url + path)
        assert response is not None
        return response

    def logs_in(self, username: str, password: str = PASSWORD) -> None:
        self.goes("/login")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()

    def has_no_complaint(self) -> None:
        assert self.complaints == []

    def axe(self) -> list[str]:
        """What axe finds serious or critical, each with the first place."""
        found = self.page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
            ".filter(each => ['serious', 'critical'].includes(each.impact))"
            ".map(each => `${each.id}: ${each.nodes[0].html} (${each.nodes[0].failureSummary})`)"
        )
        assert isinstance(found, list)
        return [str(each) for each in found]

    def pictures(self, name: str, theme: Theme, size: tuple[int, int]) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}-{theme}-{size[0]}.png", full_page=True)


@contextmanager
def visitor(
    browser: Browser, base_url: str, *, theme: Theme = "light", size: tuple[int, int] = WIDE, scripts: bool = True
) -> Iterator[Visitor]:
    """A fresh browser profile. `scripts` False is somebody whose browser runs no JavaScript."""
    width, height = size
    context = browser.new_context(
        ignore_https_errors=True,
        color_scheme=theme,
        viewport={"width": width, "height": height},
        java_script_enabled=scripts,
        reduced_motion="reduce",
        service_workers="block",
    )
    context.set_default_timeout(_TIMEOUT_MS)
    if scripts:
        context.add_init_script(path=_AXE)  # by the debugger, so that the pages' own policy stays as it is
    try:
        page = context.new_page()
        person = Visitor(page, base_url)
        _listen(context, page, person)
        yield person
    finally:
        context.close()


@contextmanager
def logged_in(
    browser: Browser, fleet: Fleet, role: Role, *, theme: Theme = "light", size: tuple[int, int] = WIDE
) -> Iterator[Visitor]:
    """Somebody with `role`, on the overview."""
    with visitor(browser, fleet.ready.admin_url, theme=theme, size=size) as person:
        person.logs_in(role.value)
        person.page.get_by_role("heading", level=1, name="Fleet").wait_for()
        yield person


def wait_until_shown(page: Page, words: str) -> None:
    """Until `words` stand on the page, without a reload by us."""
    page.get_by_text(words).first.wait_for(state="visible")


def _listen(context: BrowserContext, page: Page, person: Visitor) -> None:
    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            person.complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: person.complaints.append(str(error)))
    context.on("requestfailed", lambda request: _note_failure(person, f"{request.url}: {request.failure}"))


def _note_failure(person: Visitor, failure: str) -> None:
    if "ERR_ABORTED" not in failure:  # the person has gone on to another page
        person.complaints.append(failure)
