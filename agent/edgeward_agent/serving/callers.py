"""How many connections there are that may ask for a run, over every front end."""

from __future__ import annotations

from typing import Final

MANY: Final = 2
"""What a front end counts for whose connections carry many requests at once."""


class Callers:
    """Touched on the loop's thread alone."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    @property
    def alone(self) -> bool:
        """Who asks now is the only one who can: nobody else has a connection."""
        return self.count == 1
