"""Static INT8 quantisation (QDQ) of the model, held beside the original: what it gains, and what it costs.

The tools of ONNX Runtime do the work; they need the package `onnx`, which no device carries, so they are imported
when they are needed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from edgeward_agent import ort
from edgeward_agent.bench import cases as making
from edgeward_agent.bench.cases import Cases, Feeds
from edgeward_agent.bench.comparing import Pair, measure_pair
from edgeward_agent.bench.errors import CannotMeasure, Interrupted
from edgeward_agent.bench.inlining import in_one_file
from edgeward_agent.bench.measuring import Progress
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.preparing import Prepared, prepare
from edgeward_agent.bench.report import Report
from edgeward_agent.bench.subject import Subject, load
from edgeward_agent.bench.words import counted

LABEL: Final = "INT8"
ENOUGH_CASES: Final = 32
RANDOM_WARNING: Final = (
    "calibrated with random numbers: the times hold, the answers do not; give real cases with --calibration FILE.npz"
)


class _Reader:
    """Hands out calibration cases, as the runtime's tools want them: one dict at a time, then None."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds = feeds
        self._next: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._next, None)

    def rewind(self) -> None:
        self._next = iter(self._feeds)


def run(options: Options, progress: Progress) -> Report:
    """`--quantize`: the verdict is on the quantised model. Raises CannotMeasure, ServerLost."""
    progress("loading the model", 0.0, 0.0)
    tools = _tools()
    prepared = prepare(options)
    subject = prepared.at_hand
    calibration, held_out, doubts = divide(options, prepared)
    doubts += check_values(calibration)
    with tempfile.TemporaryDirectory(prefix="edgeward-bench-", ignore_cleanup_errors=True) as folder:
        made = Path(folder) / f"{subject.file.stem}-int8.onnx"
        progress(f"quantising with {counted(len(calibration.feeds), 'case')}", 0.0, 0.0)
        _quantise(tools, subject, calibration, made)
        second = load(made)
        pair = Pair(first=prepared, second=second, label=LABEL, kind="quantize", cases=held_out, warnings=tuple(doubts))
        try:
            report = measure_pair(pair, options, progress)
        except (Interrupted, KeyboardInterrupt):
            raise _kept_so_far(made, options.output) from None
        return _with_file(report, made, options.output)


def _kept_so_far(made: Path, output: Path | None) -> Interrupted:
    """The model is there even when no time is: it is kept where it was asked for."""
    if output is None:
        kept = "--output FILE keeps it"
    else:
        shutil.copyfile(made, output)
        kept = f"it is in {output}"
    return Interrupted(
        f"interrupted before anything was measured; the quantised model was made, and {kept}",
        "Let it run for a moment longer.",
    )


def divide(options: Options, prepared: Prepared) -> tuple[Cases, Cases, list[str]]:
    """(for calibration, for comparison, warnings). The cases are shared out where nothing else holds them apart."""
    if options.calibration is not None:
        calibration = making.calibration(options.calibration, prepared.specs)
        if not prepared.cases.random:
            return calibration, prepared.cases, _few(calibration)
        first, second, doubts = _halves(calibration)
        return first, second, doubts + _few(first)
    if prepared.cases.random:
        return prepared.cases, prepared.cases, [RANDOM_WARNING]
    first, second, doubts = _halves(prepared.cases)
    return first, second, doubts + _few(first)


def _halves(cases: Cases) -> tuple[Cases, Cases, list[str]]:
    """Every other case for calibration: judged on what it was fitted to, a model looks better than it is."""
    if len(cases.feeds) < 2:
        return cases, cases, ["calibrated and judged on the same case: give more with --calibration FILE.npz"]
    first = replace(cases, feeds=cases.feeds[::2], wanted=cases.wanted[::2])
    second = replace(
        cases, feeds=cases.feeds[1::2], wanted=cases.wanted[1::2], source=f"{len(cases.feeds[1::2])} of {cases.source}"
    )
    return first, second, []


def check_values(calibration: Cases) -> list[str]:
    """Warns of zeros alone, from which no range follows. Raises CannotMeasure for what is no number."""
    arrays = [(name, each) for feeds in calibration.feeds for name, each in feeds.items() if each.dtype.kind in "fiu"]
    for name, each in arrays:
        if not np.isfinite(each).all():
            raise CannotMeasure(
                f"--quantize: input {name}: expected finite numbers for calibration, got NaN or infinity in"
                f" {calibration.source}",
                "Give cases as the model sees them, with --calibration FILE.npz.",
            )
    if arrays and not any(each.any() for _, each in arrays):
        return ["calibrated with zeros alone: the answers mean nothing; give real cases with --calibration FILE.npz"]
    return []


def _few(calibration: Cases) -> list[str]:
    n = len(calibration.feeds)
    return [f"calibrated with {counted(n, 'case')}: {ENOUGH_CASES} or more are better"] if n < ENOUGH_CASES else []


def _tools() -> object:
    """The runtime's quantisation tools. Raises CannotMeasure when what they need is not installed."""
    assert ort  # sets the runtime's telemetry off before anything of it is imported
    try:
        return importlib.import_module("onnxruntime.quantization")
    except ImportError as error:
        raise CannotMeasure(
            f"--quantize: expected the package onnx, got: {error.name or error} is not installed",
            "pip install 'edgeward[tools]'",
        ) from None


def _quantise(tools: object, subject: Subject, calibration: Cases, made: Path) -> None:
    """Raises CannotMeasure when the tools cannot, or find nothing to quantise."""
    whole, prepared = made.with_name("whole.onnx"), made.with_name("prepared.onnx")
    kind, form = getattr(tools, "QuantType"), getattr(tools, "QuantFormat")  # noqa: B009
    with _silent():
        try:
            in_one_file(subject.file, whole)
            importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process(
                whole, prepared, skip_symbolic_shape=True
            )
            getattr(tools, "quantize_static")(  # noqa: B009
                prepared,
                made,
                _Reader(calibration.feeds),
                quant_format=form.QDQ,
                per_channel=True,
                activation_type=kind.QUInt8,
                weight_type=kind.QInt8,
            )
        except CannotMeasure:
            raise
        except Exception as error:  # the tools raise whatever happens to them
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise CannotMeasure(
                f"--quantize: the runtime's tools gave up: {words}",
                "Export the model with fixed shapes and opset 13 or newer, and try again.",
            ) from None
    if b"DequantizeLinear" not in made.read_bytes():
        raise CannotMeasure(
            "--quantize: expected something to quantise (Conv, MatMul, Gemm …), got a model without any of it",
            "Its time is spent elsewhere; --sweep threads,batch may help.",
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The tools print and log advice for people who call them by hand."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _with_file(report: Report, made: Path, output: Path | None) -> Report:
    """Keep the quantised file where it was asked for; without --output it is thrown away."""
    assert report.compared is not None
    compared = report.compared
    if output is not None:
        try:
            shutil.copyfile(made, output)
            compared = replace(compared, written=str(output))
        except OSError as error:  # a disk that is full by now must not cost the result
            words = f"{output} was not written: {(error.strerror or str(error)).lower()}"
            compared = replace(compared, warnings=(*compared.warnings, words))
    facts = replace(compared.second, title=f"{report.model.title} INT8", path=compared.written)
    return replace(report, compared=replace(compared, second=facts))
