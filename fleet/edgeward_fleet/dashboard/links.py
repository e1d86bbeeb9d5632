"""Addresses of this site."""

from __future__ import annotations

from urllib.parse import urlencode


def query_string(**values: str | int | None) -> str:
    """`?site=north&after=bed-9` without what is empty; "" when everything is."""
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return "?" + urlencode(given) if given else ""
