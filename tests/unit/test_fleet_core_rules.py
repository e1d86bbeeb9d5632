"""The pure parts of the fleet's core: roles, passwords, presence, rate, the audit chain, certificates."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from edgeward_contract.artifact import DeviceId
from edgeward_contract.schema import ContractError, parse_json
from edgeward_fleet import data_dir, log, serve
from edgeward_fleet.accounts.model import Role, check_password, check_username
from edgeward_fleet.audit.model import GENESIS, AuditEntry, problem_between
from edgeward_fleet.clock import is_due
from edgeward_fleet.devices.model import Presence, presence
from edgeward_fleet.enrolment import ca, passphrase
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.errors import DataDirError, FleetError, FleetRunning, Invalid, PassphraseError, TooMany
from edgeward_fleet.hosts import host_name
from edgeward_fleet.ratelimit import HOUR, RateLimit
from edgeward_fleet.settings import Settings
from edgeward_fleet.tls import ServerTls
from support.fleet import signing_request

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BED = DeviceId("bed-1")


def test_each_role_can_do_what_the_ones_below_can() -> None:
    assert [[high.covers(low) for low in Role] for high in Role] == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, True],
    ]


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("short", "expected 12 to 256 characters, got 5"),
        ("x" * 257, "expected 12 to 256 characters, got 257"),
        ("abababababab", "at least 5 different characters"),
        ("my name is ada!", "without the username"),
        ("Password1234", "not among the best known"),
        ("edgeward2026", "not among the best known"),
    ],
)
def test_a_weak_password_is_refused_with_the_rule_and_without_the_password(password: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_password(password, "ada")
    assert words in str(caught.value)
    assert password not in str(caught.value)


def test_length_is_enough_for_a_password() -> None:
    assert check_password("correct horse battery staple", "ada")


@pytest.mark.parametrize("text", ["localhost", "fleet.example", "fleet-2", "192.0.2.1", "::1", "2001:db8::1", "a" * 63])
def test_a_host_is_a_name_or_an_address(text: str) -> None:
    assert host_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bad host!",
        "fleet:8443",
        "https://fleet",
        "-a",
        "a-",
        "a..b",
        "a" * 64,
        "300.1.1.1",
        "flëet",
        "[::1]",
        "a\n",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a host name or an IP address, without a port, got"):
        host_name(text)


def test_nobody_is_called_as_the_audit_log_calls_the_fleet() -> None:
    with pytest.raises(Invalid, match="expected another name, 'system' is what the audit log calls the fleet itself"):
        check_username("system")


@pytest.mark.parametrize("username", ["", "Ada", "a b", "-ada", "ada.", "a" * 65, "ada\n", "../ada"])
def test_a_username_that_breaks_the_rule_is_refused(username: str) -> None:
    with pytest.raises(Invalid, match="username: expected"):
        check_username(username)


@pytest.mark.parametrize(
    ("silence_s", "expected"),
    [
        (0, "online"),
        (179, "online"),
        (180, "late"),
        (899, "late"),
        (900, "offline"),
        (10**7, "offline"),
        (-5, "online"),
        (-(10**7), "offline"),
    ],
)
def test_presence_follows_silence(silence_s: int, expected: str) -> None:
    assert _presence(NOW - timedelta(seconds=silence_s)) == expected


def test_presence_of_a_device_that_was_never_seen_or_is_revoked() -> None:
    assert _presence(None) is Presence.NEVER
    assert _presence(NOW, revoked=True) is Presence.REVOKED


def _presence(last_seen_at: datetime | None, *, revoked: bool = False) -> Presence:
    return presence(
        last_seen_at=last_seen_at,
        revoked=revoked,
        now=NOW,
        late_after=timedelta(minutes=3),
        offline_after=timedelta(minutes=15),
    )


def test_a_time_is_noted_again_when_it_is_old_or_of_a_clock_that_ran_ahead() -> None:
    minute = timedelta(minutes=1)
    assert is_due(None, NOW, minute)
    assert not is_due(NOW, NOW, minute)
    assert not is_due(NOW - minute * 0.9, NOW, minute)
    assert is_due(NOW - minute, NOW, minute)
    assert is_due(NOW + minute * 0.1, NOW, minute)


class Ticking:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_then_its_pace_and_says_how_long_to_wait() -> None:
    clock = Ticking()
    limit = RateLimit("tries", 6, clock=clock)
    for _ in range(6):
        limit.take("a")
    with pytest.raises(TooMany, match="at most 6 tries a minute") as caught:
        limit.take("a")
    assert caught.value.retry_after_s == 10
    limit.take("b")
    clock.now = 10.0
    limit.take("a")
    with pytest.raises(TooMany):
        limit.take("a")


def test_a_bucket_of_an_hour_says_so() -> None:
    limit = RateLimit("tries", 2, HOUR, clock=Ticking())
    limit.take("a")
    limit.take("a")
    with pytest.raises(TooMany, match="at most 2 tries an hour, got more") as caught:
        limit.take("a")
    assert caught.value.retry_after_s == 1800


def test_buckets_do_not_grow_with_the_number_of_attackers() -> None:
    limit = RateLimit("tries", 1, clock=Ticking())
    for number in range(10_001):
        limit.take(str(number))
    limit.take("0")  # the least recently used one was forgotten
    with pytest.raises(TooMany):
        limit.take("10000")


def _entry(sequence: int, previous: str) -> AuditEntry:
    blank = AuditEntry(
        sequence=sequence,
        at=NOW,
        actor="ada",
        address="",
        action="a.b",
        subject="x",
        detail="{}",
        previous_sha256=previous,
        sha256="",
    )
    return dataclasses.replace(blank, sha256=blank.expected_sha256())


def test_the_audit_chain_notices_a_change_a_cut_and_a_forged_link() -> None:
    first = _entry(1, GENESIS)
    second = _entry(2, first.sha256)
    assert problem_between(None, first) is None
    assert problem_between(first, second) is None
    assert "content to match its digest" in str(problem_between(first, dataclasses.replace(second, actor="eve")))
    assert "expected entry 1, got entry 2" in str(problem_between(None, second))
    assert "digest of the entry before" in str(problem_between(first, _entry(2, GENESIS)))


def _device_certificate(root: ca.Root) -> x509.Certificate:
    return ca.device_certificate(root, ca.new_key().public_key(), BED, NOW, timedelta(days=30))


def test_a_device_certificate_is_for_clients_alone_and_names_the_device() -> None:
    certificate = _device_certificate(ca.new_root(NOW))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [each.dotted_string for each in usage] == ["1.3.6.1.5.5.7.3.2"]
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "bed-1"
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_never_outlives_its_root() -> None:
    root = ca.new_root(NOW - ca.ROOT_LIFE + timedelta(days=5))
    assert _device_certificate(root).not_valid_after_utc == root.certificate.not_valid_after_utc


def test_the_subject_of_a_request_is_not_taken() -> None:
    key = ca.public_key_of_request(signing_request(ca.new_key(), common_name="somebody-else"))
    certificate = ca.device_certificate(ca.new_root(NOW), key, BED, NOW, timedelta(days=30))
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "bed-1"


def _rsa_request() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _forged_request() -> str:
    request = x509.load_pem_x509_csr(signing_request(ca.new_key()).encode())
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[der.index(b"whatever")] ^= 1  # the signature no longer fits what was signed
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("request_pem", "words"),
    [
        ("", "expected a PEM certificate signing request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "expected a PEM"),
        ("x" * 20_000, "at most 16384 characters"),
        (_rsa_request(), "expected a key on the curve P-256 or P-384, got RSAPublicKey"),
        (signing_request(ec.generate_private_key(ec.SECP521R1())), "got secp521r1"),
        (_forged_request(), "signature does not fit"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(request_pem: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        ca.public_key_of_request(request_pem)


def test_after_a_rotation_an_old_device_and_a_new_one_both_know_the_server(tmp_path: Path) -> None:
    old, new = ca.new_root(NOW), ca.new_root(NOW)
    assert old.certificate.subject != new.certificate.subject
    cross = ca.cross_certificate(new, old, NOW)
    key = ca.new_key()
    leaf = ca.server_certificate(new, key.public_key(), ("localhost",), datetime.now(UTC), timedelta(days=1))
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = tmp_path / "server.pem"
    chain.write_bytes(plain + (ca.pem(leaf) + ca.pem(cross)).encode())
    for trusted in (old, new):
        assert _handshake(chain, ca.pem(trusted.certificate)) == "done"
    assert "verify failed" in _handshake(chain, ca.pem(ca.new_root(NOW).certificate))


def _handshake(server_chain: Path, trusted_pem: str) -> str:
    """A handshake in memory: no socket, no thread."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_chain)
    client = ssl.create_default_context(cadata=trusted_pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return str(error)
    return "done"


def test_the_passphrase_comes_from_the_environment_or_is_made_once(tmp_path: Path) -> None:
    made = passphrase.find({}, tmp_path, make=True)
    assert (tmp_path / passphrase.GENERATED).stat().st_mode & 0o777 == 0o600
    assert passphrase.find({}, tmp_path).secret == made.secret
    assert passphrase.find({passphrase.VARIABLE: "twelve bytes!"}, tmp_path).secret == b"twelve bytes!"
    file = tmp_path / "mine"
    file.write_text("another passphrase\n")
    found = passphrase.find({passphrase.FILE_VARIABLE: str(file)}, tmp_path)
    assert found.secret == b"another passphrase"
    assert "another" not in repr(found)


def test_a_passphrase_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one, of a disk that was full at the first start, opened nothing ever after."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataDirError, match=r"ca\.passphrase: expected a file that can be written, got: No space left"):
        passphrase.find({}, tmp_path, make=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_nobody_from_a_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with data_dir.owned(tmp_path), pytest.raises(FleetRunning, match="process unknown does"), data_dir.owned(tmp_path):
        pass


def test_a_server_certificate_of_a_clock_that_ran_ahead_is_made_anew(tmp_path: Path) -> None:
    """Nobody would take it: it is not valid yet."""
    root = ca.new_root(NOW)
    now = NOW + timedelta(days=1)
    tls = ServerTls(
        Authority(root=root, trusted=(root.certificate,), cross=()), Settings(data_dir=tmp_path), lambda: now
    )
    now = NOW + timedelta(hours=23.5)
    assert not tls.renew_if_due()
    now = NOW + timedelta(hours=22)
    assert tls.renew_if_due()
    assert not tls.renew_if_due()


def test_a_certificate_that_cannot_be_renewed_does_not_end_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = ca.new_root(NOW)
    known = Authority(root=root, trusted=(root.certificate,), cross=())
    now = NOW
    tls = ServerTls(known, Settings(data_dir=tmp_path), lambda: now)
    present = (tmp_path / "server.pem").read_bytes()
    now = NOW + timedelta(days=61)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        serve.look_after(tls)
    assert "certificate could not be renewed" in caplog.text
    assert (tmp_path / "server.pem").read_bytes() == present
    serve.look_after(tls)
    assert (tmp_path / "server.pem").read_bytes() != present


def test_a_passphrase_that_is_short_or_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError, match="expected a passphrase of at least 12 bytes, got 5"):
        passphrase.find({passphrase.VARIABLE: "short"}, tmp_path)
    with pytest.raises(PassphraseError, match="expected a readable file"):
        passphrase.find({passphrase.FILE_VARIABLE: str(tmp_path / "nowhere")}, tmp_path)
    with pytest.raises(PassphraseError, match=r"ca\.passphrase: expected a readable file with the passphrase"):
        passphrase.find({}, tmp_path)


def _families() -> list[type[FleetError]]:
    found, todo = [], [FleetError]
    while todo:
        family = todo.pop()
        found.append(family)
        todo += family.__subclasses__()
    return found


@pytest.mark.parametrize("family", _families(), ids=lambda family: family.__name__)
def test_every_family_of_errors_has_a_status_a_title_and_a_way_out(family: type[FleetError]) -> None:
    assert 400 <= family.status < 600
    assert family.title
    assert family.hint.endswith(".") or family.hint.endswith("`")


def test_a_log_line_with_a_devices_words_in_it_is_one_line() -> None:
    """A duplicate key is named in the complaint of it, whatever the key is."""
    key = rb'"\n2026-11-28T08:00:00.000Z info serve: all is well\u001b[2J"'
    with pytest.raises(ContractError) as refused:
        parse_json(b"{" + key + b":1," + key + b":2}")
    record = logging.LogRecord("edgeward_fleet.link.mqtt_inbox", logging.WARNING, "f", 1, "%s", (refused.value,), None)
    line = log.TextLines().format(record)
    assert line.isprintable()
    assert r"\n2026-11-28T08:00:00.000Z info serve: all is well\x1b[2J: expected each key once" in line
