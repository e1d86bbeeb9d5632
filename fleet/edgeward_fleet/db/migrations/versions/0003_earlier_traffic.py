"""What a release had answered on a device before its rollout was resumed.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A rollout that was resumed before counts from the beginning, as it did."""
    for name in ("earlier_requests", "earlier_errors"):
        op.add_column("rollout_devices", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
