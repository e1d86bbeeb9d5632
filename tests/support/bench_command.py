"""`edgeward-agent bench`, run as a person types it, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from click.testing import CliRunner

from edgeward_agent.cli.app import app
from support.serving import Json

NOISY = 3
QUICK = ("--duration", "0.4s", "--force")
WIDE_BUDGET = ("--budget", "5s@p90")  # a loaded machine must not decide what is not about it


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        return json.loads(self.out)


def bench(*arguments: object) -> Done:
    done = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)
    return Done(done.exit_code, done.stdout, done.stderr)


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Under names that are no words of Python."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
