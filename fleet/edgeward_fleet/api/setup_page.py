"""The page behind the set-up link: a browser is enough to make the first admin. No script, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse

from edgeward_fleet.accounts.model import MIN_PASSWORD
from edgeward_fleet.api.auth import AppServices, address_of
from edgeward_fleet.errors import FleetError

router = APIRouter(include_in_schema=False)

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_FRAME: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Edgeward set-up</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px/1.5 system-ui;max-width:26rem;margin:4rem auto;padding:0 1rem}}
label,input{{display:block;width:100%;box-sizing:border-box}}input{{font:inherit;padding:.5rem;margin:0 0 1rem}}
button{{font:inherit;padding:.5rem 1rem}}[role=alert]{{border-left:4px solid #b00020;padding-left:.75rem}}</style>
<h1>Edgeward set-up</h1>{content}</html>"""
_FORM: Final = """{alert}<p>Make the first admin of this fleet. This link works once.</p>
<form method="post" action="/setup"><input type="hidden" name="token" value="{token}">
<label for="u">Username</label><input id="u" name="username" value="{username}" autocomplete="username" required>
<label for="p">Password, at least {shortest} characters</label>
<input id="p" name="password" type="password" autocomplete="new-password" minlength="{shortest}" required>
<button>Make the admin</button></form>"""


@router.get("/setup")
async def form(token: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """The form; whether the token is good shows when it is sent."""
    return _page(_form(token))


@router.post("/setup")
async def submit(
    request: Request,
    services: AppServices,
    token: Annotated[str, Form(max_length=200)] = "",
    username: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
) -> HTMLResponse:
    """Make the admin, or show the form again with the reason."""
    try:
        made = await services.accounts.set_up(token, username, password, address_of(request))
    except FleetError as error:
        return _page(_form(token, username, error), error.status)
    return _page(
        f"<p>The admin <b>{escape(made.username)}</b> is made. Log in with <code>edgeward login</code>.</p>", 201
    )


def _form(token: str, username: str = "", error: FleetError | None = None) -> str:
    alert = f'<p role="alert">{escape(str(error))}<br>{escape(error.hint)}</p>' if error else ""
    return _FORM.format(alert=alert, token=escape(token), username=escape(username), shortest=MIN_PASSWORD)


def _page(content: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_FRAME.format(content=content), status, {"Content-Security-Policy": _POLICY})
