"""The heart as one electric dipole that turns: a sum of Gaussian waves, drawn anew for each simulated patient.

After the dynamical model of McSharry, Clifford, Tarassenko and Smith (IEEE Trans. Biomed. Eng. 50(3), 2003) and its
three-dimensional form by Sameni et al. (EURASIP J. Adv. Signal Process., 2007). Axes: x to the patient's left, y to
the feet, z to the back; millivolt. Sizes and spreads are ours, wide on purpose: an infarct, a bundle branch block, a
turned heart and an inverted T wave must all be possible in a rhythm that is otherwise the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from ecg_beats import Beat, Beats

Floats = npt.NDArray[np.float64]

RATE_HZ: Final = 500
_REACH: Final = 4.0  # a Gaussian is nothing beyond so many of its widths


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One Gaussian: its middle from the QRS complex on, its width (one sigma), its direction and size (3,) in mV.

    `stretch` is the share in which it follows the length of the beat, as repolarisation does.
    """

    at_s: float
    width_s: float
    dipole: Floats
    stretch: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heart:
    """The waves of one patient: of the atria, of a beat that they lead, of a beat from a ventricle."""

    atrial: tuple[Wave, ...]
    conducted: tuple[Wave, ...]
    ventricular: tuple[Wave, ...]
    breathing: float  # how much the size of the beats follows the breath


def draw_heart(random: np.random.Generator) -> Heart:
    """A patient."""
    blocked = random.random() < 0.12
    slow = random.uniform(1.5, 2.0) if blocked else random.uniform(0.8, 1.2)
    return Heart(
        atrial=_p_wave(random),
        conducted=(*_qrs(random, slow), *_repolarisation(random, -1.0 if random.random() < 0.25 else 1.0)),
        ventricular=_ectopic(random),
        breathing=float(random.uniform(0, 0.12)),
    )


def dipole_of(heart: Heart, beats: Beats, random: np.random.Generator, seconds: float) -> Floats:
    """The dipole (3, samples) over time."""
    dipole = np.zeros((3, round(seconds * RATE_HZ)))
    breath, phase = 2 * np.pi * random.uniform(0.15, 0.4), random.uniform(0, 2 * np.pi)
    for beat in beats:
        size = 1 + heart.breathing * np.sin(breath * beat.at_s + phase) + 0.02 * random.standard_normal()
        for wave in _waves(heart, beat):
            _add(dipole, wave, beat, float(size))
    return dipole


def fibrillation_of(random: np.random.Generator, seconds: float) -> Floats:
    """The trembling of the atria (3, samples): 4 to 9 per second, never quite periodic."""
    samples = round(seconds * RATE_HZ)
    knots = random.standard_normal(max(2, int(seconds * 2)))
    drift = np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)
    phase = 2 * np.pi * np.cumsum(random.uniform(4, 9) * (1 + 0.12 * drift)) / RATE_HZ
    size = random.uniform(0.01, 0.12) * (1 + 0.3 * np.roll(drift, samples // 3))
    tremor = size * (np.sin(phase) + 0.3 * np.sin(2 * phase + random.uniform(0, 2 * np.pi)))
    return _near(random, (-0.3, 0.5, -0.7), 0.4)[:, np.newaxis] * tremor


def _waves(heart: Heart, beat: Beat) -> tuple[Wave, ...]:
    if beat.ventricular:
        return heart.ventricular
    return (*heart.atrial, *heart.conducted) if beat.p_wave else heart.conducted


def _add(dipole: Floats, wave: Wave, beat: Beat, size: float) -> None:
    stretch = 1 + wave.stretch * (np.sqrt(min(max(beat.interval_s, 0.3), 1.6)) - 1)
    middle, width = (beat.at_s + wave.at_s * stretch) * RATE_HZ, wave.width_s * stretch * RATE_HZ
    first, last = max(0, int(middle - _REACH * width)), min(dipole.shape[1], int(middle + _REACH * width) + 2)
    if first < last:
        bell = np.exp(-0.5 * ((np.arange(first, last) - middle) / width) ** 2)
        dipole[:, first:last] += (size * wave.dipole)[:, np.newaxis] * bell


def _p_wave(random: np.random.Generator) -> tuple[Wave, ...]:
    at_s, width_s = -random.uniform(0.11, 0.21), random.uniform(0.015, 0.028)
    size = random.uniform(0.06, 0.2)
    right = Wave(at_s=at_s, width_s=width_s, dipole=size * _near(random, (0.4, 0.8, -0.4), 0.25))
    left = Wave(at_s=at_s + 0.03, width_s=width_s, dipole=0.7 * size * _near(random, (0.8, 0.5, 0.3), 0.25))
    return right, left


def _qrs(random: np.random.Generator, slow: float) -> tuple[Wave, ...]:
    parts = (
        (-0.026, 0.009, 0.3, (-0.4, -0.2, -0.8)),
        (0.0, 0.011, 1.2, (0.75, 0.6, 0.2)),
        (0.026, 0.012, 0.55, (-0.1, -0.3, 0.9)),
        (0.044, 0.010, 0.15, (-0.6, -0.5, 0.4)),
    )
    return tuple(
        Wave(
            at_s=slow * at_s * random.uniform(0.85, 1.15),
            width_s=slow * width_s * random.uniform(0.8, 1.25),
            dipole=size * random.lognormal(-0.1, 0.4) * _near(random, toward, 0.4),
        )
        for at_s, width_s, size, toward in parts
    )


def _repolarisation(random: np.random.Generator, sign: float) -> tuple[Wave, ...]:
    at_s, width_s = random.uniform(0.25, 0.33), random.uniform(0.035, 0.06)
    toward = sign * random.uniform(0.08, 0.5) * _near(random, (0.65, 0.6, -0.3), 0.4)
    shift = random.standard_normal(3) * (0.1 if random.random() < 0.4 else 0.02)
    return (
        Wave(at_s=0.12, width_s=0.04, dipole=shift, stretch=1.0),
        Wave(at_s=at_s - width_s, width_s=1.4 * width_s, dipole=0.5 * toward, stretch=1.0),
        Wave(at_s=at_s, width_s=width_s, dipole=toward, stretch=1.0),
    )


def _ectopic(random: np.random.Generator) -> tuple[Wave, ...]:
    """Wide, large, from anywhere, and with a T wave the other way."""
    toward, width_s = _near(random, (0.0, 0.0, 0.0), 1.0), random.uniform(0.024, 0.042)
    size, back = random.uniform(1.0, 2.4), random.uniform(0.2, 0.45)
    return (
        Wave(at_s=-0.4 * width_s, width_s=width_s, dipole=size * toward),
        Wave(at_s=1.6 * width_s, width_s=width_s, dipole=0.5 * size * _near(random, tuple(toward), 0.6)),
        Wave(at_s=random.uniform(0.27, 0.34), width_s=0.06, dipole=-back * size * toward, stretch=1.0),
    )


def _near(random: np.random.Generator, toward: tuple[float, ...], spread: float) -> Floats:
    """A direction of length 1 near another."""
    vector = np.asarray(toward) + spread * random.standard_normal(3)
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 1e-6 else np.array([1.0, 0.0, 0.0]))
