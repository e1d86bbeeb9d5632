"""Accounts: people and their roles."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from edgeward_fleet.cli.errors import BadUsage
from edgeward_fleet.cli.options import ROLES, answering, connect, given, password, read_password
from edgeward_fleet.cli.output import Column, Output, text, when
from edgeward_fleet.cli.values import known_id

_COLUMNS: Final[tuple[Column, ...]] = (
    ("USERNAME", text("username")),
    ("ROLE", text("role")),
    ("DISABLED", text("disabled")),
    ("CREATED", when("created_at")),
)
_TOKENS: Final[tuple[Column, ...]] = (
    ("TOKEN", text("token_id")),
    ("NAME", text("name")),
    ("ROLE", text("role")),
    ("EXPIRES", when("expires_at")),
    ("USED", when("last_used_at")),
)
_ROLE: Final = click.Choice(ROLES)


@click.group()
def account() -> None:
    """Accounts: people and their roles."""


@account.command("list")
@answering
def list_accounts(out: Output) -> None:
    """List the accounts."""
    with connect() as fleet:
        out.table(fleet.items("/accounts"), _COLUMNS, empty="No accounts.")


@account.command()
@click.argument("username")
@click.option(
    "--role", type=_ROLE, required=True, help="What the account may do; each role may do the lower ones' too."
)
@password
@answering
def create(username: str, role: str, password_file: Path | None, out: Output) -> None:
    """Make an account for USERNAME."""
    secret = read_password(password_file, new=True)
    with connect() as fleet:
        made = fleet.post("/accounts", {"username": username, "password": secret, "role": role})
    out.show(made.members(), f"{username} is {role}.")


@account.command()
@click.argument("username", type=known_id)
@click.option("--role", type=_ROLE, help="A new role.")
@click.option("--disabled/--enabled", default=None, help="Shut the account, or open it again.")
@click.option("--new-password", is_flag=True, help="Set a new password.")
@password
@answering
def change(
    username: str, role: str | None, disabled: bool | None, new_password: bool, password_file: Path | None, out: Output
) -> None:
    """Change USERNAME's role or password, or shut the account."""
    secret = read_password(password_file, new=True) if new_password or password_file else None
    changes = given(role=role, disabled=disabled, password=secret)
    if not changes:
        raise BadUsage("expected something to change: --role, --disabled, --enabled or --new-password")
    with connect() as fleet:
        changed = fleet.patch(f"/accounts/{username}", changes)
    out.show(changed.members(), f"{username} is changed.")


@account.group()
def token() -> None:
    """Your own tokens for programs; give one to them as EDGEWARD_TOKEN."""


@token.command("list")
@answering
def list_tokens(out: Output) -> None:
    """List your live tokens; their secrets are not kept anywhere."""
    with connect() as fleet:
        out.table(fleet.get("/tokens").objects("items"), _TOKENS, empty="No tokens.")


@token.command("create")
@click.argument("name")
@click.option("--role", type=_ROLE, required=True, help="At most your own.")
@click.option("--days", type=click.IntRange(1, 366), default=90, show_default=True, help="How long it is good.")
@answering
def create_token(name: str, role: str, days: int, out: Output) -> None:
    """Make a token for a program called NAME; it is shown this once."""
    with connect() as fleet:
        made = fleet.post("/tokens", {"name": name, "role": role, "expires_in_days": days})
    out.show(made.members(), made.text("token"))


@token.command("revoke")
@click.argument("token_id", type=known_id)
@answering
def revoke_token(token_id: str, out: Output) -> None:
    """End the token TOKEN_ID."""
    with connect() as fleet:
        fleet.delete(f"/tokens/{token_id}")
    out.show({"token_id": token_id, "revoked": True}, f"{token_id} is revoked.")
