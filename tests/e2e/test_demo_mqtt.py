"""The demonstration over MQTT: its own broker, the same steps, the same counts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeward_contract.schema import parse_json
from support import mosquitto

COMMAND = (sys.executable, "-c", "from edgeward_fleet.cli import main; main()")
LIMIT_S = 240

pytestmark = pytest.mark.timeout(LIMIT_S + 30)


def test_every_count_is_what_it_must_be_over_mqtt(checkout: Path) -> None:
    mosquitto.command()  # skips
    options = ["demo", "--headless", "--keep", "--json", "--devices", "3", "--link", "mqtt"]
    done = subprocess.run(
        [*COMMAND, *options], cwd=checkout, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.stdout, done.stderr
    summary = parse_json(done.stdout.encode())
    folder = Path(summary.text("folder"))
    wrong = [check.members() for check in summary.objects("checks") if not check.boolean("ok")]
    assert not wrong, done.stderr
    assert (done.returncode, summary.boolean("ok")) == (0, True)
    assert "devices come over mqtt" in done.stderr
    for number in (1, 2, 3):
        assert 'kind = "mqtt"' in (folder / f"d{number}" / "agent.toml").read_text()
    fleet = (folder / "fleet.log").read_text()
    assert "at the broker: 0 devices, 0 roles added, 0 taken away" in fleet
    assert "ERROR" not in fleet and "Traceback" not in fleet
    shutil.rmtree(folder)
