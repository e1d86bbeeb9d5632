"""Results with the machine they ran on: without it a number means nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`what` says what was compared; each row is a name and its figures, units in the names of the columns."""

    what: str
    rows: Mapping[str, Mapping[str, float]]


def keep(name: str, result: Result) -> None:
    """Print a result and write it to `results/NAME.json`."""
    print(result.what)
    for row, figures in result.rows.items():
        print(f"  {row:<34}" + "  ".join(f"{column} {value:,.6g}" for column, value in figures.items()))
    FOLDER.mkdir(exist_ok=True)
    document = {"what": result.what, "rows": result.rows, "machine": machine(), "at": now()}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed: no interpolation between two tails."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Median of a / b, pair by pair: holds when the speed of the machine drifts."""
    return statistics.median(a / b for a, b in pairs)


def machine() -> dict[str, str | int]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
