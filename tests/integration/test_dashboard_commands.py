"""What can get between a person and a command: a session that ended, an old tab, a double click, a colleague."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from edgeward_contract.schema import JsonValue
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.dashboard.pages.rollout import Command
from support import scene
from support.fleet import Fleet, MovableClock, running_fleet
from support.pretend import PretendDevice
from support.web import form_of, log_in, web_client_as

REASON = "Visite auf Station 7 & »keine« Änderung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Two people with a rollout that goes on, and one that waits for approval."""

    fleet: Fleet
    clock: MovableClock
    operator: httpx.Client
    approver: httpx.Client
    rollout: str
    waiting: scene.Asked

    def kinds(self, rollout: str) -> list[str]:
        """What people and the fleet did to it."""
        answer = self.fleet.client(Role.VIEWER).get(f"/rollouts/{rollout}/events?limit=1000")
        return [each["kind"] for each in answer.json()["items"]]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = MovableClock()
    with ExitStack() as stack:
        fleet = stack.enter_context(running_fleet(tmp_path, clock))
        for name in ("bed-1", "bed-2"):
            PretendDevice.enrol(fleet, name).report()
        scene.push(fleet, 1)
        rollout = scene.start(fleet, "wdbc-risk@1", target={"devices": ["bed-1"]})
        scene.until_offered(fleet, rollout, 0)
        yield Desk(
            fleet=fleet,
            clock=clock,
            operator=stack.enter_context(web_client_as(fleet, Role.OPERATOR)),
            approver=stack.enter_context(web_client_as(fleet, Role.APPROVER)),
            rollout=rollout,
            waiting=scene.ask(fleet, {"release": "wdbc-risk@1", "target": {"devices": ["bed-2"]}}),
        )


def send(client: httpx.Client, path: str, form: str | None = None, **fields: str) -> httpx.Response:
    """As the question's own form does."""
    return client.post(path, data={"form": form or form_of(client.get("/").text), **fields})


def test_a_session_that_ends_before_the_command_leads_back_to_it_with_what_was_written(desk: Desk) -> None:
    path = f"/rollouts/{desk.rollout}/pause"
    form = form_of(desk.operator.get(path).text)
    desk.clock.advance(timedelta(minutes=16))
    answer = send(desk.operator, path, form, reason=REASON)
    there = urlsplit(answer.headers["location"])
    assert (answer.status_code, there.path) == (303, "/login")
    back = parse_qs(there.query)["next"][0]
    again = log_in(desk.operator, Role.OPERATOR, then=back)
    assert (again.status_code, again.headers["location"].startswith(path)) == (303, True)
    question = desk.operator.get(again.headers["location"])
    assert f'value="{REASON}"' in unescape(question.text)
    assert "pause" not in desk.kinds(desk.rollout)
    assert send(desk.operator, path, form_of(question.text), reason=REASON).status_code == 303
    assert "pause" in desk.kinds(desk.rollout)


def test_the_longest_reason_survives_a_log_in(desk: Desk) -> None:
    path = f"/rollouts/{desk.rollout}/pause"
    form = form_of(desk.operator.get(path).text)
    desk.clock.advance(timedelta(minutes=16))
    there = send(desk.operator, path, form, reason="病" * 500).headers["location"]
    page = desk.operator.get(there)
    found = re.search(r'name="next" value="([^"]+)"', page.text)
    assert page.status_code == 200 and found
    again = log_in(desk.operator, Role.OPERATOR, then=unescape(found[1]))
    assert "病" * 500 in desk.operator.get(again.headers["location"]).text


def test_a_tab_from_before_the_last_log_in_shows_the_question_anew(desk: Desk) -> None:
    path = f"/rollouts/{desk.rollout}/pause"
    answer = send(desk.operator, path, "0" * 64, reason=REASON)
    assert (answer.status_code, "The form is out of date" in answer.text) == (403, True)
    found = re.search(rf'href="({path}\?[^"]+)">Go back and confirm again', answer.text)
    assert found is not None
    assert f'value="{REASON}"' in unescape(desk.operator.get(unescape(found[1])).text)
    assert "pause" not in desk.kinds(desk.rollout)


def test_a_double_click_approves_once_and_shows_what_it_did(desk: Desk) -> None:
    path = f"/rollouts/{desk.waiting.id}/approve"
    for _ in range(2):
        answer = send(desk.approver, path, spec_sha256=desk.waiting.spec_sha256)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/rollouts/{desk.waiting.id}")
    assert desk.kinds(desk.waiting.id).count("approve") == 1


def test_who_comes_second_is_told_who_was_faster(desk: Desk) -> None:
    path = f"/rollouts/{desk.rollout}/pause"
    desk.approver.get(path)  # both look at the question
    assert send(desk.operator, path, reason="ward round").status_code == 303
    for answer in (send(desk.approver, path, reason="me too"), desk.approver.get(path)):
        assert answer.status_code == 409
        assert re.search(r"it is paused; operator paused it at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", answer.text)
        assert "Nothing was done." in answer.text
        assert f'href="/rollouts/{desk.rollout}">Look at the rollout' in answer.text
    assert desk.kinds(desk.rollout).count("pause") == 1


def test_the_question_counts_who_would_be_given_something(desk: Desk) -> None:
    """A rollout that is over hears no more of its devices: one may be revoked, or have another release by now."""
    names: list[JsonValue] = ["icu-1", "icu-2"]
    devices = [PretendDevice.enrol(desk.fleet, str(each)) for each in names]
    over = scene.start(desk.fleet, "wdbc-risk@1", target={"devices": names}, phases=[scene.phase("all", 100)])
    scene.until_offered(desk.fleet, over, 0)
    for device in devices:
        device.take_all()
    scene.until_state(desk.fleet, over, "SUCCEEDED")
    asked = f"/rollouts/{over}/rollback"
    assert "its former release: 2 devices." in desk.operator.get(asked).text
    revoke(desk.fleet, "icu-1")
    assert "its former release: 1 device. 1 other has left or gone back already." in desk.operator.get(asked).text
    revoke(desk.fleet, "icu-2")
    refused = desk.operator.get(asked)
    assert (refused.status_code, "all 2 have left" in refused.text) == (409, True)


def revoke(fleet: Fleet, device: str) -> None:
    assert fleet.client(Role.ADMIN).post(f"/devices/{device}/revoke", json={"reason": "stolen"}).is_success


def test_a_viewer_gets_nowhere_with_any_command_made_by_hand(desk: Desk) -> None:
    before = {each: desk.kinds(each) for each in (desk.rollout, desk.waiting.id)}
    with web_client_as(desk.fleet, Role.VIEWER) as viewer:
        for command in Command:
            for rollout in before:
                path = f"/rollouts/{rollout}/{command.value}"
                sent = send(viewer, path, spec_sha256=desk.waiting.spec_sha256, reason="I should not")
                assert (sent.status_code, viewer.get(path).status_code) == (403, 403), path
    assert before == {each: desk.kinds(each) for each in before}


def test_a_wrong_filter_says_what_there_is_and_leads_to_the_whole_list(desk: Desk) -> None:
    answer = desk.operator.get("/devices?state=purple")
    assert answer.status_code == 422
    assert "State: expected 'online', " in unescape(answer.text) and "got 'purple'" in unescape(answer.text)
    assert 'href="/devices">All devices' in answer.text


def test_a_page_that_there_is_not_has_the_links_that_lead_on(desk: Desk) -> None:
    assert '<a href="/rollouts"' in desk.operator.get("/nowhere").text
    assert 'href="/devices">All devices' in desk.operator.get("/devices/nobody").text
