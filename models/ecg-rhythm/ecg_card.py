"""What the card claims: measured on the exported graph with ONNX Runtime, never typed by hand."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from ecg_beats import Rhythm
from ecg_heart import RATE_HZ
from ecg_simulator import WINDOW, Ecg, simulate

from edgeward_agent.ort import onnxruntime
from edgeward_contract.schema import JsonValue

HELD_OUT: Final = 2  # the stream of windows that training never reads
_Z95: Final = 1.959963984540054

Counts = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, with Wilson's 95 % interval: unlike the textbook one it stays honest near 1."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        if not self.total:
            return 0.0, 1.0
        z2 = _Z95**2 / self.total
        middle, half = self.value + z2 / 2, math.sqrt(self.value * (1 - self.value) * z2 + z2**2 / 4)
        return (middle - half) / (1 + z2), (middle + half) / (1 + z2)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f}–{high:.3f})"


class Runner:
    """The graph in ONNX Runtime, one window at a time as at a bedside."""

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def probabilities(self, windows: Ecg) -> Probabilities:
        """(windows, 12, 5000) → (windows, rhythms)."""
        answers = [self._session.run(["probability"], {"ecg": each[np.newaxis]})[0] for each in windows]
        return np.concatenate(answers)


def held_out(rhythm: Rhythm, windows: int) -> Ecg:
    """Windows (windows, 12, 5000) of one rhythm from patients that training did not meet."""
    return np.stack(
        [simulate(rhythm, np.random.default_rng([HELD_OUT, rhythm_number(rhythm), n])) for n in range(windows)]
    )


def rhythm_number(rhythm: Rhythm) -> int:
    return tuple(Rhythm).index(rhythm)


def confusion(runner: Runner, windows: int) -> Counts:
    """Counts (true rhythm, answered rhythm) over so many held-out windows of each rhythm."""
    counts = np.zeros((len(Rhythm), len(Rhythm)), dtype=np.int64)
    for true, rhythm in enumerate(Rhythm):
        answered = runner.probabilities(held_out(rhythm, windows)).argmax(axis=1)
        counts[true] = np.bincount(answered, minlength=len(Rhythm))
    return counts


def quality_table(counts: Counts) -> str:
    """The table of the card, in Markdown."""
    lines = [
        f"All rhythms together: {Share(hits=int(counts.trace()), total=int(counts.sum()))} right.",
        "",
        "| rhythm | windows | sensitivity (95 % CI) | precision (95 % CI) | most often taken for |",
        "|---|---|---|---|---|",
    ]
    for number, rhythm in enumerate(Rhythm):
        hits, total, claimed = (int(n) for n in (counts[number, number], counts[number].sum(), counts[:, number].sum()))
        sensitivity, precision = Share(hits=hits, total=total), Share(hits=hits, total=claimed)
        lines.append(f"| `{rhythm}` | {total} | {sensitivity} | {precision} | {_mistaken(counts, number)} |")
    return "\n".join(lines)


def quality_document(counts: Counts) -> dict[str, JsonValue]:
    """The same for programs: rows are the true rhythms, columns the answers."""
    return {"rhythms": [str(rhythm) for rhythm in Rhythm], "confusion": counts.tolist()}


def recording_lines(runner: Runner, ecg: Ecg) -> str:
    """What the model says of a real recording, window by window, one each second."""
    probabilities = runner.probabilities(sliding(ecg))
    answered = [str(tuple(Rhythm)[number]) for number in probabilities.argmax(axis=1)]
    sinus = probabilities[:, rhythm_number(Rhythm.SINUS_RHYTHM)]
    lines = [f"- windows: {len(answered)}"]
    lines += [f"- answered `{rhythm}`: {answered.count(rhythm)}" for rhythm in sorted(set(answered))]
    lines.append(f"- probability of `{Rhythm.SINUS_RHYTHM}`: median {np.median(sinus):.2f}, lowest {sinus.min():.2f}")
    return "\n".join(lines)


def sliding(ecg: Ecg) -> Ecg:
    """All windows (windows, 12, 5000) of a recording (12, samples), a second apart."""
    starts = range(0, ecg.shape[1] - WINDOW + 1, RATE_HZ)
    return np.stack([ecg[:, start : start + WINDOW] for start in starts])


def with_block(card: str, name: str, text: str) -> str:
    """Put `text` between the two markers of the block `name`.

    Raises:
        ValueError: the card has no such block.
    """
    block = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not block.search(card):
        raise ValueError(f"expected a block <!-- {name}: … --> … <!-- end of {name} --> in the card, found none")
    return block.sub(lambda found: f"{found[1]}{text}\n{found[2]}", card)


def _mistaken(counts: Counts, number: int) -> str:
    others = counts[number].copy()
    others[number] = 0
    worst = int(others.argmax())
    return f"`{tuple(Rhythm)[worst]}` ({others[worst]})" if others[worst] else "none"
