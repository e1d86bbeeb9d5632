"""A record opens only where it was sealed, and only with its key."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.outbox.model import Draft, RecordRefused
from edgeward_agent.outbox.rows import Moment, Prepared, prepare, record_of
from edgeward_agent.outbox.sealing import (
    Cipher,
    Place,
    SealBroken,
    create_master,
    load_master,
    new_data_key,
    unwrap,
    wrap,
)
from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import MAX_RECORD_BYTES, RecordClass
from edgeward_contract.schema import JsonValue, canonical_json

PLACE = Place(device=DeviceId("ward-3"), epoch="e-1", sequence=7, kind="inference", record_class=RecordClass.RESULT)
MOMENT = Moment(boot="b", boot_us=5, wall_us=1_000_000, clock_trusted=False)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLACE, device=DeviceId("ward-4")),
        replace(PLACE, epoch="e-2"),
        replace(PLACE, sequence=8),
        replace(PLACE, kind="tombstone"),
        replace(PLACE, record_class=RecordClass.TELEMETRY),
    ],
)
def test_a_record_does_not_open_in_another_place(other: Place) -> None:
    cipher = Cipher(new_data_key())
    sealed = cipher.seal(b"secret", PLACE.associated_data())
    assert cipher.open(sealed, PLACE.associated_data()) == b"secret"
    with pytest.raises(SealBroken, match="expected the bytes that were sealed"):
        cipher.open(sealed, other.associated_data())


@given(flip=st.integers(0, 8 * (12 + 6 + 16) - 1))
def test_one_flipped_bit_breaks_the_seal(flip: int) -> None:
    cipher = Cipher(bytes(32))
    sealed = bytearray(cipher.seal(b"secret", b""))
    sealed[flip // 8] ^= 1 << flip % 8
    with pytest.raises(SealBroken):
        cipher.open(bytes(sealed), b"")


def test_short_bytes_are_broken_too() -> None:
    with pytest.raises(SealBroken):
        Cipher(bytes(32)).open(b"short", b"")


def test_the_master_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.key"
    made = create_master(path)
    assert path.stat().st_mode & 0o777 == 0o600
    key = new_data_key()
    assert unwrap(load_master(path), wrap(made, key, "k1"), "k1").open(Cipher(key).seal(b"x", b""), b"") == b"x"
    with pytest.raises(SealBroken):
        unwrap(made, wrap(made, key, "k1"), "k2")


def test_a_damaged_master_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "outbox.key"
    path.write_bytes(b"x" * 31)
    with pytest.raises(SealBroken, match=r"outbox\.key: expected 32 bytes, got 31"):
        load_master(path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\n"), inner, max_size=3),
    max_leaves=8,
)


@given(body=st.dictionaries(st.text("ab\n"), JSON, max_size=3))
def test_what_goes_in_comes_out_and_fits_its_estimate(body: dict[str, JsonValue]) -> None:
    prepared = prepare(Draft(record_class=RecordClass.RESULT, kind="inference", body=body), MOMENT)
    record = record_of(prepared.plaintext, PLACE)
    assert canonical_json(record.body) == canonical_json(body)
    assert (record.boot, record.boot_us, record.wall_us, record.clock_trusted) == ("b", 5, 1_000_000, False)
    assert len(canonical_json(record.document())) <= prepared.wire_bytes


def _prepare(body: dict[str, JsonValue], kind: str = "inference") -> Prepared:
    return prepare(Draft(record_class=RecordClass.RESULT, kind=kind, body=body), MOMENT)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"x": math.nan}, "k", "body: expected what JSON can say"),
        ({"x": "\ud800"}, "k", "body: expected what JSON can say"),
        ({}, "", "kind: expected 1 to 64 characters, got 0"),
        ({}, "k" * 65, "kind: expected 1 to 64 characters, got 65"),
        ({"x": "x" * MAX_RECORD_BYTES}, "k", f"record: expected at most {MAX_RECORD_BYTES} bytes, got"),
    ],
)
def test_what_cannot_be_a_record_is_refused_at_once(body: dict[str, JsonValue], kind: str, message: str) -> None:
    with pytest.raises(RecordRefused, match=message):
        _prepare(body, kind)


def test_the_time_of_the_event_wins_over_the_time_of_taking() -> None:
    taken = prepare(Draft(record_class=RecordClass.AUDIT, kind="k", body={}, wall_us=42), MOMENT)
    assert taken.wall_us == record_of(taken.plaintext, PLACE).wall_us == 42
