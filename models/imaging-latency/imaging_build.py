"""From a seed to a release folder: weights, graph, golden images, manifest. Takes seconds and needs no torch."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt
from imaging_graph import export
from imaging_network import SIDE_PX, Network, draw_network
from imaging_reference import scores

from edgeward_contract.manifest import Budget, CaptureMode, CapturePolicy, Tolerance
from edgeward_fleet.packing.golden import Golden
from edgeward_fleet.packing.pack import GoldenSource, pack
from edgeward_fleet.packing.sheet import Sheet, TensorNotes

BUILD: Final = Path(__file__).resolve().parent / "build"
VERSION: Final = 1
GOLDEN_CASES: Final = 4
SHEET: Final = Sheet(
    name="imaging-latency",
    version=VERSION,
    summary="MobileNetV2-shaped network with weights drawn from a seed: its answers mean nothing, its work is real.",
    intended_use=(
        "A reference for the latency and the size of an image model on a device. It was never trained: no "
        "diagnosis, no classification, no clinical use. Input: RGB from 0 to 1, channels first."
    ),
    license="Apache-2.0",
    budget=Budget(latency_us=50_000, memory_bytes=256 << 20),
    capture=CapturePolicy(mode=CaptureMode.OFF),
    # The scores lie within ±10; FP32 is about 2e-5 away from double precision here.
    outputs={"scores": TensorNotes(tolerance=Tolerance(atol=1e-3, rtol=1e-3))},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the release into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Build the release of imaging-latency.")
    parser.add_argument("--output", type=Path, default=BUILD, help="folder to write to (default: build/ of the model)")
    print(build(parser.parse_args(arguments).output))


def build(output: Path) -> Path:
    """Write `releases/1` below `output`, in place of one that is there; return it. Raises OSError, PackingError."""
    network = draw_network()
    release = output / "releases" / str(VERSION)
    with TemporaryDirectory() as scratch:
        model, golden = Path(scratch) / "model.onnx", Path(scratch) / "golden.npz"
        model.write_bytes(export(network).SerializeToString(deterministic=True))
        golden.write_bytes(golden_set(network).archive())
        shutil.rmtree(release, ignore_errors=True)
        pack(model, GoldenSource(path=golden, compute_outputs=False), SHEET, release)
    return release


def golden_set(network: Network) -> Golden:
    """Images with the answers of the numpy network."""
    images = np.stack([image(number) for number in range(GOLDEN_CASES)])
    answers = np.stack([scores(network, each) for each in images]).astype(np.float32)
    return Golden(inputs={"image": images}, outputs={"scores": answers})


def image(number: int) -> npt.NDArray[np.float32]:
    """A picture (3, 224, 224) of stripes and a disc, in 256 steps per colour as a camera gives them."""
    row, column = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    stripes = [(row * (number + 2) + column * (channel + 1)) % 1.0 for channel in range(3)]
    disc = (row - 0.5) ** 2 + (column - 0.3 - 0.1 * number) ** 2 < 0.04
    picture = np.where(disc, 1.0 - np.stack(stripes), np.stack(stripes))
    return np.asarray((np.round(picture * 255) / 255).astype(np.float32))
