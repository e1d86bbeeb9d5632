"""In and out: the first admin's set-up link, log-in, log-out, and the look of the pages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from edgeward_fleet.accounts.model import MIN_PASSWORD
from edgeward_fleet.api.auth import AppServices, address_of
from edgeward_fleet.dashboard.render import THEMES, PageRoute, page
from edgeward_fleet.dashboard.security import (
    THEME_COOKIE,
    OpenSessions,
    check_form_key,
    check_same_site,
    form_key,
    give_form_key,
    give_session,
    local_path,
    opened,
    posted,
    take_session,
)
from edgeward_fleet.dashboard.sessions import BrowserSession, form_token
from edgeward_fleet.errors import FleetError, Unauthenticated

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_YEAR_S: Final = 366 * 86_400
MAX_NEXT: Final = 8000
"""Characters of the page to go on to: it may carry a reason that somebody wrote, nine for each of its characters."""

Secret = Annotated[str, Form(max_length=200)]
Username = Annotated[str, Form(max_length=64)]
Password = Annotated[str, Form(max_length=1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupForm:
    """The one-time link's token comes back with the form."""

    token: str
    username: str = ""
    error: FleetError | None = None
    shortest: int = MIN_PASSWORD


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginForm:
    """`next` is where the person wanted to go; `ended` says why they are here."""

    next: str
    form: str = ""
    username: str = ""
    error: FleetError | None = None
    ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The first admin, and what the command needs to reach this fleet."""

    username: str
    admin_url: str
    fingerprint: str


@router.get("/setup")
async def setup_form(request: Request, token: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Whether the token is good shows when the form is sent."""
    return page(request, "setup.html", SetupForm(token=token), title="Set-up")


@router.post("/setup")
async def set_up(
    request: Request,
    services: AppServices,
    sessions: OpenSessions,
    token: Secret = "",
    username: Username = "",
    password: Password = "",
) -> HTMLResponse:
    """Make the first admin and log in. The token is a secret that no other site knows, so it guards the form, too."""
    address = address_of(request)
    try:
        made = await services.accounts.set_up(token, username, password, address)
    except FleetError as error:
        form = SetupForm(token=token, username=username, error=error)
        return page(request, "setup.html", form, title="Set-up", status=error.status)
    session = await sessions.open(made.username, password, address)
    request.state.session = session
    welcome = Welcome(
        username=made.username, admin_url=services.settings.admin_url, fingerprint=services.authority.fingerprint
    )
    answer = page(request, "welcome.html", welcome, title="Welcome", status=201)
    give_session(answer, session)
    return answer


@router.get("/login")
async def login_form(
    request: Request, sessions: OpenSessions, next: Annotated[str, Query(max_length=MAX_NEXT)] = "/"
) -> Response:
    """Who is logged in already goes on; who was says why no more."""
    ended = ""
    try:
        await opened(request, sessions)
        return RedirectResponse(local_path(next), 303)
    except Unauthenticated as error:
        ended = str(error) if request.cookies else ""
    answer = _login_page(request, LoginForm(next=local_path(next), ended=_why(ended)))
    take_session(answer)
    return answer


@router.post("/login")
async def log_in(
    request: Request,
    sessions: OpenSessions,
    username: Username = "",
    password: Password = "",
    next: Annotated[str, Form(max_length=MAX_NEXT)] = "/",
    form: Annotated[str, Form(max_length=128)] = "",
) -> Response:
    """Open a session, or show the form again with the reason."""
    try:
        check_form_key(request, form)
        session = await sessions.open(username.strip(), password, address_of(request))
    except FleetError as error:
        again = LoginForm(next=local_path(next), username=username, error=error)
        return _login_page(request, again, status=error.status)
    answer = RedirectResponse(local_path(next), 303)
    give_session(answer, session)
    return answer


@router.post("/logout")
async def log_out(session: Annotated[BrowserSession, Depends(posted)], sessions: OpenSessions) -> Response:
    """End the session on the fleet, not only in the browser."""
    await sessions.close(session)
    answer = RedirectResponse("/login", 303)
    take_session(answer)
    return answer


@router.post("/theme")
async def set_theme(
    request: Request, theme: Annotated[str, Form(max_length=8)] = "auto", back: Annotated[str, Form()] = "/"
) -> Response:
    """Light, dark, or as the system has it; a cookie of this browser and nothing else."""
    check_same_site(request)
    answer = RedirectResponse(local_path(back), 303)
    chosen = theme if theme in THEMES else "auto"
    answer.set_cookie(THEME_COOKIE, chosen, max_age=_YEAR_S, path="/", secure=True, httponly=True, samesite="lax")
    return answer


def _login_page(request: Request, content: LoginForm, status: int = 200) -> HTMLResponse:
    key = form_key(request)
    answer = page(request, "login.html", replace(content, form=form_token(key)), title="Log in", status=status)
    give_form_key(answer, key)
    return answer


def _why(ended: str) -> str:
    """Only what tells somebody something: that there was no session is no news."""
    return ended if ended.startswith("the session ended") else ""
