"""Simulated 12-lead ECG, labelled with its rhythm: seeded, with numpy alone.

The dipole reaches the electrodes through the inverse of Dower's matrix, turned and stretched for each patient; noise
is added where it arises, at the electrodes, so that the leads stay consistent (III = II - I) as those of a real device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from ecg_beats import Rhythm, beats_of
from ecg_heart import RATE_HZ, Floats, dipole_of, draw_heart, fibrillation_of

Ecg = npt.NDArray[np.float32]

LEADS: Final = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
WINDOW_S: Final = 10.0
WINDOW: Final = round(WINDOW_S * RATE_HZ)
RESOLUTION_MV: Final = 0.005  # one step of a usual recorder
_RAIL_MV: Final = 10.0

# Dower, Machado, Osborne (Clin. Cardiol. 3, 1980): x, y, z of the dipole to I, II, V1 … V6.
_DOWER: Final = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
# The twelve leads from the eight that are independent: Einthoven's and Goldberger's rules.
_LIMBS: Final = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])
# What the electrodes RA, LA, LL, V1 … V6 do to the eight leads; chest leads are against Wilson's central terminal.
_ELECTRODES: Final = np.vstack(
    [
        np.hstack([np.array([[-1.0, 1, 0], [-1, 0, 1]]), np.zeros((2, 6))]),
        np.hstack([np.full((6, 3), -1 / 3), np.eye(6)]),
    ]
)


def simulate(rhythm: Rhythm, random: np.random.Generator, seconds: float = WINDOW_S) -> Ecg:
    """A recording of one patient.

    Returns:
        (12, samples) FP32, millivolt at 500 Hz, leads in the order of `LEADS`, in steps of `RESOLUTION_MV`.
    """
    dipole = dipole_of(draw_heart(random), beats_of(rhythm, random, seconds), random, seconds)
    if rhythm is Rhythm.ATRIAL_FIBRILLATION:
        dipole += fibrillation_of(random, seconds)
    eight = _torso(random) @ dipole
    if rhythm is Rhythm.UNREADABLE:
        eight = _UNREADABLE[random.integers(len(_UNREADABLE))](eight, random)
    else:
        eight += _ELECTRODES @ _noise(random, eight.shape[1])
        eight[2:][random.random(6) < 0.01] = 0.0  # a chest electrode that fell off
    return _recorded(eight)


def batch(seed: int, number: int, size: int) -> tuple[Ecg, npt.NDArray[np.int64]]:
    """Batch `number` of an endless stream: windows (size, 12, 5000) and labels (size,); all rhythms equally often."""
    random = np.random.default_rng([seed, number])
    labels = random.integers(len(Rhythm), size=size)
    rhythms = tuple(Rhythm)
    return np.stack([simulate(rhythms[label], random) for label in labels]), labels.astype(np.int64)


def _torso(random: np.random.Generator) -> Floats:
    """Dower's matrix for one patient: the heart turned by up to some 30 degrees, each lead stretched by itself."""
    turn, _ = np.linalg.qr(np.eye(3) + 0.25 * random.standard_normal((3, 3)))
    turn *= np.sign(np.diag(turn))  # a turn, not a mirror
    gain = random.lognormal(-0.25, 0.4) * random.lognormal(0, 0.15, size=(8, 1))
    return np.asarray(gain * (_DOWER @ turn))


def _recorded(eight: Floats) -> Ecg:
    """Twelve leads as a device gives them: at its resolution, and cut off at its rails."""
    steps = np.round(np.clip(eight, -_RAIL_MV, _RAIL_MV) / RESOLUTION_MV) * RESOLUTION_MV
    return np.vstack([_LIMBS @ steps[:2], steps[2:]]).astype(np.float32)


def _noise(random: np.random.Generator, samples: int) -> Floats:
    """What is added at each of the nine electrodes (9, samples): wander, mains, muscles, and now and then a jolt."""
    time_s = np.arange(samples) / RATE_HZ
    noise = _log_uniform(random, 0.003, 0.04) * random.standard_normal((9, samples))
    noise += _log_uniform(random, 0.01, 0.2) * _wander(random, time_s)
    noise += _log_uniform(random, 0.001, 0.06) * _mains(random, time_s)
    if random.random() < 0.2:
        middle_s, width_s = random.uniform(0, time_s[-1]), random.uniform(0.1, 0.4)
        jolt = np.exp(-0.5 * ((time_s - middle_s) / width_s) ** 2)
        noise[random.integers(9)] += random.uniform(-1.0, 1.0) * jolt
    return noise


def _wander(random: np.random.Generator, time_s: Floats) -> Floats:
    rates, phases = random.uniform(0.05, 0.5, 3), random.uniform(0, 2 * np.pi, (9, 3))
    return np.asarray(np.sin(2 * np.pi * rates[:, np.newaxis] * time_s + phases[..., np.newaxis]).sum(axis=1))


def _mains(random: np.random.Generator, time_s: Floats) -> Floats:
    angle = 2 * np.pi * (50.0 if random.random() < 0.7 else 60.0) * time_s + random.uniform(0, 2 * np.pi)
    return random.uniform(0, 1, (9, 1)) * (np.sin(angle) + random.uniform(0, 0.3) * np.sin(3 * angle))


def _flat(eight: Floats, random: np.random.Generator) -> Floats:
    """Nobody is connected; the amplifier alone is heard."""
    return _log_uniform(random, 0.0005, 0.01) * random.standard_normal(eight.shape)


def _humming(eight: Floats, random: np.random.Generator) -> Floats:
    """Electrodes hang in the air and catch the mains."""
    hum = _mains(random, np.arange(eight.shape[1]) / RATE_HZ)
    return np.asarray(_ELECTRODES @ (random.uniform(0.3, 5.0) * hum)) + _flat(eight, random)


def _moving(eight: Floats, random: np.random.Generator) -> Floats:
    """A patient in motion: slow, strong noise that leaves little of the heart."""
    steps = random.standard_normal((9, eight.shape[1])).cumsum(axis=1)
    width = int(random.integers(20, 400))
    smooth = steps - np.apply_along_axis(lambda row: np.convolve(row, np.full(width, 1 / width), "same"), 1, steps)
    smooth *= random.uniform(0.5, 3.0) / (smooth.std() + 1e-9)
    return np.asarray(random.uniform(0, 0.5) * eight + _ELECTRODES @ smooth)


def _hissing(eight: Floats, random: np.random.Generator) -> Floats:
    return random.uniform(0, 0.3) * eight + random.uniform(0.3, 2.0) * random.standard_normal(eight.shape)


_UNREADABLE: Final[tuple[Callable[[Floats, np.random.Generator], Floats], ...]] = (_flat, _humming, _moving, _hissing)


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))
