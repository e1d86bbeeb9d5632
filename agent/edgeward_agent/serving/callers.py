"""How many connections there are that may ask for a run, over every front end."""

from __future__ import annotations

from typing import Final

MANY: Final = 2
"""What a front end counts for whose connections carry many requests at once, or that nobody counts."""


class Callers:
    """Touched on the loop's thread alone. `alone`: who asks now is the only one who can, nobody else is connected."""

    __slots__ = ("alone", "count")

    def __init__(self, others: int = 0) -> None:
        """Args:
        others: who may ask and is not counted here.
        """
        self.count = others
        self.alone = self.count == 1

    def came(self, count: int = 1) -> None:
        """A connection was opened."""
        self.count += count
        self.alone = self.count == 1

    def left(self, count: int = 1) -> None:
        """A connection has ended."""
        self.came(-count)
