"""How long a person waits for a page of the dashboard."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx

from benchmarks.report import quantile
from edgeward_fleet.cli.client import trust
from edgeward_fleet.cli.trust import pin
from edgeward_fleet.demo.staff import OPERATOR, Staff

_TIMEOUT_S: Final = 60.0


class Browser:
    """The operator, logged in. Not of use to two at once."""

    def __init__(self, staff: Staff) -> None:
        self._http = httpx.Client(
            base_url=staff.url,
            verify=trust(pin(staff.url, staff.fingerprint)),
            timeout=_TIMEOUT_S,
            trust_env=False,
            headers={"Accept": "text/html"},
        )
        self._log_in(staff.password_file)

    def load(self, path: str) -> float:
        """Milliseconds until the page is here, or until patience ended. Raises httpx.HTTPStatusError."""
        began = time.perf_counter()
        with suppress(httpx.TimeoutException):
            self._http.get(path).raise_for_status()
        return (time.perf_counter() - began) * 1e3

    def loads(self, path: str, times: int) -> dict[str, float]:
        return figures([self.load(path) for _ in range(times)])

    def close(self) -> None:
        self._http.close()

    def _log_in(self, password_file: Path) -> None:
        found = re.search(r'name="form" value="([0-9a-f]{64})"', self._http.get("/login").text)
        assert found is not None, "expected a log-in form"
        password = password_file.read_text().strip()
        form = {"form": found[1], "next": "/", "username": OPERATOR, "password": password}
        answer = self._http.post("/login", data=form)
        assert answer.status_code == 303, f"expected to be logged in, got {answer.status_code}"


def figures(milliseconds: list[float]) -> dict[str, float]:
    every = sorted(milliseconds)
    return {"loads": len(every), "p50_ms": quantile(every, 0.5), "p95_ms": quantile(every, 0.95), "max_ms": every[-1]}
