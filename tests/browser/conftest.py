"""One browser for all; a fleet with a scene that tests only look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from support import scene
from support.browser import chromium
from support.fleet import Fleet, running_fleet
from support.scene import Scene


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def fleet(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """After the browser, so that its absence skips before anything is built."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture(scope="session")
def built(fleet: Fleet) -> Scene:
    """Half-way things to look at; nobody moves them on."""
    return scene.build(fleet)
