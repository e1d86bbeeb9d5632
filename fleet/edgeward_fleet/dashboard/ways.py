"""Ways out of an error: where a person goes on, with nothing lost that they had written. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgeward_fleet.dashboard.links import query_string

_QUESTION: Final = re.compile(r"(/rollouts/[^/]+)/([a-z]+)")
_LISTS: Final = {
    "devices": ("/devices", "All devices"),
    "models": ("/models", "All models"),
    "releases": ("/models", "All models"),
    "rollouts": ("/rollouts", "All rollouts"),
    "audit": ("/audit", "The whole log"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A link out of an error."""

    href: str
    label: str


FLEET: Final = Way(href="/", label="Go to the fleet")


def way_out(path: str) -> Way:
    """From an error at `path`: to the rollout that a command was for, else to the list that the page belongs to."""
    command = _QUESTION.fullmatch(path)
    if command:
        return Way(href=command[1], label="Look at the rollout")
    href, label = _LISTS.get(path.strip("/").partition("/")[0], (FLEET.href, FLEET.label))
    return Way(href=href, label=label)


def asked_again(path: str, reason: str) -> Way | None:
    """Where the form that was sent to `path` is shown anew with its `reason`; None when it has no page of its own."""
    if not _QUESTION.fullmatch(path):
        return None
    return Way(href=path + query_string(reason=reason), label="Go back and confirm again")
