"""Where `bench` writes: to a place that can be written, and never over what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeward_agent.bench.cases import GOLDEN
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.options import Options
from edgeward_agent.cli.bench_options import TypedInputs
from edgeward_agent.serving.release import MANIFEST, MODEL


def check_overwrites(options: Options, html: Path | None) -> None:
    """Before any work. Raises CannotMeasure when what is written would take the place of what is read."""
    read = list(_read(options))
    written = [(option, path) for option, path in (("--output", options.output), ("--html", html)) if path is not None]
    for option, path in written:
        for what, other in read:
            if _same(path, other):
                raise CannotMeasure(
                    f"{option} {path}: expected a file of its own, got {what}, which it would overwrite",
                    f"Give another path: {option} {_OTHERS[option]}.",
                )
        read.append((f"the file of {option}", path))


_OTHERS = {"--output": "model-int8.onnx", "--html": "report.html"}


def _read(options: Options) -> Iterator[tuple[str, Path]]:
    for what, path in (("the model", Path(options.model)), ("the model of --compare", options.compare)):
        if path is not None:
            yield from ((what, each) for each in _files(path))
    if options.calibration is not None:
        yield "the file of --calibration", options.calibration
    if isinstance(options.source, TypedInputs):
        yield from (("a file of --input", path) for path in options.source.files())


def _files(model: Path) -> Iterator[Path]:
    """A model, and what belongs to it: all that a release folder holds, manifest and golden set beside a file."""
    folder = model if model.is_dir() else model.parent
    yield model
    yield from (folder / name for name in (MODEL, MANIFEST, GOLDEN) if model.is_dir() or model.name == MODEL)
    if model.is_dir():
        yield from (each for each in folder.iterdir() if each.is_file())


def _same(one: Path, other: Path) -> bool:
    """Whether both are one file, under whatever name; one that is not there yet goes by its resolved path."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()
