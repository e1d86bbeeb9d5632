"""Pages of a long list by their number, which lives in the URL. A page beyond the last is the last. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_PAGE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Where one is in a list of `total` things. `links` are First, Previous, Next and Last; "" leads nowhere."""

    asked: int
    number: int
    count: int
    size: int
    total: int
    links: tuple[tuple[str, str, str], ...]

    @property
    def is_beyond(self) -> bool:
        return self.asked > self.count

    @property
    def skipped(self) -> int:
        return (self.number - 1) * self.size

    @property
    def start(self) -> int:
        """The number of the first thing shown, counted from one; 0 when there is none."""
        return self.skipped + 1 if self.total else 0

    @property
    def end(self) -> int:
        return min(self.skipped + self.size, self.total)


def pages(total: int, asked: int, size: int, query: Callable[[int], str]) -> Pages:
    """`query` makes the address of a page by its number."""
    count = max(1, -(-total // size))
    number = min(max(1, asked), count)
    before = [query(1), query(number - 1)] if number > 1 else ["", ""]
    behind = [query(number + 1), query(count)] if number < count else ["", ""]
    labels = (("First", ""), ("Previous", "prev"), ("Next", "next"), ("Last", ""))
    links = tuple((label, href, rel) for (label, rel), href in zip(labels, (*before, *behind), strict=True))
    return Pages(asked=asked, number=number, count=count, size=size, total=total, links=links)
