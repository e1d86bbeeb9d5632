"""Log in, the caller's own tokens, and accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from edgeward_fleet.accounts.model import Account, ApiToken, NewToken, Role
from edgeward_fleet.api.auth import Admin, AppServices, Viewer, address_of
from edgeward_fleet.api.problems import problems

router = APIRouter(prefix="/api/v1", tags=["accounts"])

Username = Annotated[str, Field(max_length=64)]
Password = Annotated[str, Field(max_length=1024)]


class Credentials(BaseModel):
    """What a person types."""

    username: Username
    password: Password


class LoginView(BaseModel):
    """The token is shown this once."""

    token: str
    expires_at: datetime
    username: str
    role: Role

    @classmethod
    def of(cls, made: NewToken) -> LoginView:
        token = made.token
        return cls(token=made.secret, expires_at=token.expires_at, username=token.username, role=token.role)


class MeView(BaseModel):
    """The caller, with the role that this token gives."""

    username: str
    role: Role


class AccountView(BaseModel):
    """An account, without its password."""

    username: str
    role: Role
    disabled: bool
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, account: Account) -> AccountView:
        return cls(
            username=account.username,
            role=account.role,
            disabled=account.disabled,
            created_at=account.created_at,
            created_by=account.created_by,
        )


class AccountPage(BaseModel):
    """Accounts by name; `next` is the `after` of the next page."""

    items: list[AccountView]
    next: str | None


class NewAccount(Credentials):
    """An account to be."""

    role: Role


class AccountChange(BaseModel):
    """What is left out stays."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class PasswordChange(BaseModel):
    """The caller's own password."""

    current: Password
    new: Password


class TokenView(BaseModel):
    """A token, without its secret."""

    token_id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, token: ApiToken) -> TokenView:
        return cls(
            token_id=token.token_id,
            name=token.name,
            role=token.role,
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )


class TokenPage(BaseModel):
    """The caller's live tokens; there is only ever one page."""

    items: list[TokenView]
    next: str | None = None


class NewTokenRequest(BaseModel):
    """A token for a program; at most the caller's own role."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    role: Role
    expires_in_days: Annotated[int, Field(ge=1, le=366)] = 90


class NewTokenView(TokenView):
    """The secret is shown this once."""

    token: str


@router.post("/login", responses=problems(401, 429))
async def login(body: Credentials, request: Request, services: AppServices) -> LoginView:
    """Exchange username and password for a token."""
    return LoginView.of(await services.accounts.login(body.username, body.password, address_of(request)))


@router.get("/me", responses=problems(401, 403))
async def me(principal: Viewer) -> MeView:
    """Who this token stands for."""
    return MeView(username=principal.username, role=principal.role)


@router.post("/me/password", status_code=204, responses=problems(401, 403, 429))
async def change_password(body: PasswordChange, principal: Viewer, services: AppServices) -> None:
    """Change the caller's own password; ends all tokens of the account."""
    await services.accounts.change_own_password(principal, body.current, body.new)


@router.post("/logout", status_code=204, responses=problems(401, 403))
async def logout(principal: Viewer, services: AppServices) -> None:
    """End the token that this request carries."""
    await services.accounts.logout(principal)


@router.get("/tokens", responses=problems(401, 403))
async def tokens(principal: Viewer, services: AppServices) -> TokenPage:
    """The caller's live tokens."""
    return TokenPage(items=[TokenView.of(each) for each in await services.accounts.tokens(principal.username)])


@router.post("/tokens", status_code=201, responses=problems(401, 403))
async def create_token(body: NewTokenRequest, principal: Viewer, services: AppServices) -> NewTokenView:
    """Make a token for a program."""
    made = await services.accounts.create_token(principal, body.name, body.role, body.expires_in_days)
    return NewTokenView(token=made.secret, **TokenView.of(made.token).model_dump())


@router.delete("/tokens/{token_id}", status_code=204, responses=problems(401, 403, 404))
async def revoke_token(token_id: str, principal: Viewer, services: AppServices) -> None:
    """End one of the caller's own tokens: this one, or one with at most its role."""
    await services.accounts.revoke_token(principal, token_id)


@router.get("/accounts", responses=problems(401, 403))
async def accounts(
    principal: Admin,
    services: AppServices,
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AccountPage:
    """All accounts, by name."""
    found = await services.accounts.page(after=after, limit=limit)
    return AccountPage(
        items=[AccountView.of(each) for each in found], next=found[-1].username if len(found) == limit else None
    )


@router.post("/accounts", status_code=201, responses=problems(401, 403, 409))
async def create_account(body: NewAccount, principal: Admin, services: AppServices) -> AccountView:
    """Make an account."""
    made = await services.accounts.create(principal.actor, body.username, body.password, body.role)
    return AccountView.of(made)


@router.patch("/accounts/{username}", responses=problems(401, 403, 404, 409))
async def change_account(username: str, body: AccountChange, principal: Admin, services: AppServices) -> AccountView:
    """Change role or password, disable or enable. A new password or disabling ends the account's tokens."""
    changed = await services.accounts.update(
        principal.actor, username, role=body.role, disabled=body.disabled, password=body.password
    )
    return AccountView.of(changed)
