"""What the bedside applications saw, written down by themselves: the count that the fleet's count is held against.

It knows nothing of agents or fleet: only what was asked, what came back and when.
"""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request. `status` is the HTTP status, 0 when no answer came; `version` 0 and `risk` None without an answer.

    `asked_s` is on this machine's monotonic clock, `took_us` what the bedside waited.
    """

    device: str
    request_id: str
    patient: str
    status: int
    version: int
    risk: float | None
    asked_s: float
    took_us: int
    problem: str

    @property
    def answered(self) -> bool:
        return self.status == 200


class Ledger:
    """Append only; every entry is in the file at `path` too, so that a person can count again. For several threads."""

    def __init__(self, path: Path) -> None:
        self._entries: list[Entry] = []
        self._grown = threading.Condition()
        self._file = path.open("w", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file)
        self._csv.writerow(field.name for field in fields(Entry))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._grown:
            self._file.close()

    def add(self, entry: Entry) -> None:
        with self._grown:
            self._entries.append(entry)
            self._csv.writerow(astuple(entry))
            self._grown.notify_all()

    def entries(self, since: int = 0) -> tuple[Entry, ...]:
        """Everything from number `since` on."""
        with self._grown:
            return tuple(self._entries[since:])

    def __len__(self) -> int:
        with self._grown:
            return len(self._entries)

    def wait_for(self, enough: Callable[[tuple[Entry, ...]], bool], *, since: int, timeout_s: float) -> bool:
        """Whether `enough` came true of the entries from `since` on before the time was up."""
        deadline = time.monotonic() + timeout_s
        with self._grown:
            while not enough(tuple(self._entries[since:])):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._grown.wait(left_s):
                    return False
            return True
