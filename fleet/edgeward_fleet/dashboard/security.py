"""Who looks at a page, and whether a form comes from one of our pages."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, cast

from fastapi import Depends, Form, Request
from starlette.responses import Response

from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.api.auth import address_of
from edgeward_fleet.dashboard.sessions import ABSOLUTE, BrowserSession, Sessions, form_token
from edgeward_fleet.errors import Forbidden, Unauthenticated

# The prefix makes browsers insist on TLS, this host and the whole site: no neighbour under our domain can set them.
SESSION_COOKIE: Final = "__Host-edgeward-session"
FORM_COOKIE: Final = "__Host-edgeward-form"
THEME_COOKIE: Final = "__Host-edgeward-theme"

POLL_HEADER: Final = "X-Edgeward-Poll"
"""Sent by parts of pages that refresh themselves; such a request is nobody's activity."""

PAGE_HEADERS: Final = {
    # No inline script or style, nothing from elsewhere.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",  # "no-referrer" would make browsers send forms with `Origin: null`
}
_STALE_FORM: Final = "Nothing was done. Load the page again and repeat what you did there."


class StaleForm(Forbidden):
    """A form of another session or of none: of a stranger, or of a tab that was open before the last log-in."""

    title = "The form is out of date"


def sessions_of(request: Request) -> Sessions:
    return cast(Sessions, request.app.state.sessions)


async def _sessions(request: Request) -> Sessions:  # not async, each request would wait for a thread
    return sessions_of(request)


OpenSessions = Annotated[Sessions, Depends(_sessions)]


async def opened(request: Request, sessions: OpenSessions) -> BrowserSession:
    """The session of the request's cookie. Raises Unauthenticated."""
    secret = request.cookies.get(SESSION_COOKIE)
    if not secret:
        raise Unauthenticated("expected a session, got none", hint="Log in.")
    is_activity = POLL_HEADER not in request.headers
    found = await sessions.find(secret, address_of(request), is_activity=is_activity)
    request.state.session = found
    return found


Opened = Annotated[BrowserSession, Depends(opened)]


async def posted(request: Request, session: Opened, form: Annotated[str, Form(max_length=128)] = "") -> BrowserSession:
    """A form of this session. Raises StaleForm when it is another's or none."""
    check_same_site(request)
    if not hmac.compare_digest(form.encode(), session.form_token.encode()):
        raise StaleForm("expected a form of this session, got another or none", hint=_STALE_FORM)
    return session


def check_same_site(request: Request) -> None:
    """Browsers say where a request comes from. Raises Forbidden for another site; old browsers say nothing."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("expected a form of this site, got one of another site", hint=_STALE_FORM)


def may_look(role: Role) -> Callable[[BrowserSession], Awaitable[Principal]]:
    """A dependency that lets in whoever has at least `role`."""

    async def allowed(session: Opened) -> Principal:
        return ensure(session.principal, role)

    return allowed


def may_post(role: Role) -> Callable[[BrowserSession], Awaitable[Principal]]:
    """As `may_look`, for a form of the session."""

    async def allowed(session: Annotated[BrowserSession, Depends(posted)]) -> Principal:
        return ensure(session.principal, role)

    return allowed


def ensure(principal: Principal, role: Role) -> Principal:
    """Raises Forbidden."""
    if not principal.role.covers(role):
        raise Forbidden(f"expected the role {role} or higher, {principal.username} has {principal.role} here")
    return principal


Looker = Annotated[Principal, Depends(may_look(Role.VIEWER))]
OperatorLooks = Annotated[Principal, Depends(may_look(Role.OPERATOR))]
OperatorPosts = Annotated[Principal, Depends(may_post(Role.OPERATOR))]
ApproverPosts = Annotated[Principal, Depends(may_post(Role.APPROVER))]


def give_session(response: Response, session: BrowserSession) -> None:
    """Hand the cookie out. The fleet ends sessions by itself; the age only spares the browser an old cookie."""
    _set_cookie(response, SESSION_COOKIE, session.secret, max_age_s=int(ABSOLUTE.total_seconds()))


def take_session(response: Response) -> None:
    response.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="lax")


def form_key(request: Request) -> str:
    """For forms before there is a session: a random value in a cookie, from which the form's token is derived."""
    return request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)


def give_form_key(response: Response, key: str) -> None:
    """For as long as the browser is open: a page that an ended session has led to may wait for the morning."""
    _set_cookie(response, FORM_COOKIE, key)


def check_form_key(request: Request, form: str) -> None:
    """Raises Forbidden unless the form carries the token of the browser's own cookie."""
    check_same_site(request)
    key = request.cookies.get(FORM_COOKIE, "")
    if not key or not hmac.compare_digest(form.encode(), form_token(key).encode()):
        raise Forbidden("expected a form of this site, got another or an old one", hint=_STALE_FORM)


def local_path(wanted: str, otherwise: str = "/") -> str:
    """`wanted` if it is a path of this site; a link must not be able to send people elsewhere after the log-in."""
    is_local = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return wanted if is_local and wanted.isprintable() and "\\" not in wanted else otherwise


def _set_cookie(response: Response, name: str, value: str, *, max_age_s: int | None = None) -> None:
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite="lax")
