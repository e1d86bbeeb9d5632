"""Whose turn it is: on a database server transactions run side by side, and what one has read the next may change.

SQLite has one writer by construction, and asks for nothing of this.
"""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import text
from sqlalchemy.orm import Session


class Turn(IntEnum):
    """What one transaction at a time may change; any numbers that nothing else in the database uses.

    Who needs both takes them in this order.
    """

    ROLLOUTS = 0x4544_4756
    AUDIT = 0x4544_4757


def take(session: Session, turn: Turn) -> None:
    """Wait until nobody else has `turn`, and keep it until the transaction ends."""
    if are_taken(session):
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(turn)})


def are_taken(session: Session) -> bool:
    """Whether anybody else could come in between."""
    return session.get_bind().dialect.name == "postgresql"
