"""Rows of accounts and tokens, in and out as frozen values."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from edgeward_fleet.accounts.model import Account, ApiToken, Role
from edgeward_fleet.db.schema import AccountRow, ApiTokenRow, SettingRow
from edgeward_fleet.errors import NotFound

_SETUP: str = "setup_sha256"


def account_row(session: Session, username: str) -> AccountRow:
    """Raises NotFound."""
    row = session.get(AccountRow, username)
    if row is None:
        raise NotFound(f"account {username[:70]!r}: expected an existing account, there is none of that name")
    return row


def account(row: AccountRow) -> Account:
    return Account(
        username=row.username,
        role=Role(row.role),
        disabled=row.disabled,
        created_at=row.created_at,
        created_by=row.created_by,
    )


def accounts(session: Session, *, after: str, limit: int) -> list[Account]:
    query = select(AccountRow).where(AccountRow.username > after).order_by(AccountRow.username).limit(limit)
    return [account(row) for row in session.scalars(query)]


def active_admins(session: Session) -> int:
    query = select(func.count()).select_from(AccountRow)
    return session.scalar(query.where(AccountRow.role == Role.ADMIN, AccountRow.disabled.is_(False))) or 0


def token(row: ApiTokenRow) -> ApiToken:
    return ApiToken(
        token_id=row.token_id,
        username=row.username,
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def live_tokens(session: Session, username: str, now: datetime) -> list[ApiToken]:
    query = select(ApiTokenRow).where(
        ApiTokenRow.username == username, ApiTokenRow.revoked_at.is_(None), ApiTokenRow.expires_at > now
    )
    return [token(row) for row in session.scalars(query.order_by(ApiTokenRow.created_at))]


def revoke_tokens(session: Session, username: str, now: datetime) -> None:
    """End every token of `username`."""
    session.execute(
        update(ApiTokenRow)
        .where(ApiTokenRow.username == username, ApiTokenRow.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def set_setup_sha256(session: Session, sha256: str) -> None:
    session.merge(SettingRow(key=_SETUP, value=sha256))


def take_setup_sha256(session: Session, sha256: str) -> bool:
    """Use the set-up link up; of two who try at once, one gets True."""
    taken = session.execute(
        delete(SettingRow).where(SettingRow.key == _SETUP, SettingRow.value == sha256).returning(SettingRow.key)
    )
    return taken.first() is not None
