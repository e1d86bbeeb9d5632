"""Exit codes, one table for every command; `edgeward-agent --help` prints it."""

from __future__ import annotations

from typing import Final

from edgeward_agent.bench.errors import CannotMeasure, ServerLost
from edgeward_agent.errors import AgentError, ConfigError, LinkLost, LinkRefused, ServingUnavailable

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_ALLOWED: Final = 4

MEANING: Final = {
    0: "done",
    FAILED: "the thing asked for failed; the line on standard error says why",
    USAGE: "the command or the configuration is wrong",
    UNREACHABLE: "the fleet or the serving process could not be reached, or a measurement decides nothing",
    NOT_ALLOWED: "the fleet said no: token, certificate or rights",
}


def exit_code(error: AgentError) -> int:
    if isinstance(error, ConfigError | CannotMeasure):
        return USAGE
    if isinstance(error, LinkLost | ServingUnavailable | ServerLost):
        return UNREACHABLE
    if isinstance(error, LinkRefused):
        return NOT_ALLOWED
    return FAILED
