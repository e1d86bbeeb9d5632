"""Roles and the rules for names and passwords; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from edgeward_fleet.audit.model import SYSTEM, Actor
from edgeward_fleet.errors import Invalid

MIN_PASSWORD: Final = 12
MAX_PASSWORD: Final = 256  # argon2 would take more; a megabyte of password is an attack
_USERNAME: Final = re.compile(r"[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?")
# NIST SP 800-63B section 3.1.1.2: length and a list of known bad ones, no rules about kinds of characters.
_KNOWN: Final = ("password", "qwerty", "letmein", "administrator", "welcome", "changeme", "edgeward", "123456789")


class Role(StrEnum):
    """Each can do what the ones before it can."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def covers(self, needed: Role) -> bool:
        return self.rank >= needed.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person, without the password."""

    username: str
    role: Role
    disabled: bool
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token, without its secret."""

    token_id: str
    username: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """The only moment at which the secret is known."""

    token: ApiToken
    secret: str


def check_username(username: str) -> str:
    """Raises Invalid."""
    if not _USERNAME.fullmatch(username):
        raise Invalid(
            f"username: expected a-z, 0-9, '.', '_', '-', '@' (at most 64, no sign at an end), got {username[:70]!r}"
        )
    if username == SYSTEM.name:
        raise Invalid(f"username: expected another name, {SYSTEM.name!r} is what the audit log calls the fleet itself")
    return username


def check_password(password: str, username: str) -> str:
    """Raises Invalid, which never repeats the password."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Invalid(f"password: expected {MIN_PASSWORD} to {MAX_PASSWORD} characters, got {len(password)}")
    plain = password.lower()
    if len(set(plain)) < 5:
        raise Invalid("password: expected at least 5 different characters, got fewer")
    if len(username) >= 3 and username in plain:
        raise Invalid("password: expected one without the username in it")
    if any(len(plain) - len(word) < 8 for word in _KNOWN if word in plain):
        raise Invalid("password: expected one that is not among the best known, got a well-known word with an ending")
    return password


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request to the admin port, with the role that the token gives at this moment."""

    username: str
    role: Role
    token_id: str
    address: str

    @property
    def actor(self) -> Actor:
        return Actor(name=self.username, address=self.address)
