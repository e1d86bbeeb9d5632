"""What the framework takes in a query although the description of the API does not say so, and what to do about it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import Request
from pydantic import AwareDatetime, BeforeValidator

from edgeward_fleet.errors import Invalid


async def each_once(request: Request) -> None:
    """Raises Invalid for a parameter given twice: an answer to the last one alone would look like one to both."""
    counts = Counter(key for key, _ in request.query_params.multi_items())
    for key, count in counts.items():
        if count > 1:
            raise Invalid(f"{key[:60]}: expected one value, got {count}", hint="Ask once for each value.")


def _written_out(value: object) -> object:
    """`after=0` is no time that anybody meant; read as seconds since 1970, it would be one."""
    if isinstance(value, str) and "T" not in value.upper():
        raise ValueError("expected a time such as 2026-11-23T22:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
