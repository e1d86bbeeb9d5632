"""One verdict per record, whatever comes how often; and which report of a device is the newest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_contract.record import Record, RecordClass, VerdictStatus
from edgeward_fleet.records.model import Arrival, Key, arrivals, storable, verdicts
from edgeward_fleet.states.reported import Order

ACCEPTED, DUPLICATE, CONFLICT = VerdictStatus.ACCEPTED, VerdictStatus.DUPLICATE, VerdictStatus.CONFLICT


def _record(sequence: int, text: str = "") -> Record:
    return Record(
        epoch="e",
        sequence=sequence,
        record_class=RecordClass.RESULT,
        kind="note",
        boot="b",
        boot_us=0,
        wall_us=0,
        clock_trusted=False,
        body={"text": text, "model": "risk", "version": 2},
    )


def _store(batch: tuple[Arrival, ...], stored: dict[Key, Arrival]) -> list[VerdictStatus]:
    """What the database does: insert or ignore."""
    new = [each for each in storable(batch) if each.key not in stored]
    stored.update({each.key: each for each in new})
    digests = {key: each.sha256 for key, each in stored.items()}
    return [each.status for each in verdicts(batch, frozenset(each.key for each in new), digests)]


@given(st.lists(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("ab")), max_size=6), max_size=6))
def test_each_key_is_accepted_once_and_keeps_its_first_content(batches: list[list[tuple[int, str]]]) -> None:
    stored: dict[Key, Arrival] = {}
    first: dict[int, str] = {}
    for batch in batches:
        statuses = _store(arrivals([_record(*each) for each in batch]), stored)
        for (sequence, text), status in zip(batch, statuses, strict=True):
            if sequence not in first:
                assert status is ACCEPTED
                first[sequence] = text
            else:
                assert status is (DUPLICATE if first[sequence] == text else CONFLICT)
    assert {key[1]: each.record.body["text"] for key, each in stored.items()} == first


def test_a_record_above_the_limit_is_rejected_for_good() -> None:
    batch = arrivals([_record(1, "x" * 300_000), _record(2)])
    assert _store(batch, {}) == [VerdictStatus.REJECTED, ACCEPTED]
    assert "expected at most 262144 bytes" in verdicts(batch, frozenset(), {})[0].reason


def test_a_model_that_no_database_could_name_has_no_name() -> None:
    (arrival,) = arrivals([replace(_record(1), body={"model": "ri\0sk"})])
    assert arrival.model is None and arrival.record.body["model"] == "ri\0sk"


def test_what_is_stored_is_what_the_digest_is_of() -> None:
    (arrival,) = arrivals([_record(1, "å")])
    assert arrival.sha256 == arrival.record.sha256()
    assert (arrival.model, arrival.version) == ("risk", 2)


@pytest.mark.parametrize(
    ("boot", "sequence", "older"),
    [("b2", 5, True), ("b2", 4, True), ("b2", 6, False), ("b1", 99, True), ("b3", 0, False)],
)
def test_which_report_is_older(boot: str, sequence: int, older: bool) -> None:
    assert Order(boot="b2", sequence=5, earlier_boots=("b1",)).is_older(boot, sequence) is older


def test_a_new_boot_makes_the_one_before_an_earlier_one() -> None:
    order = Order(boot="b1", sequence=9).then("b2", 0).then("b2", 1).then("b3", 0)
    assert order == Order(boot="b3", sequence=0, earlier_boots=("b1", "b2"))


def test_only_so_many_boots_are_kept() -> None:
    order = Order(boot="b0", sequence=0)
    for number in range(1, 40):
        order = order.then(f"b{number}", 0)
    assert len(order.earlier_boots) == 16
    assert order.earlier_boots[-1] == "b38"
