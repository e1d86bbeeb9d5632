"""The whole path as a newcomer sees it: `edgeward demo` with real processes, judged by its summary and its files.

The demonstration counts for itself; here its ledger is counted once more, so that a demonstration that counts nothing
would be noticed.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeward_contract.schema import Fields, parse_json

DEVICES = 5
PATIENTS = 569
LIMIT_S = 150
COMMAND = (sys.executable, "-c", "from edgeward_fleet.cli import main; main()")


@dataclass(frozen=True, slots=True)
class Shown:
    """A demonstration that has ended, and the folder that it left."""

    code: int
    summary: Fields
    ledger: list[dict[str, str]]
    folder: Path
    told: str


@pytest.fixture(scope="module")
def shown(checkout: Path) -> Iterator[Shown]:
    options = ["demo", "--headless", "--keep", "--json", "--devices", str(DEVICES)]
    done = subprocess.run(
        [*COMMAND, *options], cwd=checkout, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False
    )
    assert done.stdout, done.stderr
    summary = parse_json(done.stdout.encode())
    folder = Path(summary.text("folder"))
    with (folder / "ledger.csv").open(newline="") as file:
        ledger = list(csv.DictReader(file))
    yield Shown(done.returncode, summary, ledger, folder, done.stderr)
    shutil.rmtree(folder)


pytestmark = pytest.mark.timeout(2 * LIMIT_S + 30)


def test_every_count_is_what_it_must_be(shown: Shown) -> None:
    wrong = [check.members() for check in shown.summary.objects("checks") if not check.boolean("ok")]
    assert not wrong, shown.told
    assert len(shown.summary.objects("checks")) > 20
    assert (shown.code, shown.summary.boolean("ok")) == (0, True)


def test_it_takes_no_longer_than_it_may(shown: Shown) -> None:
    assert shown.summary.number("seconds") < LIMIT_S


def test_all_patients_were_examined_and_only_version_4_ever_failed(shown: Shown) -> None:
    answered = [row for row in shown.ledger if row["status"] == "200"]
    failed = [row for row in shown.ledger if row["status"] != "200"]
    assert len({row["patient"] for row in answered}) == PATIENTS
    assert {row["status"] for row in failed} == {"500"}
    assert shown.summary.integer("questions") == len(shown.ledger)


def test_the_bedsides_own_ledger_tells_the_same_story(shown: Shown) -> None:
    """Version 1, then 2; never 3; then 4 for a while and 2 again at the end, on every device."""
    for device in {row["device"] for row in shown.ledger}:
        versions = [row["version"] for row in shown.ledger if row["device"] == device and row["status"] == "200"]
        story = [version for number, version in enumerate(versions) if number == 0 or versions[number - 1] != version]
        assert story in (["1", "2", "4", "2"], ["1", "2"]), device
    assert any(row["version"] == "4" for row in shown.ledger)


def test_an_answer_was_never_given_twice_under_one_name(shown: Shown) -> None:
    names = [row["request_id"] for row in shown.ledger]
    assert len(names) == len(set(names))


def test_nothing_is_left_running(shown: Shown) -> None:
    assert running_in(str(shown.folder)) == []


def test_no_secret_is_readable_by_others(shown: Shown) -> None:
    secrets = [shown.folder / "password", *shown.folder.glob("d*/identity/device.key"), *shown.folder.glob("d*/*.key")]
    assert len(secrets) > DEVICES
    assert [path for path in secrets if path.stat().st_mode & 0o077] == []


def test_whoever_stops_it_in_the_middle_finds_nothing_left(checkout: Path) -> None:
    command = [*COMMAND, "demo", "--devices", "3"]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        told = []
        for line in demo.stdout:  # ends when the process does
            told.append(line)
            if "enrolled and running: " in line:
                demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 130, told
    (folder,) = re.findall(r" patients, in (\S+)", told[0])
    assert running_in(folder) == []
    assert not Path(folder).exists()


def test_a_checkout_that_lacks_the_model_says_how_to_name_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "demo", "--models", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "EDGEWARD_PROFILE": str(tmp_path / "profile.json")},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected the reference model wdbc-risk, found none in ")
    assert "Traceback" not in done.stderr


def running_in(folder: str) -> list[str]:
    """Every process of a demonstration names its folder on its command line."""
    lines = [_command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if folder in line]


def _command_line(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
