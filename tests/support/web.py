"""A browser's part without a browser: cookies, forms, no redirects followed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from edgeward_fleet.accounts.model import Role
from support.fleet import PASSWORD, TIMEOUT_S, Fleet


@contextmanager
def web_client(fleet: Fleet) -> Iterator[httpx.Client]:
    """Somebody who is not logged in."""
    with httpx.Client(
        base_url=fleet.ready.admin_url,
        verify=fleet.tls(),
        timeout=TIMEOUT_S,
        trust_env=False,
        headers={"Accept": "text/html"},
    ) as client:
        yield client


@contextmanager
def web_client_as(fleet: Fleet, role: Role) -> Iterator[httpx.Client]:
    with web_client(fleet) as client:
        assert log_in(client, role).status_code == 303
        yield client


def log_in(client: httpx.Client, role: Role, then: str = "/") -> httpx.Response:
    page = client.get("/login", params={"next": then})
    data = {"form": form_of(page.text), "next": then, "username": role.value, "password": PASSWORD}
    return client.post("/login", data=data)


def form_of(page: str) -> str:
    """The token that the page's forms carry."""
    found = re.search(r'name="form" value="([0-9a-f]{64})"', page)
    assert found is not None, "expected a form with a token"
    return found[1]
