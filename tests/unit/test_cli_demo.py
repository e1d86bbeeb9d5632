"""The demonstration's own count: it must see every kind of wrong that it says is not there."""

from __future__ import annotations

import csv
import threading
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edgeward_contract.schema import Fields, JsonValue
from edgeward_fleet.demo.errors import DemoFailed
from edgeward_fleet.demo.ledger import Entry, Ledger
from edgeward_fleet.demo.patients import LARGE_AREA, Patient, Wards, read_patients
from edgeward_fleet.demo.reckoning import Check, Kept, Reckoning, last_versions, percentile_us, reckon
from edgeward_fleet.demo.rolling import canary, news
from edgeward_fleet.demo.scenario import everywhere
from edgeward_fleet.demo.stage import model_folder

ENTRY = Entry(
    device="a",
    request_id="a/1/p001",
    patient="p001",
    status=200,
    version=2,
    risk=0.5,
    asked_s=1.0,
    took_us=1000,
    problem="",
)
KEPT = Kept(device="a", request_id="a/1/p001", version=2, risk=0.5)
GOOD = Reckoning(agreed=1, lost=0, twice=0, unasked=0, different=0)


def test_what_agrees_agrees() -> None:
    assert reckon([ENTRY], [KEPT]) == GOOD
    assert reckon([], []) == replace(GOOD, agreed=0)


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ([], replace(GOOD, agreed=0, lost=1)),
        ([KEPT, KEPT], replace(GOOD, twice=1)),
        ([KEPT, KEPT, KEPT], replace(GOOD, twice=2)),
        ([KEPT, replace(KEPT, request_id="a/2/p002")], replace(GOOD, unasked=1)),
        ([replace(KEPT, device="b")], replace(GOOD, agreed=0, lost=1, unasked=1)),
        ([replace(KEPT, version=1)], replace(GOOD, agreed=0, different=1)),
        ([replace(KEPT, risk=0.51)], replace(GOOD, agreed=0, different=1)),
        ([replace(KEPT, risk=None)], replace(GOOD, agreed=0, different=1)),
    ],
)
def test_every_kind_of_wrong_is_counted(kept: list[Kept], found: Reckoning) -> None:
    assert reckon([ENTRY], kept) == found


def test_a_question_without_an_answer_owes_no_record_and_may_have_none() -> None:
    failed = replace(ENTRY, status=500, version=0, risk=None)
    assert reckon([failed], []) == replace(GOOD, agreed=0)
    assert reckon([failed], [KEPT]) == replace(GOOD, agreed=0, unasked=1)


def test_a_record_is_read_as_the_fleet_gives_it() -> None:
    assert Kept.read(record([0.5])) == KEPT
    assert Kept.read(record([None])).risk is None


def record(risk: list[float | None]) -> Fields:
    outputs = {"risk": {"datatype": "FP32", "shape": [1, 1], "data": risk}}
    body = {"version": 2, "request_id": "a/1/p001", "outputs": outputs}
    return Fields.of({"device": "a", "body": body}, "")


def test_checks_say_what_must_be_and_what_was() -> None:
    assert Check.equal("x", 0, 1).document() == {"name": "x", "expected": "0", "found": "1", "ok": False}
    assert Check.at_least("x", 3, 3).ok
    assert not Check.at_least("x", 3, 2).ok


def test_the_last_answer_says_what_a_device_serves() -> None:
    later = [replace(ENTRY, version=3), replace(ENTRY, status=500, version=0), replace(ENTRY, device="b", version=1)]
    assert last_versions([ENTRY, *later]) == {"a": 3, "b": 1}


def test_percentiles_are_of_answers_that_came() -> None:
    answered = [replace(ENTRY, took_us=number * 10) for number in range(1, 101)]
    refused = [replace(ENTRY, status=503, took_us=10**9)]
    assert (percentile_us(answered + refused, 50), percentile_us(answered + refused, 99)) == (500, 990)
    assert percentile_us(refused, 99) == 0


def test_the_ledger_is_a_file_that_a_person_can_count(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.csv") as ledger:
        ledger.add(ENTRY)
        ledger.add(replace(ENTRY, status=0, risk=None, problem='refused, "rudely"'))
        assert len(ledger) == 2
        assert ledger.entries(1)[0].problem == 'refused, "rudely"'
    with (tmp_path / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["request_id"], row["status"], row["risk"]) for row in rows] == [
        ("a/1/p001", "200", "0.5"),
        ("a/1/p001", "0", ""),
    ]


def test_waiting_for_answers_ends_when_they_come_and_when_they_do_not(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.csv") as ledger:
        writer = threading.Timer(0.05, lambda: ledger.add(ENTRY))
        writer.start()
        assert ledger.wait_for(lambda entries: len(entries) == 1, since=0, timeout_s=10)
        writer.join()
        assert not ledger.wait_for(lambda entries: len(entries) == 1, since=1, timeout_s=0.01)


def test_the_patients_are_all_there_and_the_threshold_is_that_of_version_4(checkout: Path) -> None:
    patients = read_patients(checkout / "models/wdbc-risk/patients.csv")
    large = [patient for patient in patients if patient.large]
    assert (len(patients), len({patient.name for patient in patients})) == (569, 569)
    card = (checkout / "models/wdbc-risk/README.md").read_text()
    assert f"| 4 | `worst_area >= {LARGE_AREA:g}` | {len(large)} of 569 (5.3%) |" in card


@pytest.mark.parametrize("content", ["", "patient,diagnosis\n", "patient,worst_area,diagnosis\np1,much,benign\n"])
def test_another_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "patients.csv").write_text(content)
    with pytest.raises(DemoFailed, match=r"patients\.csv: expected the patients' table, found: "):
        read_patients(tmp_path / "patients.csv")


def test_the_reference_model_is_found_in_a_checkout_and_else_asked_for(checkout: Path, tmp_path: Path) -> None:
    assert model_folder(None) == checkout / "models/wdbc-risk"
    with pytest.raises(DemoFailed, match=f"expected the reference model wdbc-risk, found none in {tmp_path}") as caught:
        model_folder(tmp_path)
    assert "--models DIR" in caught.value.hint


def some_patients(count: int) -> list[Patient]:
    return [Patient(name=f"p{number}", features=(0.0,) * 30, large=number % 5 == 0) for number in range(count)]


def test_each_patient_is_seen_at_one_device_in_turn() -> None:
    wards = Wards(["a", "b"], some_patients(4))
    assert [(patient.name, turn) for patient, turn in (wards.next("a"), wards.next("a"), wards.next("a"))] == [
        ("p0", 1),
        ("p2", 2),
        ("p0", 3),
    ]
    assert wards.next("b")[0].name == "p1"


def test_a_referral_moves_patients_loses_none_and_spreads_them() -> None:
    patients = some_patients(60)
    wards = Wards(["a", "b", "c"], patients)
    assert wards.refer("a", lambda patient: patient.large) == 4
    assert not any(patient.large for patient in wards.patients("a"))
    everybody = [patient.name for device in ("a", "b", "c") for patient in wards.patients(device)]
    assert sorted(everybody) == sorted(patient.name for patient in patients)
    places = [number for number, patient in enumerate(wards.patients("b")) if patient.large]
    gaps = {after - before for before, after in pairwise(places)}
    assert max(gaps) - min(gaps) <= 1


def rollout(state: str, *devices: Mapping[str, JsonValue], reason: str = "", step: str | None = None) -> Fields:
    usual: dict[str, JsonValue] = {"phase": 0, "standing": "WAITING", "back": "NONE", "reason": "", "detail": ""}
    members = [{**usual, **device} for device in devices]
    return Fields.of({"state": state, "phase_name": "canary", "step": step, "reason": reason, "devices": members}, "")


def test_news_is_said_once_and_together() -> None:
    told: dict[str, str] = {}
    working: dict[str, JsonValue] = {"standing": "WORKING", "reason": "probing"}
    first = rollout("PROGRESSING", {"device": "a", **working}, {"device": "b", **working}, step="OFFERING")
    assert news(told, first) == ["a, b: probing", "rollout: PROGRESSING canary offering"]
    assert news(told, first) == []
    second = rollout(
        "ROLLING_BACK",
        {"device": "a", "standing": "FAILED", "detail": "case 3 differs"},
        {"device": "b", "standing": "SUCCEEDED", "back": "ASKED"},
        reason="1 of 2 failed",
    )
    assert news(told, second) == [
        "a: failed: case 3 differs",
        "b: asked to go back",
        "rollout: ROLLING_BACK",
        "reason: 1 of 2 failed",
    ]


def test_the_canary_is_the_device_of_the_first_phase() -> None:
    assert canary(rollout("DRAFT", {"device": "a", "phase": 1}, {"device": "b"})) == "b"


def test_everywhere_means_every_device() -> None:
    enough = everywhere(["a", "b"], 2)
    assert not enough((ENTRY,))
    assert enough((ENTRY, replace(ENTRY, device="b")))
    assert not enough((ENTRY, replace(ENTRY, device="b"), replace(ENTRY, version=1)))
