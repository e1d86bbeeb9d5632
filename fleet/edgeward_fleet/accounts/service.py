"""Log in, tokens, accounts. Each change of state writes its audit entry in the same transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeward_fleet.accounts import repository
from edgeward_fleet.accounts.model import (
    Account,
    ApiToken,
    NewToken,
    Principal,
    Role,
    check_password,
    check_username,
)
from edgeward_fleet.accounts.passwords import Passwords
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import SYSTEM, Actor
from edgeward_fleet.clock import Clock, is_due
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.schema import AccountRow, ApiTokenRow
from edgeward_fleet.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from edgeward_fleet.ratelimit import RateLimit
from edgeward_fleet.secrets import digest, new_id, new_secret
from edgeward_fleet.settings import Settings

MAX_TOKEN_DAYS: Final = 366
_USED_RESOLUTION: Final = timedelta(minutes=1)  # `last_used_at` must not cost a write per request
_UNKNOWN: Final = "expected a valid token, got one that is unknown or revoked"
_WRONG: Final = "expected a known username with its password, got another pair"


class Accounts:
    """Everything about who may use the fleet."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._login_life = settings.login_life
        self._passwords = Passwords(settings.argon2)
        self._by_address = RateLimit("logins from one address", settings.logins_per_minute * 3)
        self._by_account = RateLimit("logins for one account", settings.logins_per_minute)

    async def authenticate(self, secret: str, address: str) -> Principal:
        """Who `secret` stands for, now.

        Raises:
            Unauthenticated: unknown, expired or revoked, or the account is disabled.
        """
        now = self._clock()
        return await self._database.run(lambda session: _principal(session, secret, address, now))

    async def login(self, username: str, password: str, address: str) -> NewToken:
        """Raises Unauthenticated, without saying which of the two was wrong, or TooMany."""
        self._by_address.take(address)
        self._by_account.take(username)
        stored = await self._database.run(lambda session: _password_hash(session, username))
        if not await self._passwords.matches(stored, password):
            await self._database.run(lambda session: _note_failed_login(session, username, address))
            raise Unauthenticated(_WRONG, hint="Check both; an admin can set a new password.")
        return await self._database.run(lambda session: self._open(session, username, stored, address))

    async def logout(self, principal: Principal) -> None:
        await self.revoke_token(principal, principal.token_id)

    async def set_up(self, secret: str, username: str, password: str, address: str) -> Account:
        """Make the first admin with the one-time link.

        Raises:
            Unauthenticated: the link is not (any more) the valid one.
            Invalid: the username or the password breaks a rule; the link stays valid.
        """
        self._by_address.take(address)
        check_username(username)
        check_password(password, username)
        stored = await self._passwords.hash(password)

        def work(session: Session) -> Account:
            if not repository.take_setup_sha256(session, digest(secret)):
                raise Unauthenticated(
                    "expected the valid set-up link, got one that was used or replaced",
                    hint="`edgeward-fleet setup-link` makes a new one while there is no admin.",
                )
            actor = Actor(name=username, address=address)
            return self._add(session, actor, username, stored, Role.ADMIN, action="account.set_up")

        return await self._database.run(work)

    async def page(self, *, after: str, limit: int) -> list[Account]:
        return await self._database.run(lambda session: repository.accounts(session, after=after, limit=limit))

    async def create(self, actor: Actor, username: str, password: str, role: Role) -> Account:
        """Raises Invalid or Conflict."""
        check_username(username)
        check_password(password, username)
        stored = await self._passwords.hash(password)

        def work(session: Session) -> Account:
            if session.get(AccountRow, username) is not None:
                raise Conflict(f"account {username!r}: expected a new name, there is one already")
            return self._add(session, actor, username, stored, role, action="account.create")

        return await self._database.run(work)

    async def update(
        self,
        actor: Actor,
        username: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        password: str | None = None,
    ) -> Account:
        """Change what is given. A new password or a disabled account ends the account's tokens.

        Raises:
            NotFound: no such account.
            Conflict: it would leave the fleet without an admin.
        """
        stored = None
        if password is not None:
            check_password(password, username)
            stored = await self._passwords.hash(password)
        now = self._clock()

        def work(session: Session) -> Account:
            row = repository.account_row(session, username)
            changed = _apply(row, role=role, disabled=disabled, password_hash=stored)
            audit.record(session, actor, "account.update", username, {"changed": list(changed)}, at=now)
            # Behind the entry, which waits for others: of two admins who demote each other, the second must see it.
            if repository.active_admins(session) == 0:
                raise Conflict("expected at least one active admin, this would leave none")
            if stored is not None or disabled:
                repository.revoke_tokens(session, username, now)
            return repository.account(row)

        return await self._database.run(work)

    async def change_own_password(self, principal: Principal, current: str, new: str) -> None:
        """Raises Forbidden when `current` is wrong. Ends every token of the account, this one too."""
        self._by_account.take(principal.username)
        stored = await self._database.run(lambda session: _password_hash(session, principal.username))
        if not await self._passwords.matches(stored, current):
            raise Forbidden("expected the present password, got another one", hint="An admin can set a new password.")
        await self.update(principal.actor, principal.username, password=new)

    async def tokens(self, username: str) -> list[ApiToken]:
        now = self._clock()
        return await self._database.run(lambda session: repository.live_tokens(session, username, now))

    async def create_token(self, principal: Principal, name: str, role: Role, days: int) -> NewToken:
        """Raises Forbidden when `role` is above the caller's."""
        if not principal.role.covers(role):
            raise Forbidden(
                f"role: expected at most your own ({principal.role}), got {role}", hint="Ask for less, or ask an admin."
            )
        if not 1 <= days <= MAX_TOKEN_DAYS:
            raise Invalid(f"expires_in_days: expected 1 to {MAX_TOKEN_DAYS}, got {days}")
        now = self._clock()

        def work(session: Session) -> NewToken:
            made = _new_token(session, principal.username, name, role, now, timedelta(days=days))
            detail = {"name": name, "role": role.value, "days": days}
            audit.record(session, principal.actor, "token.create", made.token.token_id, detail, at=now)
            return made

        return await self._database.run(work)

    async def revoke_token(self, principal: Principal, token_id: str) -> None:
        """End one of the account's tokens, the caller's own or one with at most the caller's role.

        Raises:
            NotFound: it is not a live token of this account.
            Forbidden: it has a higher role; a program must not lock its owner out.
        """
        now = self._clock()

        def work(session: Session) -> None:
            row = session.get(ApiTokenRow, token_id)
            if row is None or row.username != principal.username or row.revoked_at is not None:
                raise NotFound(f"token {token_id[:40]!r}: expected one of your own live tokens, there is no such one")
            role = _present_role(row, repository.account_row(session, row.username))
            if token_id != principal.token_id and not principal.role.covers(role):
                raise Forbidden(
                    f"token {token_id}: expected one with at most your own role ({principal.role}), got {role}",
                    hint="Log in with your password and revoke it then, or ask an admin.",
                )
            row.revoked_at = now
            audit.record(session, principal.actor, "token.revoke", token_id, at=now)

        await self._database.run(work)

    def _open(self, session: Session, username: str, stored: str | None, address: str) -> NewToken:
        row = repository.account_row(session, username)
        if row.disabled or row.password_hash != stored:  # changed while the password was being checked
            raise Unauthenticated(_WRONG, hint="The account may be disabled; ask an admin.")
        now = self._clock()
        made = _new_token(session, username, "login", Role(row.role), now, self._login_life)
        actor = Actor(name=username, address=address)
        audit.record(session, actor, "account.login", username, {"token": made.token.token_id}, at=now)
        return made

    def _add(self, session: Session, actor: Actor, username: str, stored: str, role: Role, *, action: str) -> Account:
        now = self._clock()
        row = AccountRow(
            username=username,
            password_hash=stored,
            role=role.value,
            disabled=False,
            created_at=now,
            created_by=actor.name,
        )
        session.add(row)
        audit.record(session, actor, action, username, {"role": role.value}, at=now)
        return repository.account(row)


def new_setup_secret(session: Session) -> str | None:
    """A new one-time secret for the first admin, which replaces an older one; None when there is an admin."""
    if repository.active_admins(session):
        return None
    secret = new_secret("ews_")
    repository.set_setup_sha256(session, digest(secret))
    audit.record(session, SYSTEM, "account.setup_link", "fleet")
    return secret


def _principal(session: Session, secret: str, address: str, now: datetime) -> Principal:
    row = session.scalar(select(ApiTokenRow).where(ApiTokenRow.sha256 == digest(secret)))
    if row is None:
        raise Unauthenticated(_UNKNOWN)
    return principal_of(session, row, address, now)


def principal_of(session: Session, row: ApiTokenRow, address: str, now: datetime) -> Principal:
    """Who a token stands for, now. Raises Unauthenticated: expired or revoked, or the account is disabled."""
    if row.revoked_at is not None:
        raise Unauthenticated(_UNKNOWN)
    if row.expires_at <= now:
        raise Unauthenticated("expected a valid token, got one that has expired")
    owner = repository.account_row(session, row.username)
    if owner.disabled:
        raise Unauthenticated("expected an active account, this one is disabled", hint="Ask an admin.")
    if is_due(row.last_used_at, now, _USED_RESOLUTION):
        row.last_used_at = now
    role = _present_role(row, owner)
    return Principal(username=row.username, role=role, token_id=row.token_id, address=address)


def _present_role(token: ApiTokenRow, owner: AccountRow) -> Role:
    """A demotion holds at once, also for the tokens that were made before it."""
    return min(Role(token.role), Role(owner.role), key=lambda each: each.rank)


def _new_token(session: Session, username: str, name: str, role: Role, now: datetime, life: timedelta) -> NewToken:
    secret = new_secret("ew_")
    row = ApiTokenRow(
        token_id=new_id("t-"),
        username=username,
        name=name,
        role=role.value,
        sha256=digest(secret),
        created_at=now,
        expires_at=now + life,
    )
    session.add(row)
    session.flush()
    return NewToken(token=repository.token(row), secret=secret)


def _password_hash(session: Session, username: str) -> str | None:
    row = session.get(AccountRow, username)
    return row.password_hash if row else None


def _note_failed_login(session: Session, username: str, address: str) -> None:
    """Only for names that exist: people type passwords into the field for the name."""
    if session.get(AccountRow, username) is not None:
        audit.record(session, Actor(name=username, address=address), "account.login_failed", username)


def _apply(row: AccountRow, *, role: Role | None, disabled: bool | None, password_hash: str | None) -> tuple[str, ...]:
    changed = []
    if role is not None and row.role != role.value:
        changed.append(f"role {row.role} → {role.value}")
        row.role = role.value
    if disabled is not None and row.disabled != disabled:
        changed.append("disabled" if disabled else "enabled")
        row.disabled = disabled
    if password_hash is not None:
        changed.append("password")
        row.password_hash = password_hash
    return tuple(changed)
