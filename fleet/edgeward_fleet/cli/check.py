"""`edgeward model check`: the program that devices run on a candidate, run here in a process that may crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgeward_contract.schema import ContractError, Fields, parse_json
from edgeward_fleet.cli.errors import CommandFailed


def probe(folder: Path) -> Fields:
    """The probe's verdict as it says it. Raises CommandFailed when the probe itself cannot run."""
    command = [sys.executable, "-m", "edgeward_agent", "probe", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return parse_json(done.stdout.encode())
    except ContractError:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and said nothing"]
        raise _cannot_run(lines) from None


def _cannot_run(lines: list[str]) -> CommandFailed:
    message = f"the device's check cannot run here: {lines[0].removeprefix('error: ')}"
    hint = " ".join(line.strip() for line in lines[1:]) or "pip install 'edgeward[agent]'"
    return CommandFailed(message, hint=hint)
