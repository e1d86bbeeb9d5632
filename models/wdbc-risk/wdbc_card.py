"""What the model card claims: measured on the exported models and the held-out patients, never typed by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from sklearn.metrics import roc_auc_score
from wdbc_data import Floats, Indices

from edgeward_agent.ort import onnxruntime
from edgeward_contract.schema import JsonValue

RESAMPLES: Final = 2000
RESAMPLE_SEED: Final = 0
_Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A measured share, with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"

    def document(self) -> dict[str, JsonValue]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a model tells the held-out patients apart; a risk above one half counts as malignant."""

    auc: Interval
    sensitivity: Interval
    specificity: Interval
    missed: int
    false_alarms: int

    def document(self) -> dict[str, JsonValue]:
        return {
            "auc": self.auc.document(),
            "sensitivity": self.sensitivity.document(),
            "specificity": self.specificity.document(),
            "missed_malignant": self.missed,
            "false_alarms": self.false_alarms,
        }


def answers(model: bytes, features: np.typing.NDArray[np.float32]) -> Floats:
    """The `risk` (patients,) that ONNX Runtime gives for `features` (patients, 30)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (risk,) = session.run(["risk"], {"features": features})
    return np.asarray(risk, dtype=np.float64)[:, 0]


def judge(malignant: Indices, risk: Floats) -> Quality:
    """Compare risks (patients,) with diagnoses (patients,) of 0 and 1."""
    alarmed, ill = risk > 0.5, malignant == 1
    return Quality(
        auc=_auc(malignant, risk),
        sensitivity=_wilson(int((alarmed & ill).sum()), int(ill.sum())),
        specificity=_wilson(int((~alarmed & ~ill).sum()), int((~ill).sum())),
        missed=int((~alarmed & ill).sum()),
        false_alarms=int((alarmed & ~ill).sum()),
    )


def quality_table(qualities: Mapping[int, Quality]) -> str:
    """The table of the card, in Markdown."""
    lines = [
        "| version | AUC (95 % CI) | sensitivity (95 % CI) | specificity (95 % CI) | malignant missed | false alarms |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {version} | {each.auc} | {each.sensitivity} | {each.specificity} | {each.missed} | {each.false_alarms} |"
        for version, each in sorted(qualities.items())
    ]
    return "\n".join(lines)


def with_block(card: str, name: str, text: str) -> str:
    """Put `text` between the two markers of the block `name`.

    Raises:
        ValueError: the card has no such block.
    """
    block = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not block.search(card):
        raise ValueError(f"expected a block <!-- {name}: … --> … <!-- end of {name} --> in the card, found none")
    return block.sub(lambda found: f"{found[1]}{text}\n{found[2]}", card)


def _auc(malignant: Indices, risk: Floats) -> Interval:
    """Percentile bootstrap, each diagnosis resampled by itself so that no sample lacks one of them."""
    random = np.random.default_rng(RESAMPLE_SEED)
    ill, well = risk[malignant == 1], risk[malignant == 0]
    wins = np.where(ill[:, np.newaxis] == well, 0.5, ill[:, np.newaxis] > well)
    samples = [
        wins[random.integers(len(ill), size=len(ill))][:, random.integers(len(well), size=len(well))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(value=float(roc_auc_score(malignant, risk)), low=float(low), high=float(high))


def _wilson(hits: int, total: int) -> Interval:
    """Wilson's score interval: unlike the textbook one it stays honest near 1."""
    share, z2 = hits / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Interval(value=share, low=middle - half, high=middle + half)
