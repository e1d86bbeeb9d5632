"""What ends a demonstration early."""

from __future__ import annotations

from edgeward_fleet.cli.errors import CommandFailed


class DemoFailed(CommandFailed):
    """Something did not happen that had to happen."""

    hint = "A machine that is very busy may be too slow for it; look at the logs, then run it again."
