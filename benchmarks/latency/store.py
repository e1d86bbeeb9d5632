"""What was measured so far, one line for each case and round: a run that is stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import edgeward_agent
import edgeward_contract
from benchmarks.latency.native import CACHE

FILE: Final = CACHE / "latency.jsonl"
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Figures of a case in a round; `note` says why there are none."""

    key: str
    round: int
    figures: Figures
    note: str = ""


class Store:
    """Lines of one state of the sources: figures of different code are not mixed."""

    def __init__(self, path: Path = FILE, *, fresh: bool = False) -> None:
        self._path = path
        self._fingerprint = fingerprint()
        self._lines: dict[tuple[str, int], Line] = {}
        if path.exists() and not fresh:
            self._read()
        if not self._lines:
            path.unlink(missing_ok=True)

    def add(self, line: Line) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        document = {"of": self._fingerprint, "key": line.key, "round": line.round, "figures": dict(line.figures)}
        with self._path.open("a") as file:
            file.write(json.dumps(document | {"note": line.note}, ensure_ascii=False) + "\n")
        self._lines[line.key, line.round] = line

    def has(self, key: str, number: int) -> bool:
        return (key, number) in self._lines

    def lines(self) -> Iterable[Line]:
        return self._lines.values()

    def _read(self) -> None:
        for text in self._path.read_text().splitlines():
            found = json.loads(text)
            if found.pop("of") == self._fingerprint:
                self._lines[found["key"], found["round"]] = Line(**found)


def fingerprint() -> str:
    """A digest of the code that is measured, and of the versions beneath it."""
    folders = [Path(str(module.__file__)).parent for module in (edgeward_agent, edgeward_contract)]
    parts = [path.read_bytes() for folder in folders for path in sorted(folder.rglob("*.py"))]
    parts += [version(name).encode() for name in ("onnxruntime", "numpy")]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
