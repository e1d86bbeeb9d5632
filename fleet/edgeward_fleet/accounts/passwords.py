"""argon2id, off the event loop and out of the database thread: one check takes tens of milliseconds on purpose."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import argon2

from edgeward_fleet.settings import Argon2Cost


class Passwords:
    """Makes and checks password hashes (RFC 9106)."""

    def __init__(self, cost: Argon2Cost) -> None:
        self._hasher: Final = argon2.PasswordHasher(
            time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism
        )
        self._nobody: Final = self._hasher.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """An unknown account (`stored` None) takes as long as a wrong password, so that time tells no names."""
        right = await asyncio.to_thread(self._verify, stored or self._nobody, password)
        return right and stored is not None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
