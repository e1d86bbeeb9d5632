"""What stops a measurement before there is anything to say about the model."""

from __future__ import annotations

from typing import Final

from edgeward_agent.errors import AgentError


class CannotMeasure(AgentError):
    """The command, the file or the input has to be another one. Ends with 2: it is no verdict on the model."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class NobodyThere(ConnectionError):
    """No connection could be made: another thing than a server that took one and did not answer."""


class ServerLost(AgentError):
    """The server to be measured is not there. Ends with 3: nothing is decided."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Interrupted(CannotMeasure):
    """Ctrl-C before anything was measured: there is nothing to show."""


NOTHING_DUE: Final = CannotMeasure(
    "--rate: expected requests that are due, got none by chance", "Measure for longer, or give another --seed."
)
NOTHING_YET: Final = Interrupted("interrupted before anything was measured", "Let it run for a moment longer.")
