"""Turns a value into a page: the templates, the frame around them, and errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from edgeward_contract.schema import ContractError
from edgeward_contract.version import __version__
from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.dashboard import assets, words
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.security import PAGE_HEADERS, THEME_COOKIE, StaleForm, sessions_of
from edgeward_fleet.dashboard.sessions import BrowserSession
from edgeward_fleet.dashboard.views.standings import BACKS, STATES, looks, standing_strip
from edgeward_fleet.dashboard.ways import Way, asked_again, way_out
from edgeward_fleet.errors import BadRequest, FleetError, Invalid, NotFound, TooMany, Unauthenticated

THEMES: Final = ("auto", "light", "dark")
MAX_REASON: Final = 500  # characters of what a person writes about a command
SECTIONS: Final = (
    ("fleet", "/", "Fleet"),
    ("devices", "/devices", "Devices"),
    ("models", "/models", "Models"),
    ("rollouts", "/rollouts", "Rollouts"),
    ("audit", "/audit", "Audit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around every page. Without a session it is only the name and the look."""

    title: str
    section: str
    theme: str
    path: str
    session: BrowserSession | None
    now: datetime
    version: str = __version__

    @property
    def principal(self) -> Principal | None:
        return self.session.principal if self.session else None

    def can(self, role: Role) -> bool:
        return self.session is not None and self.session.principal.role.covers(role)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("edgeward_fleet.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.one_way,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(words.FILTERS)
    made.globals.update(
        asset=assets.url,
        integrity=assets.integrity,
        SECTIONS=SECTIONS,
        THEMES=THEMES,
        STATES=STATES,
        looks=looks,
        BACKS=BACKS,
        standing_strip=standing_strip,
    )
    return made


_TEMPLATES: Final = _environment()


def theme_of(request: Request) -> str:
    wanted = request.cookies.get(THEME_COOKIE, "auto")
    return wanted if wanted in THEMES else "auto"


def page(
    request: Request, template: str, content: object, *, title: str, section: str = "", status: int = 200
) -> HTMLResponse:
    """A whole page; the template finds `content` as `page`."""
    session: BrowserSession | None = getattr(request.state, "session", None)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    # A set-up link must not wander into other forms.
    frame = Frame(
        title=title,
        section=section,
        theme=theme_of(request),
        path=path if session else "/",
        session=session,
        now=sessions_of(request).clock(),
    )
    return HTMLResponse(_TEMPLATES.get_template(template).render(frame=frame, page=content), status)


def part(request: Request, template: str, content: object) -> str:
    """A piece of a page, for one that refreshes itself."""
    return _TEMPLATES.get_template(template).render(page=content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An error as a page, with the way on."""

    error: FleetError
    way: Way


class PageRoute(APIRoute):
    """A route whose errors are pages too, and whose answers carry the headers that pages need."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                response = await answer(request)
            except (FleetError, ContractError, RequestValidationError, HTTPException) as error:
                response = await problem(request, error)
            response.headers.update(PAGE_HEADERS)
            return response

        return handler


async def problem(request: Request, error: Exception) -> Response:
    """What a person sees of an error. Who is not logged in is sent to do so and comes back."""
    shown = as_fleet_error(request, error)
    if isinstance(shown, Unauthenticated):
        return await _to_login(request)
    answer = page(request, "error.html", await _trouble(request, shown), title=shown.title, status=shown.status)
    if isinstance(shown, TooMany):
        answer.headers["Retry-After"] = str(shown.retry_after_s)
    return answer


def as_fleet_error(request: Request, error: Exception) -> FleetError:
    """One shape for everything that can be wrong with a request."""
    if isinstance(error, FleetError):
        return error
    if isinstance(error, ContractError):
        return BadRequest(str(error), hint=error.hint)
    if isinstance(error, RequestValidationError):
        return _not_valid(error)
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound(f"there is no page at {request.url.path[:100]}", hint="Check the address.")
    if isinstance(error, HTTPException):
        framed = FleetError(str(error.detail), hint=BadRequest.hint)
        framed.status, framed.title = error.status_code, HTTPStatus(error.status_code).phrase
        return framed
    return FleetError("expected an answer, the fleet found a fault of its own", hint=FleetError.hint)


def _not_valid(error: RequestValidationError) -> Invalid:
    """Addresses are written by people, so the value is said as well as what was expected."""
    first = error.errors()[0]
    if first["type"] in ("enum", "literal_error"):
        words = f"expected {first['ctx']['expected']}, got {str(first['input'])[:40]!r}"
    else:
        words = f"{first['msg']}, got {str(first['input'])[:40]!r}"
    return Invalid(f"{first['loc'][-1]}: {words}", hint="Correct the address, or start from the whole list.")


async def _trouble(request: Request, error: FleetError) -> Trouble:
    again = asked_again(request.url.path, await _reason(request)) if isinstance(error, StaleForm) else None
    return Trouble(error=error, way=again or way_out(request.url.path))


async def _to_login(request: Request) -> Response:
    if "hx-request" in request.headers:  # a part of a page: the whole page must go
        whole = urlsplit(request.headers.get("hx-current-url", "/"))
        back = whole.path + (f"?{whole.query}" if whole.query else "")
        return Response(status_code=401, headers={"HX-Redirect": "/login" + query_string(next=back)})
    came_from = await _asked_for(request)
    return RedirectResponse("/login" + query_string(next=came_from if came_from != "/" else ""), 303)


async def _asked_for(request: Request) -> str:
    """The page that was asked for. A form leads back to its question, with what was written into it."""
    if request.method == "POST":
        again = asked_again(request.url.path, await _reason(request))
        return again.href if again else "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


async def _reason(request: Request) -> str:
    """What the person wrote; Starlette keeps the form that it has read once."""
    if request.method != "POST":
        return ""
    written = (await request.form()).get("reason", "")
    return written[:MAX_REASON] if isinstance(written, str) else ""
