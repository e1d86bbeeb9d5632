"""Called by Alembic. The connection comes from `db/migrate.py`, which owns the transaction too."""

from __future__ import annotations

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

import edgeward_fleet.db.schema  # noqa: F401  # fills the metadata
from edgeward_fleet.db.base import Base, Moment


def render_item(kind: str, item: object, autogen: AutogenContext) -> str | Literal[False]:
    """A migration must not depend on code that may change: our own type is written as what it is stored as."""
    if kind == "type" and isinstance(item, Moment):
        autogen.imports.add("import sqlalchemy as sa")
        return "sa.BigInteger()"
    return False


connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    transactional_ddl=True,
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
