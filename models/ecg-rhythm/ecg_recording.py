"""Real recordings: WFDB files of format 16, read with numpy alone and held to the checksums in their header.

The format is described in "WFDB Applications Guide", header(5) and signal(5), https://physionet.org/physiotools/wag/.
The package `wfdb` reads all formats, and brings pandas and aiohttp with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from ecg_heart import RATE_HZ
from ecg_simulator import LEADS, Ecg

_DEFAULT_GAIN: Final = 200.0
_INVALID: Final = -32768  # signal(5): the sample that stands for "nothing was measured"
_TAPS_PER_STEP: Final = 16
_CUT_OFF: Final = 0.9  # of half the new rate


class RecordingError(Exception):
    """A recording that cannot be used; the message says what was expected and what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signal:
    """A line of the header: one lead of one file. `gain` is steps per millivolt."""

    name: str
    file: str
    gain: float
    baseline: int
    first: int
    checksum: int

    @classmethod
    def read(cls, line: str) -> _Signal:
        parts = line.split(maxsplit=8)
        if len(parts) < 9:
            raise RecordingError(f"expected the nine fields of a signal in the header, found {line!r}")
        file, layout, scale, _, zero, first, checksum, _, name = parts
        if layout != "16":
            raise RecordingError(f"{name}: expected format 16 (two bytes a sample), found {layout!r}")
        gain, baseline = _gain(name, scale, int(zero))
        return cls(name=name.strip(), file=file, gain=gain, baseline=baseline, first=int(first), checksum=int(checksum))


def read_recording(header: Path) -> Ecg:
    """The twelve leads of a recording.

    Args:
        header: its `.hea` file; the signal files lie beside it. Files with other leads may be absent.

    Returns:
        (12, samples) FP32, millivolt at 500 Hz, in the order of `LEADS`.

    Raises:
        RecordingError: not such a recording, a lead is missing, or the content is not what the header says.
        OSError: a file cannot be read.
    """
    lines = [line for line in header.read_text("ascii", "replace").splitlines() if line and not line.startswith("#")]
    rate, samples = _first_line(header.name, lines[0].split() if lines else [])
    try:
        signals = [_Signal.read(line) for line in lines[1:]]
    except ValueError as error:
        raise RecordingError(f"{header.name}: expected numbers in the header: {error}") from None
    file = _file_of_leads(header.name, signals)
    inside = [each for each in signals if each.file == file]
    steps = _samples(header.parent / file, inside, samples)
    millivolt = {each.name.lower(): (steps[:, n] - each.baseline) / each.gain for n, each in enumerate(inside)}
    return at_model_rate(np.stack([millivolt[lead.lower()] for lead in LEADS]), rate)


def at_model_rate(signal: npt.NDArray[np.float64], rate: float) -> Ecg:
    """The signal (leads, samples) brought from `rate` to 500 Hz: what half the new rate cannot carry is filtered out.

    Raises:
        RecordingError: the rate is no multiple of 500 Hz.
    """
    step = round(rate / RATE_HZ)
    if step < 1 or step * RATE_HZ != rate:
        raise RecordingError(f"expected a rate that is a multiple of {RATE_HZ} Hz, found {rate:g} Hz")
    if step == 1:
        return signal.astype(np.float32)
    reach = _TAPS_PER_STEP * step // 2
    taps = np.sinc(np.arange(-reach, reach + 1) * _CUT_OFF / step) * np.hamming(2 * reach + 1)
    taps /= taps.sum()
    padded = np.pad(signal, ((0, 0), (reach, reach)), mode="edge")
    filtered = np.stack([np.convolve(row, taps, mode="valid") for row in padded])
    return filtered[:, ::step].astype(np.float32)


def _first_line(name: str, parts: list[str]) -> tuple[float, int]:
    """Rate in Hz and the number of samples in each signal."""
    if len(parts) < 4 or "/" in parts[0]:
        raise RecordingError(f"{name}: expected a WFDB header of one segment: name, signals, rate, samples")
    try:
        return float(re.split("[/(]", parts[2])[0]), int(parts[3])
    except ValueError:
        raise RecordingError(f"{name}: expected a rate and a number of samples, found {' '.join(parts[2:4])}") from None


def _gain(name: str, text: str, zero: int) -> tuple[float, int]:
    """Steps per millivolt, and the step that is 0 mV: `gain(baseline)/units`, of which each part may be missing."""
    found = re.fullmatch(r"([\d.eE+-]+)(?:\((-?\d+)\))?(?:/(\S+))?", text)
    if found is None or found[3] not in (None, "mV"):
        raise RecordingError(f"{name}: expected a gain in steps per mV, found {text!r}")
    return float(found[1]) or _DEFAULT_GAIN, int(found[2]) if found[2] else zero


def _file_of_leads(name: str, signals: list[_Signal]) -> str:
    holding = {each.name.lower(): each.file for each in signals}
    missing = [lead for lead in LEADS if lead.lower() not in holding]
    if missing:
        raise RecordingError(f"{name}: expected the twelve standard leads, missing: {', '.join(missing)}")
    files = {holding[lead.lower()] for lead in LEADS}
    if len(files) != 1:
        raise RecordingError(f"{name}: expected the twelve leads in one file, found them in {', '.join(sorted(files))}")
    return files.pop()


def _samples(path: Path, signals: list[_Signal], samples: int) -> npt.NDArray[np.int16]:
    """(samples, signals), checked against the first value and the checksum of each."""
    data = path.read_bytes()
    if len(data) != 2 * samples * len(signals):
        raise RecordingError(f"{path.name}: expected {2 * samples * len(signals)} bytes, found {len(data)}")
    steps = np.frombuffer(data, "<i2").reshape(samples, len(signals))
    for number, each in enumerate(signals):
        checksum = int(steps[:, number].sum(dtype=np.int64))
        if (checksum - each.checksum) % 65536 or int(steps[0, number]) != each.first:
            raise RecordingError(f"{path.name}: lead {each.name}: expected checksum {each.checksum}, found another")
    if (steps == _INVALID).any():
        raise RecordingError(f"{path.name}: expected a value in each sample, found some marked as not measured")
    return steps
