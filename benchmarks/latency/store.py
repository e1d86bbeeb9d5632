"""What was measured so far, one line for each case and round: a run that is stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import edgeward_agent
import edgeward_contract
from benchmarks.latency.native import CACHE

Figures = Mapping[str, float]
Turns = Mapping[str, Sequence[float]]
BENCHMARKS: Final = Path(__file__).resolve().parent.parent
_SOURCES: Final = (".py", ".c", ".h")
_BENEATH: Final = ("onnxruntime", "numpy", "uvloop", "httptools", "msgspec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Figures of a case in a round, some of them for each of its turns too; `note` says why there are none."""

    key: str
    round: int
    figures: Figures
    turns: Turns = field(default_factory=dict)
    note: str = ""


class Store:
    """Lines in a file of their own for each state of the sources, so that figures of different code are not mixed; nor
    are those of a rehearsal, which has less than its time, with what is kept.
    """

    def __init__(self, folder: Path = CACHE, *, fresh: bool = False, pace: float = 1.0) -> None:
        rehearsal = "" if pace == 1.0 else f"-pace-{pace:g}"
        self._file = folder / f"rounds-{fingerprint()}{rehearsal}.jsonl"
        self._lines: dict[tuple[str, int], Line] = {}
        if fresh:
            self._file.unlink(missing_ok=True)
        if self._file.exists():
            read = [Line(**json.loads(text)) for text in self._file.read_text().splitlines()]
            self._lines = {(line.key, line.round): line for line in read}

    def add(self, line: Line) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")
        self._lines[line.key, line.round] = line

    def has(self, key: str, number: int) -> bool:
        return (key, number) in self._lines

    def lines(self) -> Iterable[Line]:
        return self._lines.values()


def fingerprint() -> str:
    """A digest of the code that is measured, of the code that measures, and of the versions beneath it."""
    folders = [Path(str(module.__file__)).parent for module in (edgeward_agent, edgeward_contract)]
    folders.append(BENCHMARKS)
    parts = [path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _SOURCES]
    parts += [version(name).encode() for name in _BENEATH]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
