"""Parts of pages that refresh themselves: asked for every few seconds, sent only when they have changed.

What has not changed is not swapped, so that a reader's place, a hover and a focus stay where they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from edgeward_fleet.dashboard.render import part
from edgeward_fleet.dashboard.security import POLL_HEADER


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """`html` is the part with the wrapper that asks for its successor; `rest` moves with it, further down the page."""

    html: Markup
    digest: str
    rest: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What the wrapper of `rest` needs. An answer names itself as out of band, so that it finds its place."""

    body: Markup
    is_answer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """What the wrapper's template needs. `sentence` is read out when it changes."""

    url: str
    every_s: int
    sentence: str
    body: Markup
    header: str = POLL_HEADER


def live_part(
    request: Request, template: str, content: object, *, url: str, every_s: int, sentence: str, rest: str = ""
) -> Live:
    """Render `content` and wrap it; `url` answers with the part anew, given the digest as `seen`.

    `rest` is the template of a second part of the same content, for a page with something between that stands still.
    """
    body, below = _part(request, template, content), _part(request, rest, content) if rest else Markup()
    digest = hashlib.sha256((body + below).encode()).hexdigest()[:16]
    asks = f"{url}{'&' if '?' in url else '?'}seen={digest}"
    wrapper = Wrapper(url=asks, every_s=every_s, sentence=sentence, body=body)
    return Live(html=_part(request, "live.html", wrapper), digest=digest, rest=below)


def anew() -> Response:
    """To a page that showed how to begin: there is something now, and it is loaded again."""
    return Response(status_code=204, headers={"HX-Refresh": "true"})


def live_rest(request: Request, live: Live) -> Markup:
    """The second part, for its place on the page."""
    return _part(request, "live-rest.html", Rest(body=live.rest))


def live_answer(request: Request, live: Live, seen: str) -> Response:
    """204 makes the page leave everything as it is."""
    if seen == live.digest:
        return Response(status_code=204)
    rest = _part(request, "live-rest.html", Rest(body=live.rest, is_answer=True)) if live.rest else ""
    return HTMLResponse(live.html + rest)


def _part(request: Request, template: str, content: object) -> Markup:
    return Markup(part(request, template, content))  # noqa: S704  # autoescaped
