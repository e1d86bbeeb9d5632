"""Where `bench` writes: to a place that can be written, and never over what it reads."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
    if html is not None and not _gives_way_to_a_page(html):
        raise CannotMeasure(
            f"--html {html}: expected a new file or a page, got a file of another kind, which it would overwrite",
            f"Give another path: --html {_OTHERS['--html']}.",
        )


_OTHERS: Final = {"--output": "model-int8.onnx", "--html": "report.html"}
_PAGE: Final = b"<!doctype html>"


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


def _gives_way_to_a_page(path: Path) -> bool:
    """Not what holds something else: the weights that lie beside a model, say, whose names only the model knows."""
    try:
        if not path.is_file():
            return True
        with path.open("rb") as file:
            begin = file.read(len(_PAGE))
    except OSError:
        return True  # nothing can be written there either, which is said better
    return not begin or begin.lower() == _PAGE


def _same(one: Path, other: Path) -> bool:
    """Whether both are one file, under whatever name; one that is not there yet goes by its resolved path."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


def check_writable(option: str, path: Path | None) -> None:
    """Before anything is measured, so that no run is lost for it. Raises CannotMeasure."""
    if path is None:
        return
    if str(path) == "-":
        raise CannotMeasure(
            f"{option} -: expected the path of a file, got the sign for standard output, where the result goes",
            f"Give a path: {option} {_OTHERS[option]}.",
        )
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder {path.parent}"
        raise CannotMeasure(
            f"{option} {path}: expected a file in a folder that exists, got {found}",
            "Make the folder first, or give another path.",
        )
    try:
        _try(path)
    except OSError as error:
        raise CannotMeasure(
            f"{option} {path}: expected a place that can be written, got: {(error.strerror or str(error)).lower()}",
            "Make room or give yourself the right to write there, or give another path.",
        ) from None


def _try(path: Path) -> None:
    """Write a byte where that changes nothing: to a device, or to a file without a name. Raises OSError."""
    if not path.exists():
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"\n")
        return
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):  # to open a pipe and close it would end its reader
        return
    with path.open("ab", buffering=0) as file:
        if stat.S_ISCHR(mode) and not file.isatty():
            file.write(b"\n")
