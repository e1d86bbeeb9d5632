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
    """`html` is the part with the wrapper that asks for its successor."""

    html: Markup
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """What the wrapper's template needs. `sentence` is read out when it changes."""

    url: str
    every_s: int
    sentence: str
    body: Markup
    header: str = POLL_HEADER


def live_part(request: Request, template: str, content: object, *, url: str, every_s: int, sentence: str) -> Live:
    """Render `content` and wrap it; `url` answers with the part anew, given the digest as `seen`."""
    body = part(request, template, content)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    asks = f"{url}{'&' if '?' in url else '?'}seen={digest}"
    wrapper = Wrapper(url=asks, every_s=every_s, sentence=sentence, body=Markup(body))  # noqa: S704  # autoescaped
    return Live(html=Markup(part(request, "live.html", wrapper)), digest=digest)  # noqa: S704


def live_answer(live: Live, seen: str) -> Response:
    """204 makes the page leave everything as it is."""
    return Response(status_code=204) if seen == live.digest else HTMLResponse(live.html)
