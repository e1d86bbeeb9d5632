"""Which key used an enrolment token: whoever lost the answer may ask for it again.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A token that was used before has no key: it stays used up."""
    op.add_column("enrolment_tokens", sa.Column("key_sha256", sa.String(length=64), nullable=True))
