"""Names of what a sweep tries, shared by those who run it and those who tell of it. Pure."""

from __future__ import annotations

from typing import Final

FASTEST: Final = "fastest"
MOST: Final = "most"
MARKS: Final = {FASTEST: "fastest answer", MOST: "most cases per second within the budget"}
UNREACHED: Final = "interrupted before its turn"


def setting_name(threads: int, provider: str, batch: int) -> str:
    return f"{threads} {provider} {batch}"


def setting_words(name: str) -> str:
    """`2 threads on cpu, batch 4`."""
    threads, provider, batch = name.split(" ")
    return f"{threads} thread{'' if threads == '1' else 's'} on {provider}, batch {batch}"
