"""Secrets that are shown once and kept as digests."""

from __future__ import annotations

import base64
import hashlib
import secrets


def new_secret(prefix: str) -> str:
    """256 random bits behind a prefix by which scanners and people recognise it."""
    return f"{prefix}{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """What is kept. One round is enough: nobody guesses 256 random bits, and tokens are checked at each request."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_id(prefix: str, letters: int = 10) -> str:
    """A short random name for people to read out: lower-case base32 without look-alikes 0, 1, 8 and 9."""
    return prefix + base64.b32encode(secrets.token_bytes(letters)).decode().lower()[:letters]
