"""From a seed to a release folder: train, export, judge, choose golden cases, write.

Golden outputs come from the torch network in double precision, not from the exported graph: a golden set that a
graph makes for itself could never find that graph wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import ecg_net
import numpy as np
from ecg_beats import Rhythm
from ecg_card import Counts, Runner, confusion, held_out, quality_document, quality_table, recording_lines, with_block
from ecg_graph import EcgGraph
from ecg_recording import read_recording
from ecg_simulator import LEADS, Ecg

from edgeward_contract.manifest import Budget, CaptureMode, CapturePolicy, Tolerance
from edgeward_fleet.packing.golden import Golden
from edgeward_fleet.packing.pack import GoldenSource, pack
from edgeward_fleet.packing.sheet import Sheet, TensorNotes

HERE: Final = Path(__file__).resolve().parent
VERSION: Final = 1
JUDGED: Final = 150  # held-out windows of each rhythm
CANDIDATES: Final = 100  # of which golden cases are chosen
CLEAR_LEAD: Final = 0.05  # of the first answer over the second, so that `rhythm` may be compared exactly
RECORDING: Final = "s0010_re"

SHEET: Final = Sheet(
    name="ecg-rhythm",
    version=VERSION,
    summary="1-D ResNet that names the rhythm of ten seconds of 12-lead ECG; trained on simulated recordings alone.",
    intended_use=(
        "Demonstration only, not for clinical use. Trained on simulated ECG and validated on simulated ECG. Input: "
        f"10 s at 500 Hz in millivolt, leads in the order {', '.join(LEADS)}. `rhythm` is the number of the likeliest "
        "of the labels of `probability`."
    ),
    license="Apache-2.0",
    budget=Budget(latency_us=10_000, memory_bytes=128 << 20),
    capture=CapturePolicy(mode=CaptureMode.ASYNC, inputs=False, outputs=True),
    outputs={
        "probability": TensorNotes(
            labels=tuple(str(rhythm) for rhythm in Rhythm),
            units=("1",) * len(Rhythm),
            tolerance=Tolerance(atol=1e-3, rtol=0.0),  # FP32 moves a probability by about 1e-6 here
        ),
        "rhythm": TensorNotes(tolerance=Tolerance(atol=0.0, rtol=0.0)),
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    output: Path
    checkpoint: Path | None
    steps: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Build everything into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Train ecg-rhythm and write its release and card.")
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: the model's own)")
    parser.add_argument("--checkpoint", type=Path, help="keep the trained network here, or take it from here")
    parser.add_argument("--steps", type=int, default=ecg_net.STEPS, help="batches to train on (default: %(default)s)")
    given = parser.parse_args(arguments)
    build(Order(output=given.output, checkpoint=given.checkpoint, steps=given.steps))


def build(order: Order) -> None:
    """Raises OSError when `output` cannot be written, PackingError when the graph does not give what torch gives."""
    net = _trained(order)
    parameters = sum(each.numel() for each in net.parameters())
    model = (
        EcgGraph(
            ecg_net.state_of(net),
            stem_stride=ecg_net.STEM_STRIDE,
            floor_mv=ecg_net.FLOOR_MV,
            epsilon=ecg_net.BN_EPSILON,
        )
        .build()
        .SerializeToString(deterministic=True)
    )
    runner = Runner(model)
    counts = confusion(runner, JUDGED)
    _write_release(model, golden_set(net), order.output / "releases" / str(VERSION))
    evaluation = json.dumps(quality_document(counts), sort_keys=True) + "\n"
    (order.output / "evaluation.json").write_text(evaluation, encoding="utf-8")
    (order.output / "README.md").write_text(_card(runner, counts, parameters, order.steps), encoding="utf-8")


def golden_set(net: ecg_net.EcgNet) -> Golden:
    """Of each rhythm the held-out window that the network is least sure of, and the one in the middle."""
    inputs = np.concatenate([_cases(net, held_out(rhythm, CANDIDATES)) for rhythm in Rhythm])
    answers = ecg_net.probabilities(net, inputs)
    outputs = {"probability": answers.astype(np.float32), "rhythm": answers.argmax(axis=1).astype(np.int64)}
    return Golden(inputs={"ecg": inputs}, outputs=outputs)


def _cases(net: ecg_net.EcgNet, windows: Ecg) -> Ecg:
    ranked = np.sort(ecg_net.probabilities(net, windows), axis=1)
    lead = ranked[:, -1] - ranked[:, -2]
    usable = [int(row) for row in np.argsort(lead, kind="stable") if lead[row] > CLEAR_LEAD]
    if not usable:
        raise SystemExit(
            "ecg-rhythm: expected a network that can tell rhythms apart, got one that cannot: train longer"
        )
    return windows[[usable[0], usable[len(usable) // 2]]]


def _trained(order: Order) -> ecg_net.EcgNet:
    if order.checkpoint is not None and order.checkpoint.exists():
        return ecg_net.load(order.checkpoint)
    net = ecg_net.train(order.steps)
    if order.checkpoint is not None:
        ecg_net.save(net, order.checkpoint)
    return net


def _write_release(model: bytes, golden: Golden, release: Path) -> None:
    with TemporaryDirectory() as scratch:
        files = Path(scratch) / "model.onnx", Path(scratch) / "golden.npz"
        for path, data in zip(files, (model, golden.archive()), strict=True):
            path.write_bytes(data)
        shutil.rmtree(release, ignore_errors=True)
        pack(files[0], GoldenSource(path=files[1], compute_outputs=False), SHEET, release)


def _card(runner: Runner, counts: Counts, parameters: int, steps: int) -> str:
    card = (HERE / "README.md").read_text(encoding="utf-8")
    windows = steps * ecg_net.BATCH
    training = f"{parameters:,} parameters, trained on {windows:,} simulated windows, none of them seen twice."
    card = with_block(card, "training", training)
    card = with_block(card, "quality", quality_table(counts))
    header = Path(os.environ.get("EDGEWARD_ECG_DIR", HERE.parents[2] / "shared/data/ecg")) / f"{RECORDING}.hea"
    if not header.exists():
        return card  # the figures of the last run with the recording stay
    return with_block(card, "recording", recording_lines(runner, read_recording(header)))
