"""Every table of the fleet. Rows never leave the repositories; what leaves them are frozen values."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from edgeward_contract.schema import JsonValue
from edgeward_fleet.db.base import Base, Moment


class SettingRow(Base):
    """Small facts of the fleet itself, such as the digest of the set-up link and the head of the audit chain."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class AccountRow(Base):
    """A person, or a program with a name of its own."""

    __tablename__ = "accounts"

    username: Mapped[str] = mapped_column(String(64), primary_key=True)
    password_hash: Mapped[str] = mapped_column(Text)  # argon2id, with its parameters
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(Moment)
    created_by: Mapped[str] = mapped_column(String(64))


class ApiTokenRow(Base):
    """A secret that stands for an account, at most with its role. Only the digest is kept."""

    __tablename__ = "api_tokens"

    token_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    username: Mapped[str] = mapped_column(ForeignKey("accounts.username"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    last_used_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)


class SessionRow(Base):
    """A browser that is logged in. It stands on an API token, so whatever ends the token ends the session.

    `seen_at` is the last time that a person did something; a page that refreshes itself does not count.
    """

    __tablename__ = "sessions"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("api_tokens.token_id"), index=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)


class AuthorityRow(Base):
    """A root of the fleet's own CA. One is active; older ones stay trusted while a certificate of theirs lives."""

    __tablename__ = "authorities"

    fingerprint: Mapped[str] = mapped_column(String(80), primary_key=True)  # sha256:<hex of the DER>
    certificate_pem: Mapped[str] = mapped_column(Text)
    cross_pem: Mapped[str | None] = mapped_column(Text)  # this root's key, certified by the root before it
    key_pem: Mapped[str] = mapped_column(Text)  # PKCS #8, encrypted with the passphrase
    created_at: Mapped[datetime] = mapped_column(Moment)
    retired_at: Mapped[datetime | None] = mapped_column(Moment)


class DeviceRow(Base):
    """A device that has enrolled at least once."""

    __tablename__ = "devices"

    device_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    site: Mapped[str] = mapped_column(String(64), index=True)
    enrolled_at: Mapped[datetime] = mapped_column(Moment)
    hardware: Mapped[dict[str, JsonValue]] = mapped_column(JSON)
    last_seen_at: Mapped[datetime | None] = mapped_column(Moment)
    last_address: Mapped[str | None] = mapped_column(String(64))
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)


class CertificateRow(Base):
    """A certificate that the CA gave to a device. The serial number is a random 159-bit number in hex."""

    __tablename__ = "certificates"

    serial: Mapped[str] = mapped_column(String(40), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id"), index=True)
    authority: Mapped[str] = mapped_column(ForeignKey("authorities.fingerprint"), index=True)
    sha256: Mapped[str] = mapped_column(String(64))  # of the DER
    not_before: Mapped[datetime] = mapped_column(Moment)
    not_after: Mapped[datetime] = mapped_column(Moment)
    issued_at: Mapped[datetime] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_because: Mapped[str | None] = mapped_column(String(200))


class EnrolmentTokenRow(Base):
    """A right to enrol one device once. Only the digest is kept, and that of the public key which used it."""

    __tablename__ = "enrolment_tokens"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    site: Mapped[str] = mapped_column(String(64))
    device_id: Mapped[str] = mapped_column(String(64), index=True)
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    used_at: Mapped[datetime | None] = mapped_column(Moment)
    key_sha256: Mapped[str | None] = mapped_column(String(64))


class DeviceEventRow(Base):
    """A line in the life of a device: enrolled, renewed, revoked, and what its deployments did."""

    __tablename__ = "device_events"
    __table_args__ = (Index("ix_device_events_device", "device_id", "event_id"), {"sqlite_autoincrement": True})

    event_id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    device_id: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(Moment)
    kind: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, JsonValue]] = mapped_column(JSON)


class AuditRow(Base):
    """Who did what, when, from where. Triggers forbid changes; each row carries the digest of the one before."""

    __tablename__ = "audit"

    sequence: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    at: Mapped[datetime] = mapped_column(Moment)
    actor: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(String(200))
    detail: Mapped[str] = mapped_column(Text)  # canonical JSON, because the digest is over these very bytes
    previous_sha256: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))


class ArtifactRow(Base):
    """A file of a release, stored as chunks; `chunk_index` is the document that devices fetch."""

    __tablename__ = "artifacts"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    chunk_index: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Moment)
    created_by: Mapped[str] = mapped_column(String(64))


class ArtifactChunkRow(Base):
    """Which artifacts hold a chunk: who may fetch it follows from this."""

    __tablename__ = "artifact_chunks"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    artifact_sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), primary_key=True)


class ReleaseRow(Base):
    """A model version: the exact bytes of its manifest, named by their digest."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("name", "version"),)

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[bytes] = mapped_column(LargeBinary)
    file_sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)
    golden_sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    created_by: Mapped[str] = mapped_column(String(64))


class DesiredRow(Base):
    """What a device should be, as the document it fetches. `fetched_generation` is the newest that it was given."""

    __tablename__ = "desired"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id"), primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    fetched_generation: Mapped[int] = mapped_column(BigInteger)
    changed_at: Mapped[datetime] = mapped_column(Moment)


class DesiredModelRow(Base):
    """One model of a device's desired state, so that "who should run it" is a query."""

    __tablename__ = "desired_models"

    device_id: Mapped[str] = mapped_column(ForeignKey("desired.device_id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    release_sha256: Mapped[str] = mapped_column(ForeignKey("releases.sha256"), index=True)
    deployment: Mapped[str] = mapped_column(String(64))


class ReportedRow(Base):
    """The newest report of a device. `earlier_boots` keeps a late report of an old boot from passing for a new one.

    What an overview of all devices asks for stands in columns of its own; `unwell` are words, empty is well.
    """

    __tablename__ = "reported"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id"), primary_key=True)
    boot: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    earlier_boots: Mapped[list[str]] = mapped_column(JSON)
    generation: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(Moment)
    unwell: Mapped[str] = mapped_column(Text)
    outbox_records: Mapped[int] = mapped_column(BigInteger)
    outbox_oldest_s: Mapped[int] = mapped_column(BigInteger)


class ReportedModelRow(Base):
    """One model of a device's report, so that "where does it run" is a query."""

    __tablename__ = "reported_models"

    device_id: Mapped[str] = mapped_column(ForeignKey("reported.device_id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    live_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    live_slot: Mapped[str | None] = mapped_column(String(16))
    deployment: Mapped[str | None] = mapped_column(String(64))
    update_state: Mapped[str | None] = mapped_column(String(32))


class RecordRow(Base):
    """A record of a device, once. The unique key is what makes at-least-once delivery effectively once."""

    __tablename__ = "records"
    __table_args__ = (
        UniqueConstraint("device_id", "epoch", "sequence"),
        Index("ix_records_device", "device_id", "record_id"),
        Index("ix_records_model", "model", "version", "record_id"),
        {"sqlite_autoincrement": True},
    )

    record_id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    device_id: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    record_class: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(64), index=True)
    model: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[int | None] = mapped_column(BigInteger)
    wall_us: Mapped[int] = mapped_column(BigInteger)  # the device's clock: for people, it orders nothing
    latency_us: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    content: Mapped[bytes] = mapped_column(LargeBinary)  # canonical JSON: what the digest is over
    received_at: Mapped[datetime] = mapped_column(Moment)


class RolloutRow(Base):
    """A rollout: the spec that was approved, and how far it is."""

    __tablename__ = "rollouts"

    rollout_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    release_sha256: Mapped[str] = mapped_column(ForeignKey("releases.sha256"))
    spec: Mapped[bytes] = mapped_column(LargeBinary)
    spec_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(32), index=True)
    phase: Mapped[int]
    step: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Moment)
    created_by: Mapped[str] = mapped_column(String(64))
    approved_at: Mapped[datetime | None] = mapped_column(Moment)
    approved_by: Mapped[str | None] = mapped_column(String(64))
    since: Mapped[datetime] = mapped_column(Moment)
    phase_since: Mapped[datetime] = mapped_column(Moment)
    step_since: Mapped[datetime] = mapped_column(Moment)


class RolloutDeviceRow(Base):
    """A device's part in a rollout; see `rollouts.model.RolloutDevice`."""

    __tablename__ = "rollout_devices"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.rollout_id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.device_id"), primary_key=True, index=True)
    site: Mapped[str] = mapped_column(String(64))
    phase: Mapped[int]
    counted: Mapped[bool]
    standing: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    deployment: Mapped[str | None] = mapped_column(String(64))
    generation: Mapped[int] = mapped_column(BigInteger)
    former_sha256: Mapped[str | None] = mapped_column(ForeignKey("releases.sha256"))
    back: Mapped[str] = mapped_column(String(16))
    back_deployment: Mapped[str | None] = mapped_column(String(64))
    back_generation: Mapped[int] = mapped_column(BigInteger)
    requests: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    earlier_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    earlier_errors: Mapped[int] = mapped_column(BigInteger, server_default="0")


class RolloutEventRow(Base):
    """A line in the life of a rollout."""

    __tablename__ = "rollout_events"
    __table_args__ = (Index("ix_rollout_events_rollout", "rollout_id", "event_id"), {"sqlite_autoincrement": True})

    event_id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.rollout_id"))
    at: Mapped[datetime] = mapped_column(Moment)
    actor: Mapped[str] = mapped_column(String(64))  # an account, a device, or "fleet"
    kind: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
