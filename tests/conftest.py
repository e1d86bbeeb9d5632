"""Rules for every test: in CI nothing of ours may be absent, so a skip there must be one that we know of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Reasons that are allowed even in CI; a test says them with pytest.skip(reason).
KNOWN_SKIPS = (
    "real ECG recordings are absent",
    "needs root",
    "needs an unprivileged user",
    *(  # root's set-up installs them
        ()
        if os.geteuid() == 0
        else ("chromium is absent", "mosquitto is absent", "a C compiler is absent", "PostgreSQL is absent")
    ),
)

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anybody imports it: see edgeward_agent/ort.py

settings.register_profile("short", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("short")
if os.environ.get("EDGEWARD_SOAK"):
    settings.load_profile("soak")
    os.environ.setdefault("PYTEST_TIMEOUT", "7200")  # what pyproject.toml allows a test is for the short form

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_unknown_skips: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if not any(known in reason for known in KNOWN_SKIPS):
            _unknown_skips.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("CI") and _unknown_skips:
        print("\nskipped in CI without a reason that tests/conftest.py knows:", *_unknown_skips, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder of this checkout."""
    return Path(__file__).resolve().parent.parent
