"""When is a server gone, and not only late? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgeward_agent.bench.errors import NobodyThere

_MOST_IN_VAIN: Final = 10


@dataclass(slots=True)
class Silence:
    """What has been lost since the last answer, from block to block: when is a server gone, and not only late?

    Losses alone do not say so: a stall longer than the time-out loses as many requests at once as there are clients.
    """

    lost: int = 0
    unreached: int = 0
    since_ns: int = 0

    def broken(self) -> None:
        self.lost = self.unreached = self.since_ns = 0

    def lose(self, error: OSError, sent_ns: int, now_ns: int, timeout_ns: int) -> str:
        """Count a request that has no answer. Returns how the server went away; empty while it may only be late."""
        self.lost += 1
        self.unreached += isinstance(error, NobodyThere)
        self.since_ns = self.since_ns or sent_ns
        silent_ns = now_ns - self.since_ns
        if self.unreached >= _MOST_IN_VAIN:
            return f"no connection could be made, {words_of(error)}"
        if self.lost >= _MOST_IN_VAIN and silent_ns >= _MOST_IN_VAIN * timeout_ns:
            return f"nothing was answered for {silent_ns / 1e9:.3g} s"
        return ""


def words_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
