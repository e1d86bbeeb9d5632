"""Figures in the README are those that the benchmarks kept."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks/results"


def test_the_readme_quotes_what_was_measured() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    update = json.loads((RESULTS / "update_under_load.json").read_text())["rows"]
    steady, during = (update[row]["p99_us"] / 1000 for row in ("steady", "during an update"))
    assert f"waits {during:.1f} ms at p99 instead of {steady:.1f}" in words
    outbox = json.loads((RESULTS / "outbox.json").read_text())["rows"]
    assert f"costs {outbox['outbox, one caller']['ratio']:.1f} plain SQLite commits, half of one with 16" in words
    assert 0.4 < outbox["outbox, 16 callers"]["ratio"] < 0.6
