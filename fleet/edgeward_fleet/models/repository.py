"""Releases and artifacts in the database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ModelName, ReleaseRef, Sha256
from edgeward_contract.chunks import ChunkIndex
from edgeward_contract.manifest import Manifest
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.db.schema import (
    ArtifactChunkRow,
    ArtifactRow,
    DesiredModelRow,
    DeviceRow,
    ReleaseRow,
    ReportedModelRow,
)
from edgeward_fleet.errors import NotFound
from edgeward_fleet.models.model import ModelSummary, Release, WhereItRuns


def has_artifact(session: Session, sha256: Sha256) -> bool:
    return session.get(ArtifactRow, sha256) is not None


def artifact_size(session: Session, sha256: Sha256) -> int | None:
    """In bytes; None when it was never pushed."""
    return session.scalar(select(ArtifactRow.size_bytes).where(ArtifactRow.sha256 == sha256))


def add_artifact(session: Session, index: ChunkIndex, actor: Actor, now: datetime) -> None:
    artifact = index.artifact
    session.add(
        ArtifactRow(
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
            chunk_index=index.canonical(),
            created_at=now,
            created_by=actor.name,
        )
    )
    session.flush()
    stored = {form.sha256 for chunk in index.chunks for form in chunk.stored}
    session.add_all(ArtifactChunkRow(sha256=each, artifact_sha256=artifact.sha256) for each in sorted(stored))


def chunk_index(session: Session, sha256: Sha256) -> bytes:
    """The index document. Raises NotFound."""
    row = session.get(ArtifactRow, sha256)
    if row is None:
        raise NotFound(f"expected an artifact that was pushed, there is none with sha256 {sha256[:12]}…")
    return row.chunk_index


def add_release(session: Session, manifest: Manifest, data: bytes, sha256: Sha256, actor: Actor, now: datetime) -> None:
    session.add(
        ReleaseRow(
            sha256=sha256,
            name=manifest.name,
            version=manifest.version,
            manifest=data,
            file_sha256=manifest.file.sha256,
            golden_sha256=manifest.golden.file.sha256,
            created_at=now,
            created_by=actor.name,
        )
    )


def find_release(session: Session, ref: ReleaseRef) -> Release | None:
    query = select(ReleaseRow).where(ReleaseRow.name == ref.name, ReleaseRow.version == ref.version)
    row = session.scalar(query)
    return _release(row) if row else None


def release(session: Session, ref: ReleaseRef) -> Release:
    """Raises NotFound."""
    found = find_release(session, ref)
    if found is None:
        raise NotFound(
            f"expected a registered release, there is no {ref}",
            hint="`edgeward model list` shows what there is; `edgeward model push` adds a release.",
        )
    return found


def release_by_sha256(session: Session, sha256: Sha256) -> Release:
    """Raises NotFound."""
    row = session.get(ReleaseRow, sha256)
    if row is None:
        raise NotFound(f"expected a registered release, there is none with sha256 {sha256[:12]}…")
    return _release(row)


def releases_of(session: Session, name: ModelName) -> list[Release]:
    """All versions, newest first. Raises NotFound."""
    rows = session.scalars(select(ReleaseRow).where(ReleaseRow.name == name).order_by(ReleaseRow.version.desc()))
    found = [_release(row) for row in rows]
    if not found:
        raise NotFound(f"expected a registered model, there is no {name}", hint="`edgeward model list` shows all.")
    return found


def summaries(session: Session, *, after: str, limit: int) -> list[ModelSummary]:
    newest = (
        select(ReleaseRow.name, func.max(ReleaseRow.version).label("version"), func.count().label("releases"))
        .where(ReleaseRow.name > after)
        .group_by(ReleaseRow.name)
        .order_by(ReleaseRow.name)
        .limit(limit)
        .subquery()
    )
    joined = (ReleaseRow.name == newest.c.name) & (ReleaseRow.version == newest.c.version)
    query = select(ReleaseRow, newest.c.releases).join(newest, joined).order_by(ReleaseRow.name)
    return [
        ModelSummary(name=ModelName(row.name), releases=releases, latest=_release(row))
        for row, releases in session.execute(query)
    ]


def where_it_runs(session: Session, sha256: Sha256) -> WhereItRuns:
    """Revoked devices do not count."""
    wanted = (
        select(func.count())
        .select_from(DesiredModelRow)
        .join(DeviceRow, DeviceRow.device_id == DesiredModelRow.device_id)
        .where(DesiredModelRow.release_sha256 == sha256, DeviceRow.revoked_at.is_(None))
    )
    live = (
        select(ReportedModelRow.live_slot, func.count())
        .join(DeviceRow, DeviceRow.device_id == ReportedModelRow.device_id)
        .where(ReportedModelRow.live_sha256 == sha256, DeviceRow.revoked_at.is_(None))
        .group_by(ReportedModelRow.live_slot)
    )
    slots = {slot: count for slot, count in session.execute(live)}
    return WhereItRuns(
        desired=session.scalar(wanted) or 0, current=slots.get("current", 0), candidate=slots.get("candidate", 0)
    )


def may_read_manifest(session: Session, device: DeviceId, sha256: Sha256) -> bool:
    """Whether the device's desired state names the release."""
    wanted = (DesiredModelRow.device_id == device) & (DesiredModelRow.release_sha256 == sha256)
    return session.scalar(select(exists().where(wanted))) or False


def may_read_artifact(session: Session, device: DeviceId, sha256: Sha256) -> bool:
    """Whether a release that the device's desired state names holds the artifact."""
    held = (ReleaseRow.file_sha256 == sha256) | (ReleaseRow.golden_sha256 == sha256)
    query = (
        select(DesiredModelRow.model)
        .join(ReleaseRow, ReleaseRow.sha256 == DesiredModelRow.release_sha256)
        .where(DesiredModelRow.device_id == device, held)
        .limit(1)
    )
    return session.scalar(query) is not None


def may_read_chunk(session: Session, device: DeviceId, sha256: Sha256) -> bool:
    """Whether an artifact that the device may read holds the chunk."""
    artifact = ArtifactChunkRow.artifact_sha256
    query = (
        select(DesiredModelRow.model)
        .join(ReleaseRow, ReleaseRow.sha256 == DesiredModelRow.release_sha256)
        .join(ArtifactChunkRow, (artifact == ReleaseRow.file_sha256) | (artifact == ReleaseRow.golden_sha256))
        .where(DesiredModelRow.device_id == device, ArtifactChunkRow.sha256 == sha256)
        .limit(1)
    )
    return session.scalar(query) is not None


def _release(row: ReleaseRow) -> Release:
    return Release(
        ref=ReleaseRef(ModelName(row.name), row.version),
        sha256=Sha256(row.sha256),
        manifest=row.manifest,
        created_at=row.created_at,
        created_by=row.created_by,
    )
