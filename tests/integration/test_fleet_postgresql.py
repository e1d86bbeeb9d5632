"""The fleet on PostgreSQL, where transactions run side by side: what SQLite's one writer settles by itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from edgeward_contract.artifact import sha256_of
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.clock import utc_now
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.migrate import upgrade
from edgeward_fleet.enrolment import authority
from edgeward_fleet.enrolment.passphrase import Passphrase
from support.fleet import PASSWORD, Fleet, running_fleet
from support.postgresql import postgresql

AT_ONCE = 4


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgresql() as running:
        yield running


def at_once(do: Callable[[int], object], times: int = AT_ONCE) -> list[object]:
    together = Barrier(times)

    def one(number: int) -> object:
        together.wait(20)
        return do(number)

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


def test_fleets_that_start_at_once_have_one_schema_and_one_ca(url: str, tmp_path: Path) -> None:
    secret = Passphrase(secret=b"a shared passphrase", origin="a test")

    def start(_: int) -> str:
        with closing(Database(url)) as database:
            upgrade(database, tmp_path, utc_now())
            return database.run_sync(lambda session: authority.load_or_create(session, secret, utc_now()).fingerprint)

    assert len(set(at_once(start))) == 1


@pytest.fixture(scope="module")
def fleet(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWARD_CA_PASSPHRASE", "a shared passphrase")
        with running_fleet(tmp_path_factory.mktemp("fleet"), database_url=url) as running:
            yield running


def test_who_comes_second_at_the_same_moment_is_told_what_there_is(fleet: Fleet) -> None:
    """It was a fault of the fleet's own: 500, and a pipeline that pushed a release twice had failed."""
    data = os.urandom(1000)
    operator, admin = fleet.client(Role.OPERATOR), fleet.client(Role.ADMIN)
    pushed = at_once(lambda _: operator.put(f"/artifacts/{sha256_of(data)}", content=data).status_code)
    assert Counter(pushed) == {201: 1, 200: AT_ONCE - 1}
    account = {"username": "ada", "password": PASSWORD, "role": "viewer"}
    assert Counter(at_once(lambda _: admin.post("/accounts", json=account).status_code)) == {201: 1, 409: AT_ONCE - 1}


def test_two_admins_cannot_demote_each_other(fleet: Fleet) -> None:
    admin = fleet.client(Role.ADMIN)
    for name in ("eve", "mallory"):
        made = admin.post("/accounts", json={"username": name, "password": PASSWORD, "role": "admin"})
        assert made.status_code == 201
    assert admin.patch("/accounts/admin", json={"role": "admin"}).status_code == 200
    names = ("admin", "eve", "mallory")
    at_once(lambda number: admin.patch(f"/accounts/{names[number]}", json={"role": "viewer"}), len(names))
    logged_in = [fleet.client(None).post("/login", json={"username": name, "password": PASSWORD}) for name in names]
    assert "admin" in [each.json()["role"] for each in logged_in]


@pytest.mark.parametrize("path", ["/devices?site=%00", "/devices/a%00", "/records?model=%00", "/models?after=%00"])
def test_text_that_it_cannot_hold_is_the_callers_mistake(fleet: Fleet, path: str) -> None:
    answer = fleet.client(Role.VIEWER).get(path)
    assert answer.status_code == 422
    assert "expected values that the database can hold, got: PostgreSQL text fields cannot contain NUL" in answer.text
