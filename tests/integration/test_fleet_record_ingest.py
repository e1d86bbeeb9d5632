"""Records over real TLS: acknowledged after the commit, stored once, found again, and still there after kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edgeward_contract.record import MAX_BATCH_BYTES, Acknowledgement, Batch, VerdictStatus
from edgeward_contract.schema import JsonValue
from edgeward_contract.topics import RECORDS
from edgeward_fleet.accounts.model import Role
from support.fleet import Fleet, fleet_process, running_fleet
from support.fleet_https import batch, detail, record

ACCEPTED, DUPLICATE, CONFLICT = VerdictStatus.ACCEPTED, VerdictStatus.DUPLICATE, VerdictStatus.CONFLICT


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def device(fleet: Fleet, request: pytest.FixtureRequest) -> httpx.Client:
    """A device of its own for each test."""
    return fleet.device_client(fleet.enrol(name_of(request)))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return name_of(request)


def name_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("test_", "").replace("[", "-").strip("]")[:60].strip("-_").lower()


def deliver(device: httpx.Client, sent: Batch) -> list[VerdictStatus]:
    answer = device.post(RECORDS, content=sent.canonical())
    assert answer.status_code == 200, answer.text
    acknowledged = Acknowledgement.parse(answer.content)
    assert acknowledged.batch_id == sent.batch_id
    assert [(v.epoch, v.sequence) for v in acknowledged.verdicts] == [(r.epoch, r.sequence) for r in sent.records]
    return [verdict.status for verdict in acknowledged.verdicts]


def count(fleet: Fleet, **query: str | int) -> int:
    answer = fleet.client(Role.VIEWER).get("/records/count", params=query)
    return int(answer.json()["count"])


def test_what_is_sent_again_is_stored_once(fleet: Fleet, device: httpx.Client, name: str) -> None:
    assert deliver(device, batch(record(1), record(2))) == [ACCEPTED, ACCEPTED]
    assert deliver(device, batch(record(2), record(3))) == [DUPLICATE, ACCEPTED]
    assert deliver(device, batch(record(4), record(4))) == [ACCEPTED, DUPLICATE]
    assert count(fleet, device=name) == 4


def test_a_key_with_other_content_is_a_conflict_and_changes_nothing(
    fleet: Fleet, device: httpx.Client, name: str
) -> None:
    other = record(1, body={"model": "risk", "version": 1, "outcome": "other"})
    assert deliver(device, batch(record(1))) == [ACCEPTED]
    assert deliver(device, batch(other, record(2))) == [CONFLICT, ACCEPTED]
    assert deliver(device, batch(record(9), record(9, kind="other"))) == [ACCEPTED, CONFLICT]
    assert deliver(device, batch(record(1, epoch="e2"))) == [ACCEPTED]
    found = fleet.client(Role.VIEWER).get("/records", params={"device": name}).json()["records"]
    assert found[0]["body"]["outcome"] == "ok"


def test_devices_do_not_share_keys(fleet: Fleet, device: httpx.Client) -> None:
    other = fleet.device_client(fleet.enrol("another-device"))
    assert deliver(device, batch(record(1))) == deliver(other, batch(record(1, kind="note"))) == [ACCEPTED]


def test_records_come_back_in_the_order_in_which_they_came(fleet: Fleet, device: httpx.Client, name: str) -> None:
    for first in (1, 11, 21):
        deliver(device, batch(*(record(first + step) for step in range(10))))
    seen: list[int] = []
    after = 0
    while True:
        page = fleet.client(Role.VIEWER).get("/records", params={"device": name, "limit": 7, "after": after}).json()
        seen += [each["sequence"] for each in page["records"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == list(range(1, 31))


def test_a_record_is_shown_as_the_device_wrote_it(fleet: Fleet, device: httpx.Client, name: str) -> None:
    sent = record(5, body={"model": "risk", "version": 3, "text": "åß", "list": [1, 2.5, None]})
    deliver(device, batch(sent))
    (found,) = fleet.client(Role.VIEWER).get("/records", params={"device": name}).json()["records"]
    assert found["device"] == name
    assert found["body"] == sent.body
    assert (found["record_class"], found["wall_us"], found["clock_trusted"]) == ("result", sent.wall_us, True)


def test_records_are_counted_by_kind_model_and_version(fleet: Fleet, device: httpx.Client, name: str) -> None:
    v2: JsonValue = {"model": "risk", "version": 2}
    deliver(device, batch(record(1), record(2, body=v2), record(3, body=v2), record(4, kind="note", body={"x": 1})))
    assert count(fleet, device=name) == 4
    assert count(fleet, device=name, kind="inference") == 3
    assert count(fleet, device=name, model="risk", version=2) == 2
    assert count(fleet, device=name, model="other") == 0


def test_an_empty_batch_is_acknowledged(device: httpx.Client) -> None:
    assert deliver(device, batch()) == []


def test_the_largest_batch_is_taken(device: httpx.Client) -> None:
    assert deliver(device, batch(*(record(number) for number in range(1, 1001)))) == [ACCEPTED] * 1000


def test_a_record_above_the_limit_is_rejected_and_the_rest_is_kept(device: httpx.Client) -> None:
    large = record(1, body={"text": "x" * 300_000})
    assert deliver(device, batch(large, record(2))) == [VerdictStatus.REJECTED, ACCEPTED]


def _broken(**changes: JsonValue) -> bytes:
    document = json.loads(batch(record(1), record(2)).canonical())
    document["records"][1].update(changes)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(b"{", 400, "expected JSON", id="not-json"),
        pytest.param(_broken(sha256="0" * 64), 400, "records[1].sha256: expected the digest of the", id="digest"),
        pytest.param(_broken(sequence=0), 400, "records[1].sequence: expected 1 to", id="sequence"),
        pytest.param(b'{"schema":2}', 400, "schema: expected at most 1, got 2: update this side first", id="schema"),
        pytest.param(b'{"schema":1,"a":"' + b"x" * MAX_BATCH_BYTES + b'"}', 413, "expected at most 1048576", id="size"),
        pytest.param(b'{"schema":1,"a":' + b"[" * 5000, 400, "expected", id="depth"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_whole_and_names_the_place(
    fleet: Fleet, device: httpx.Client, name: str, body: bytes, status: int, words: str
) -> None:
    answer = device.post(RECORDS, content=body)
    assert answer.status_code == status
    assert words in detail(answer)
    assert count(fleet, device=name) == 0


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    with fleet_process(tmp_path) as (fleet, process):
        enrolled = fleet.enrol("bed-1")
        device = fleet.device_client(enrolled)
        for first in range(1, 101, 10):
            assert deliver(device, batch(*(record(first + step) for step in range(10)))) == [ACCEPTED] * 10
        process.kill()
        process.wait(10)
    with fleet_process(tmp_path) as (fleet, _):
        assert count(fleet, device="bed-1") == 100
