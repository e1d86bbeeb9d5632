"""Runs the checks tier by tier, cheapest first, and says what each took. `make test` calls this.

A tier that fails does not stop the next: one run shows everything that is wrong. Two tiers in which nothing is timed
run at once; what they print comes when both are through.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
SIDE_BY_SIDE = {"unit", "stateful", "integration", "browser"}
"""Their files run on two cores: most wait for processes and disks more than they compute."""
AT_ONCE = {"lint": "stateful", "conformance": "install"}  # nothing in them is timed
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


@dataclass(frozen=True, slots=True)
class Done:
    """A tier that has run; `told` is what it printed, empty where that was shown at once."""

    name: str
    good: bool
    seconds: float
    told: str


def tier(name: str, scratch: Path, *, shown: bool) -> Done:
    """A folder of tests or, where `name` is the path of a file, that file with what it prints."""
    began = time.monotonic()
    results = [_run(command, shown=shown) for command in _commands(name, scratch)]
    good = all(code == 0 for code, _ in results)
    return Done(name, good, time.monotonic() - began, "".join(told for _, told in results))


def _commands(name: str, scratch: Path) -> list[list[str]]:
    if name == "lint":
        return [[str(BIN / command[0]), *command[1:]] for command in LINT]
    workers = ("-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile") if name in SIDE_BY_SIDE else ()
    what = ("-s", name) if _is_file(name) else (f"tests/{name}",)
    return [[sys.executable, "-m", "pytest", "-q", *workers, f"--junit-xml={_report(name, scratch)}", *what]]


def _report(name: str, scratch: Path) -> Path:
    return scratch / f"{name.replace('/', '-')}.xml"


def _turns(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """What runs at once, in order."""
    left = list(names)
    while left:
        name = left.pop(0)
        other = AT_ONCE.get(name) if (os.cpu_count() or 1) > 1 else None
        if other in left:
            left.remove(other)
            yield name, other
        else:
            yield (name,)


def main(wanted: list[str]) -> int:
    known = ("lint", *PYTEST_TIERS)
    if unknown := {name for name in wanted if name not in known and not _is_file(name)}:
        expected = f"{' '.join(known)} or tests/TIER/test_NAME.py"
        print(f"tiers: expected some of {expected}, got {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    tally, times = Tally(), {}
    began = time.monotonic()
    with TemporaryDirectory(prefix="edgeward-tiers-") as folder, ThreadPoolExecutor() as threads:
        scratch = Path(folder)
        for turn in _turns(list(dict.fromkeys(wanted)) or known):
            print(f"── {' and '.join(turn)} ──", flush=True)
            alone = len(turn) == 1
            for done in threads.map(lambda name, shown=alone: tier(name, scratch, shown=shown), turn):
                print(done.told, end="", flush=True)
                times[done.name] = done.seconds
                if _report(done.name, scratch).exists():
                    tally.add_junit(_report(done.name, scratch))
                if not done.good:
                    tally.broken.append(done.name)
    for name, seconds in times.items():
        print(f"{name:<12} {seconds:7.1f} s  {'FAILED' if name in tally.broken else 'ok'}")
    print(f"total: {time.monotonic() - began:.0f} s")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.broken else 0


def _is_file(name: str) -> bool:
    return name.startswith("tests/") and (ROOT / name).is_file()


def _run(command: list[str], *, shown: bool) -> tuple[int, str]:
    out = None if shown else subprocess.PIPE
    done = subprocess.run(
        command, cwd=ROOT, check=False, text=True, stdout=out, stderr=subprocess.STDOUT if out else None
    )
    return done.returncode, done.stdout or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
