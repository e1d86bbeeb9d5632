"""Browser sessions: a secret in a cookie that stands on an API token, and ends by itself.

The token is made by an ordinary log-in, and its own secret is thrown away: whatever ends tokens (a new password, a
closed account, a revocation) ends the session, and the roles are the token's.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete
from sqlalchemy.orm import Session

from edgeward_fleet.accounts.model import Principal
from edgeward_fleet.accounts.service import Accounts, principal_of
from edgeward_fleet.clock import Clock, is_due
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.schema import ApiTokenRow, SessionRow
from edgeward_fleet.errors import Unauthenticated
from edgeward_fleet.secrets import digest, new_secret

IDLE: Final = timedelta(minutes=15)
ABSOLUTE: Final = timedelta(hours=12)
_SEEN_RESOLUTION: Final = timedelta(seconds=20)  # `seen_at` must not cost a write per page
_AGAIN: Final = "Log in again."


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSession:
    """A log-in of a browser. `secret` is what its cookie holds; the fleet keeps the digest."""

    secret: str
    principal: Principal

    @property
    def form_token(self) -> str:
        """What every form of this session carries: who cannot read the page cannot know it (CSRF)."""
        return form_token(self.secret)


def form_token(secret: str) -> str:
    """Derived, so that nothing more has to be kept; it does not tell the secret."""
    return hmac.new(secret.encode(), b"edgeward form", hashlib.sha256).hexdigest()


class Sessions:
    """Open, find and end browser sessions."""

    def __init__(self, database: Database, accounts: Accounts, clock: Clock) -> None:
        self._database: Final = database
        self._accounts: Final = accounts
        self.clock: Final = clock

    async def open(self, username: str, password: str, address: str) -> BrowserSession:
        """Log in. Raises Unauthenticated or TooMany."""
        made = await self._accounts.login(username, password, address)
        secret, now = new_secret("ewb_"), self.clock()

        def work(session: Session) -> Principal:
            _forget_ended(session, now)
            token_id = made.token.token_id
            session.add(SessionRow(sha256=digest(secret), token_id=token_id, created_at=now, seen_at=now))
            return principal_of(session, session.get_one(ApiTokenRow, token_id), address, now)

        return BrowserSession(secret=secret, principal=await self._database.run(work))

    async def find(self, secret: str, address: str, *, is_activity: bool) -> BrowserSession:
        """The session of a cookie. `is_activity` False for what a page asks by itself: that keeps nobody logged in.

        Raises:
            Unauthenticated: unknown, idle for too long, too old, or its account or token was ended.
        """
        now = self.clock()

        def work(session: Session) -> Principal:
            row = session.get(SessionRow, digest(secret))
            if row is None:
                raise Unauthenticated("the session ended, or never began", hint=_AGAIN)
            _check_age(row, now)
            if is_activity and is_due(row.seen_at, now, _SEEN_RESOLUTION):
                row.seen_at = now
            return principal_of(session, session.get_one(ApiTokenRow, row.token_id), address, now)

        return BrowserSession(secret=secret, principal=await self._database.run(work))

    async def close(self, opened: BrowserSession) -> None:
        """Log out: the session and the token that it stands on are ended."""
        sha256 = digest(opened.secret)
        await self._database.run(lambda session: session.execute(delete(SessionRow).filter_by(sha256=sha256)))
        await self._accounts.logout(opened.principal)


def _check_age(row: SessionRow, now: datetime) -> None:
    if now - row.seen_at >= IDLE:
        minutes = int(IDLE.total_seconds() // 60)
        raise Unauthenticated(f"the session ended after {minutes} minutes without use", hint=_AGAIN)
    if now - row.created_at >= ABSOLUTE:
        hours = int(ABSOLUTE.total_seconds() // 3600)
        raise Unauthenticated(f"the session ended after {hours} hours", hint=_AGAIN)


def _forget_ended(session: Session, now: datetime) -> None:
    """Rows of sessions that can never be used again; a log-in is often enough to clean up."""
    ended = (SessionRow.seen_at <= now - IDLE) | (SessionRow.created_at <= now - ABSOLUTE)
    session.execute(delete(SessionRow).where(ended))
