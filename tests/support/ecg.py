"""Twelve-lead ECG for tests: real where a recording is at hand, and files as a recorder would leave them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
from ecg_simulator import LEADS

from support.models import MODELS, ROOT

ECG_RHYTHM: Final = MODELS / "ecg-rhythm"
RELEASE: Final = ECG_RHYTHM / "releases/1"


def real_recording() -> Path:
    """The header of the PTB recording s0010_re; skips the test where it is not there."""
    folder = Path(os.environ.get("EDGEWARD_ECG_DIR", ROOT.parent / "shared/data/ecg"))
    header = folder / "s0010_re.hea"
    if not header.exists():
        pytest.skip("real ECG recordings are absent")
    return header


def write_wfdb(folder: Path, name: str, steps: npt.NDArray[np.int16], *, rate_hz: int, gain: int = 2000) -> Path:
    """A recording of format 16 from (samples, 12) steps, as a recorder would leave it; its header is returned."""
    (folder / f"{name}.dat").write_bytes(steps.astype("<i2").tobytes())
    lines = [f"{name} {len(LEADS)} {rate_hz} {len(steps)}"]
    for number, lead in enumerate(LEADS):
        column = steps[:, number].astype(np.int64)
        checksum = (int(column.sum()) + 32768) % 65536 - 32768
        lines.append(f"{name}.dat 16 {gain} 16 0 {column[0]} {checksum} 0 {lead.lower()}")
    header = folder / f"{name}.hea"
    header.write_text("\n".join([*lines, "# a comment", ""]), encoding="ascii")
    return header
