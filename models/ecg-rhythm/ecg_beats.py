"""When a heart beats, and where each beat begins: the rhythm alone, before any wave is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

MARGIN_S: Final = 1.5  # beats are made before and after the window too, for their waves reach into it


class Rhythm(StrEnum):
    """What a window is labelled with, in the order of the model's output."""

    SINUS_RHYTHM = "sinus_rhythm"
    SINUS_BRADYCARDIA = "sinus_bradycardia"
    SINUS_TACHYCARDIA = "sinus_tachycardia"
    ATRIAL_FIBRILLATION = "atrial_fibrillation"
    VENTRICULAR_ECTOPY = "ventricular_ectopy"
    VENTRICULAR_BIGEMINY = "ventricular_bigeminy"
    VENTRICULAR_TACHYCARDIA = "ventricular_tachycardia"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """`at_s` is the middle of the QRS complex; `interval_s` lies between it and the beat before."""

    at_s: float
    interval_s: float
    ventricular: bool = False
    p_wave: bool = True


Beats = tuple[Beat, ...]


def beats_of(rhythm: Rhythm, random: np.random.Generator, seconds: float) -> Beats:
    """All beats whose waves can reach into 0..`seconds`, in order of time."""
    return _GENERATORS[rhythm](random, seconds)


def _sinus(slowest: float, fastest: float) -> Callable[[np.random.Generator, float], Beats]:
    """Regular but for breathing and a little chance; the label follows from the rate (per minute) that was drawn."""

    def generate(random: np.random.Generator, seconds: float) -> Beats:
        return _regular(random, seconds, 60.0 / random.uniform(slowest, fastest))

    return generate


def _regular(random: np.random.Generator, seconds: float, interval_s: float) -> Beats:
    breathing, depth = 2 * np.pi * random.uniform(0.15, 0.4), random.uniform(0.0, 0.06)
    phase, chance = random.uniform(0, 2 * np.pi), random.uniform(0.002, 0.012)
    beats: list[Beat] = []
    at_s = -MARGIN_S - random.uniform(0, interval_s)
    while at_s < seconds + MARGIN_S:
        step_s = interval_s * (1 + depth * np.sin(breathing * at_s + phase) + chance * random.standard_normal())
        at_s += step_s
        beats.append(Beat(at_s=float(at_s), interval_s=float(step_s)))
    return tuple(beats)


def _fibrillation(random: np.random.Generator, seconds: float) -> Beats:
    """Each interval is drawn anew; no beat has a P wave."""
    mean_s, spread = 60.0 / random.uniform(55, 150), random.uniform(0.15, 0.3)
    beats: list[Beat] = []
    at_s = -MARGIN_S - random.uniform(0, mean_s)
    while at_s < seconds + MARGIN_S:
        step_s = max(0.3, mean_s * random.lognormal(-(spread**2) / 2, spread))
        at_s += step_s
        beats.append(Beat(at_s=float(at_s), interval_s=float(step_s), p_wave=False))
    return tuple(beats)


def _ectopy(random: np.random.Generator, seconds: float) -> Beats:
    """Sinus rhythm in which single beats come early from a ventricle: one at least, never two in a row or in turn."""
    beats = list(_regular(random, seconds, 60.0 / random.uniform(55, 105)))
    first = next(index for index, beat in enumerate(beats) if beat.at_s > 0.8)
    last = max(index for index, beat in enumerate(beats) if beat.at_s < seconds)
    index = int(random.integers(first, min(first + 6, last) + 1))
    while index <= last:
        beats[index] = _premature(beats[index], random.uniform(0.5, 0.75))
        index += int(random.integers(3, 9))
    return tuple(beats)


def _bigeminy(random: np.random.Generator, seconds: float) -> Beats:
    beats = _regular(random, seconds, 60.0 / random.uniform(55, 105))
    coupling, odd = random.uniform(0.5, 0.75), int(random.integers(2))
    return tuple(
        _premature(beat, coupling + 0.02 * random.standard_normal()) if index % 2 == odd else beat
        for index, beat in enumerate(beats)
    )


def _premature(beat: Beat, coupling: float) -> Beat:
    """The beat, early: at `coupling` of its interval. The next one keeps its time, which makes the pause."""
    early_s = beat.interval_s * (1 - coupling)
    at_s, interval_s = float(beat.at_s - early_s), float(beat.interval_s - early_s)
    return replace(beat, at_s=at_s, interval_s=interval_s, ventricular=True, p_wave=False)


def _ventricular(random: np.random.Generator, seconds: float) -> Beats:
    beats = _regular(random, seconds, 60.0 / random.uniform(120, 210))
    return tuple(replace(beat, ventricular=True, p_wave=False) for beat in beats)


_GENERATORS: Final[dict[Rhythm, Callable[[np.random.Generator, float], Beats]]] = {
    Rhythm.SINUS_RHYTHM: _sinus(60, 100),
    Rhythm.SINUS_BRADYCARDIA: _sinus(35, 60),
    Rhythm.SINUS_TACHYCARDIA: _sinus(100, 160),
    Rhythm.ATRIAL_FIBRILLATION: _fibrillation,
    Rhythm.VENTRICULAR_ECTOPY: _ectopy,
    Rhythm.VENTRICULAR_BIGEMINY: _bigeminy,
    Rhythm.VENTRICULAR_TACHYCARDIA: _ventricular,
    Rhythm.UNREADABLE: _sinus(35, 160),
}
