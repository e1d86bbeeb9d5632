"""Keys, certificates and the folder that holds them."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edgeward_agent.errors import IdentityError
from edgeward_agent.identity import keys
from edgeward_agent.identity.enrolment import WrongFingerprint, fingerprint_digits
from edgeward_agent.identity.keys import IdentityDamaged, NotEnrolled, expiry_line, load_identity
from edgeward_agent.identity.renewal import renew_at_s, rest_s
from support.pki import TestCa

URL = "https://localhost:8444"
DAY_S = 86_400


def test_an_empty_folder_says_how_to_enrol(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match="expected an enrolled device, found no identity") as error:
        load_identity(tmp_path)
    assert "edgeward-agent enrol --fleet" in error.value.hint


def test_only_the_owner_reads_what_is_installed(tmp_path: Path) -> None:
    identity = TestCa().enrolled(tmp_path / "identity", URL)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in identity.folder.iterdir()}
    assert modes == {"device.key": 0o600, "device.pem": 0o600, "ca.pem": 0o600, "identity.json": 0o600}
    assert stat.S_IMODE(identity.folder.stat().st_mode) == 0o700


def test_a_signing_request_carries_the_key_and_proves_it() -> None:
    key = keys.new_key()
    request = x509.load_pem_x509_csr(keys.signing_request(key, "ward-3"))
    assert request.is_signature_valid and request.public_key() == key.public_key()
    assert key.curve.name == "secp256r1"


def test_the_pair_before_is_kept(tmp_path: Path) -> None:
    ca = TestCa()
    before = ca.enrolled(tmp_path, URL).key_file.read_bytes()
    ca.enrolled(tmp_path, URL)
    assert (tmp_path / "previous.key").read_bytes() == before != (tmp_path / "device.key").read_bytes()


@pytest.mark.parametrize("moved", range(5))
def test_an_installation_cut_off_anywhere_is_finished_at_the_next_start(tmp_path: Path, moved: int) -> None:
    """After the commit some files may be in place and others not; before it, all is as it was."""
    ca = TestCa()
    old, new = ca.enrolled(tmp_path / "old", URL), ca.enrolled(tmp_path / "new", URL, device="ward-4")
    new.folder.rename(old.folder / "next")
    for name in sorted(path.name for path in (old.folder / "next").iterdir())[:moved]:
        (old.folder / "next" / name).replace(old.folder / name)
    assert load_identity(old.folder).facts.device_id == "ward-4"
    assert not (old.folder / "next").exists()


def test_what_was_only_staged_changes_nothing(tmp_path: Path) -> None:
    ca = TestCa()
    identity = ca.enrolled(tmp_path, URL)
    key = keys.new_key()
    certificate = ca.sign("ward-9", key.public_key())
    keys.stage(tmp_path, key=key, certificate_pem=certificate, ca_pem=ca.pem, facts=identity.facts)
    assert load_identity(tmp_path).certificate == identity.certificate


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("device.key", b"no key", "expected a private key in PEM"),
        ("device.key", keys.key_pem(keys.new_key()), "expected the certificate of device.key, got one of another key"),
        ("device.pem", b"no certificate", "expected a certificate in PEM"),
        ("ca.pem", TestCa(name="another").pem, "expected one signed by ca.pem, got one of another issuer"),
        ("identity.json", b"{", "expected JSON"),
        ("identity.json", json.dumps({"device_id": "../x"}).encode(), "device_id: expected a name"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(tmp_path: Path, file: str, content: bytes, complaint: str) -> None:
    TestCa().enrolled(tmp_path, URL)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(IdentityDamaged, match=complaint):
        load_identity(tmp_path)


def test_a_missing_file_is_damage_and_not_a_new_device(tmp_path: Path) -> None:
    TestCa().enrolled(tmp_path, URL)
    (tmp_path / "device.key").unlink()
    with pytest.raises(IdentityDamaged, match=r"device.key: expected a readable file"):
        load_identity(tmp_path)


def test_two_authorities_may_be_trusted_while_the_fleet_changes_its_own(tmp_path: Path) -> None:
    ca = TestCa()
    ca.enrolled(tmp_path, URL)
    (tmp_path / "ca.pem").write_bytes(TestCa(name="next year's").pem + ca.pem)
    load_identity(tmp_path)


def test_an_expired_certificate_is_one_clear_line(tmp_path: Path) -> None:
    identity = TestCa().enrolled(tmp_path, URL, begins=timedelta(days=-31), ends=timedelta(days=-1))
    now_s = identity.certificate.not_valid_after_utc.timestamp() + 60
    line = expiry_line(identity, now_s)
    assert line.startswith("the device certificate expired on 20")
    assert line.endswith("until this device is enrolled again, or its clock is set if that is ahead")
    assert "serving goes on" in expiry_line(identity, now_s)
    assert identity.days_left(now_s) == -1
    assert expiry_line(identity, now_s - 120) == ""


@pytest.mark.parametrize(
    "text", ["AB" * 32, "sha256:" + "ab" * 32, ":".join(["AB"] * 32), "SHA256:" + ":".join(["ab"] * 32)]
)
def test_a_fingerprint_may_be_written_as_people_write_it(text: str) -> None:
    assert fingerprint_digits(text) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 31, "sha1:" + "ab" * 20, "xy" * 32])
def test_half_a_fingerprint_is_none(text: str) -> None:
    with pytest.raises(WrongFingerprint, match="expected sha256: and 64 hexadecimal digits"):
        fingerprint_digits(text)


def test_renewal_comes_at_two_thirds_of_the_lifetime_give_or_take_a_tenth() -> None:
    at = [renew_at_s(0, 30 * DAY_S, draw) / DAY_S for draw in (0.0, 0.5, 1.0)]
    assert at == pytest.approx([17.0, 20.0, 23.0])


def test_a_new_certificate_rests_for_hours_and_at_most_for_a_day_or_a_quarter_of_its_life() -> None:
    assert [rest_s(30 * DAY_S, early) / 3600 for early in (0, 1, 2, 4, 5, 3000)] == [1, 2, 4, 16, 24, 24]
    assert rest_s(7200, early=3) == 1800


def test_identity_errors_are_of_one_family() -> None:
    assert issubclass(NotEnrolled, IdentityError) and issubclass(WrongFingerprint, IdentityError)


def test_a_fresh_certificate_of_thirty_days_is_called_that(tmp_path: Path) -> None:
    identity = TestCa().enrolled(tmp_path, "https://localhost:1", ends=timedelta(days=30))
    end_s = identity.certificate.not_valid_after_utc.timestamp()
    assert identity.days_left(end_s - 30 * 86_400 + 60) == 30
    assert identity.days_left(end_s - 29 * 86_400 - 43_200) == 29
    assert identity.days_left(end_s - 43_200) == 0
    assert identity.days_left(end_s + 1) == -1
