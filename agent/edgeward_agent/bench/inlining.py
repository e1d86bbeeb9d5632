"""A model in one file: the runtime's quantisation tools copy it elsewhere, and lose what lay beside it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.words import size

MOST_BYTES: Final = (2 << 30) - 1  # of one message of Protocol Buffers, which such a file is


def in_one_file(file: Path, made: Path) -> None:
    """Write the model of `file` to `made`, its external data within. Needs the package onnx.

    Raises:
        CannotMeasure: it is larger than one file of ONNX can be.
        Exception: whatever onnx raises where a tensor cannot be read.
    """
    onnx = importlib.import_module("onnx")
    model = onnx.load(file, load_external_data=False)
    outside = [each for each in model.graph.initializer if onnx.external_data_helper.uses_external_data(each)]
    all_bytes = file.stat().st_size + sum(_bytes(onnx.external_data_helper.ExternalDataInfo(e), file) for e in outside)
    if all_bytes > MOST_BYTES:
        raise CannotMeasure(
            f"--quantize: expected a model of at most {size(MOST_BYTES)}, weights included, got {size(all_bytes)}",
            "The tools cannot take it; quantise it where it was trained, and hold it beside this one with --compare.",
        )
    onnx.load_external_data_for_model(model, str(file.parent))
    onnx.save(model, made)


def _bytes(info: object, file: Path) -> int:
    """Without a length, it is all of the file."""
    length, location = getattr(info, "length"), getattr(info, "location")  # noqa: B009
    return int(length or (file.parent / location).stat().st_size)
