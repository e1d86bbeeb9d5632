"""Whose turn it is: on a database server transactions run side by side, and what one has read the next may change.

SQLite has one writer by construction, and asks for nothing of this.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

_SERVER: Final = "postgresql"


class Turn(IntEnum):
    """What one transaction at a time may change; any numbers that nothing else in the database uses.

    Who needs both takes them in this order.
    """

    ROLLOUTS = 0x4544_4756
    AUDIT = 0x4544_4757
    SCHEMA = 0x4544_4758


def take(session: Session, turn: Turn) -> None:
    """Wait until nobody else has `turn`, and keep it until the transaction ends.

    What is read after it stays true, so a rule about several rows is checked behind it.
    """
    take_on(session.connection(), turn)


def take_on(connection: Connection, turn: Turn) -> None:
    """As `take`, where there is no session."""
    if connection.dialect.name == _SERVER:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(turn)})


def are_taken(session: Session) -> bool:
    """Whether anybody else could come in between."""
    return session.get_bind().dialect.name == _SERVER
