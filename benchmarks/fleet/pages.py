"""How long a person waits for pages of the dashboard, measured in a process of its own.

A thread of the process that plays a thousand devices would wait for that process's interpreter, and call it the fleet.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx

from benchmarks.report import quantile
from edgeward_fleet.cli.client import trust
from edgeward_fleet.cli.trust import pin
from edgeward_fleet.demo.staff import OPERATOR, Staff

_ROOT: Final = Path(__file__).parent.parent.parent
_TIMEOUT_S: Final = 60.0
_FOR_EVER: Final = 10**9


class Visitor:
    """A person who loads pages again and again; `leave` asks how long each took."""

    def __init__(self, process: asyncio.subprocess.Process, paths: Mapping[str, str]) -> None:
        self._process: Final = process
        self._paths: Final = paths

    @classmethod
    async def come(cls, staff: Staff, paths: Mapping[str, str], *, every_s: float, rounds: int = _FOR_EVER) -> Visitor:
        """Log in and begin; `paths` are the pages by name. Without a number of rounds until `leave`."""
        known = (staff.url, staff.fingerprint, str(staff.password_file), str(rounds), str(every_s))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, *known, *paths.values()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"in\n", "expected the visitor to be let in"
        return cls(process, paths)

    async def stay(self) -> dict[str, dict[str, float]]:
        """The figures of each page by its name, when all rounds are done."""
        assert self._process.stdout is not None
        loads = json.loads(await self._process.stdout.read())
        await self._process.wait()
        return {name: figures(loads[path]) for name, path in self._paths.items()}

    async def leave(self) -> dict[str, dict[str, float]]:
        """As `stay`, after the page that is being loaded."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self.stay()


class Browser:
    """The operator, logged in."""

    def __init__(self, url: str, fingerprint: str, password_file: Path) -> None:
        self._http = httpx.Client(
            base_url=url,
            verify=trust(pin(url, fingerprint)),
            timeout=_TIMEOUT_S,
            trust_env=False,
            headers={"Accept": "text/html"},
        )
        self._log_in(password_file)

    def load(self, path: str) -> float:
        """Milliseconds until the page is here, or until patience ended. Raises httpx.HTTPStatusError."""
        began = time.perf_counter()
        with suppress(httpx.TimeoutException):
            self._http.get(path).raise_for_status()
        return (time.perf_counter() - began) * 1e3

    def _log_in(self, password_file: Path) -> None:
        found = re.search(r'name="form" value="([0-9a-f]{64})"', self._http.get("/login").text)
        assert found is not None, "expected a log-in form"
        password = password_file.read_text().strip()
        form = {"form": found[1], "next": "/", "username": OPERATOR, "password": password}
        answer = self._http.post("/login", data=form)
        assert answer.status_code == 303, f"expected to be logged in, got {answer.status_code}"


def figures(milliseconds: Sequence[float]) -> dict[str, float]:
    every = sorted(milliseconds)
    return {"loads": len(every), "p50_ms": quantile(every, 0.5), "p95_ms": quantile(every, 0.95), "max_ms": every[-1]}


def main(url: str, fingerprint: str, password_file: str, rounds: str, every_s: str, *paths: str) -> None:
    """Every page in each round, every `every_s`; until standard input ends, but at least one round."""
    browser = Browser(url, fingerprint, Path(password_file))
    print("in", flush=True)
    loads: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(int(rounds)):
        for path in paths:
            loads[path].append(browser.load(path))
        if select.select([sys.stdin], [], [], float(every_s))[0]:
            break
    print(json.dumps(loads))


if __name__ == "__main__":
    main(*sys.argv[1:])
