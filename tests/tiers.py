"""Runs the checks tier by tier, cheapest first, and says what each took. `make test` calls this.

A tier that fails does not stop the next: one run shows everything that is wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LINT = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("lint-imports", "--no-cache"),
    ("mypy",),
)
SIDE_BY_SIDE = {"unit", "integration"}  # files that wait for processes and disks more than they compute
PYTEST_TIERS = ("unit", "docs", "stateful", "conformance", "integration", "browser", "install", "e2e")


@dataclass(slots=True)
class Tally:
    """What the tests of all tiers came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    broken: list[str] = field(default_factory=list)

    def add_junit(self, report: Path) -> None:
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            self.failed += failed
            self.skipped += skipped
            self.passed += int(suite.get("tests", 0)) - failed - skipped


def lint(_tally: Tally, _scratch: Path) -> bool:
    return all([_run(BIN / command[0], *command[1:]) for command in LINT])


def pytest_tier(name: str, tally: Tally, scratch: Path) -> bool:
    """A folder of tests or, where `name` is the path of a file, that file with what it prints."""
    report = scratch / f"{name.replace('/', '-')}.xml"
    workers = ("-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile") if name in SIDE_BY_SIDE else ()
    what = ("-s", name) if _is_file(name) else (f"tests/{name}",)
    good = _run(sys.executable, "-m", "pytest", "-q", *workers, f"--junit-xml={report}", *what)
    if report.exists():
        tally.add_junit(report)
    return good


def main(wanted: list[str]) -> int:
    known = ("lint", *PYTEST_TIERS)
    if unknown := {name for name in wanted if name not in known and not _is_file(name)}:
        expected = f"{' '.join(known)} or tests/TIER/test_NAME.py"
        print(f"tiers: expected some of {expected}, got {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    tally, times = Tally(), {}
    with TemporaryDirectory(prefix="edgeward-tiers-") as scratch:
        for name in wanted or known:
            print(f"── {name} ──", flush=True)
            began = time.monotonic()
            good = lint(tally, Path(scratch)) if name == "lint" else pytest_tier(name, tally, Path(scratch))
            times[name] = time.monotonic() - began
            if not good:
                tally.broken.append(name)
    for name, seconds in times.items():
        print(f"{name:<12} {seconds:7.1f} s  {'FAILED' if name in tally.broken else 'ok'}")
    print(f"total: {sum(times.values()):.0f} s")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.broken else 0


def _is_file(name: str) -> bool:
    return name.startswith("tests/") and (ROOT / name).is_file()


def _run(*command: str | Path) -> bool:
    return subprocess.run([str(part) for part in command], cwd=ROOT, check=False, env=os.environ).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
