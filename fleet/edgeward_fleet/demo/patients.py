"""The patients, and at which device each is seen."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_fleet.demo.errors import DemoFailed

FEATURES: Final = 30
LARGE_AREA: Final = 2000.0
"""From this `worst_area` on version 4 fails; models/wdbc-risk/README.md says so, and a test holds the two together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One row of the table: 30 measurements, in the order of its columns."""

    name: str
    features: tuple[float, ...]
    large: bool  # a tumour so large that version 4 fails on it


def read_patients(path: Path) -> tuple[Patient, ...]:
    """Raises DemoFailed when the table is not there or has not the columns that it must have."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
        area = header.index("worst_area") - 1
        return tuple(_patient(row, area) for row in rows)
    except (OSError, ValueError, IndexError) as error:
        raise DemoFailed(
            f"{path}: expected the patients' table, found: {error}", hint="Name the folder with --models DIR."
        ) from None


def _patient(row: list[str], area: int) -> Patient:
    features = tuple(float(cell) for cell in row[1 : 1 + FEATURES])
    return Patient(name=row[0], features=features, large=features[area] >= LARGE_AREA)


class Wards:
    """Who is seen where. Each device sees its patients in turn, again and again. For several threads."""

    def __init__(self, devices: Sequence[str], patients: Iterable[Patient]) -> None:
        self._lock = threading.Lock()
        self._lists: dict[str, list[Patient]] = {device: [] for device in devices}
        self._turns = dict.fromkeys(devices, 0)
        for number, patient in enumerate(patients):
            self._lists[devices[number % len(devices)]].append(patient)

    def next(self, device: str) -> tuple[Patient, int]:
        """The next patient at `device`, and the number of this request there (from 1)."""
        with self._lock:
            waiting = self._lists[device]
            turn = self._turns[device]
            self._turns[device] = turn + 1
            return waiting[turn % len(waiting)], turn + 1

    def patients(self, device: str) -> tuple[Patient, ...]:
        with self._lock:
            return tuple(self._lists[device])

    def refer(self, device: str, which: Callable[[Patient], bool]) -> int:
        """Send the patients of `device` for whom `which` holds to the other devices; how many went.

        What each device then has of them is spread evenly over its round, as it would be in a waiting room.
        """
        with self._lock:
            leaving = [patient for patient in self._lists[device] if which(patient)]
            self._lists[device] = [patient for patient in self._lists[device] if not which(patient)]
            others = [each for each in self._lists if each != device]
            for number, patient in enumerate(leaving):
                self._lists[others[number % len(others)]].append(patient)
            for each in others:
                self._lists[each] = _spread(self._lists[each], which)
            return len(leaving)


def _spread(patients: Sequence[Patient], which: Callable[[Patient], bool]) -> list[Patient]:
    """The same patients with those for whom `which` holds at equal distances."""
    rare = [patient for patient in patients if which(patient)]
    usual = [patient for patient in patients if not which(patient)]
    placed = [((number + 0.5) / len(rare), 0, patient) for number, patient in enumerate(rare)]
    placed += [((number + 0.5) / len(usual), 1, patient) for number, patient in enumerate(usual)]
    return [patient for _, _, patient in sorted(placed, key=lambda item: item[:2])]
