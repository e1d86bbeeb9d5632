"""What is typed after `bench`, made into options. Everything that is wrong with it is a usage error in one line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from edgeward_agent.bench.budget import Budget, begin, parse_budget, parse_time_s
from edgeward_agent.bench.cases import Cases, Feeds, Shapes, Source, as_type, checked, from_npz
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.options import PATHS, PLACEHOLDER, Axes
from edgeward_agent.bench.sweeping_settings import long
from edgeward_agent.cli.inputs import read_pairs, read_request
from edgeward_agent.client import InvalidRequest, ModelInfo
from edgeward_contract.manifest import TensorSpec

_AXES = "threads, ep, batch"
_MOST_DIGITS: Final = 40  # of a number; from 4,300 on Python makes none of it


def budget(_: click.Context, __: click.Parameter, value: str | None) -> Budget | None:
    try:
        return parse_budget(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def rate(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Click's range lets through what compares with nothing."""
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"expected requests a second, got {value}")
    return value


def not_empty(_: click.Context, __: click.Parameter, value: str | None) -> str:
    """An empty word is a variable that was never set, and no wish."""
    if value is not None and not value.strip():
        raise click.BadParameter(f"expected something, got '{value}'")
    return value or ""


def time_s(_: click.Context, __: click.Parameter, value: str | None) -> float:
    try:
        return parse_time_s(value) if value is not None else 0.0
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def through(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    chosen = tuple(each.strip() for each in (value or "").split(",") if each.strip())
    if value is not None and not chosen:
        raise click.BadParameter(f"expected some of {','.join(PATHS)}, got '{value}'")
    if unknown := [each for each in chosen if each not in PATHS]:
        raise click.BadParameter(f"expected some of {','.join(PATHS)}, got '{unknown[0]}'")
    return chosen


def shapes(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Shapes:
    found: dict[str, tuple[int, ...]] = {}
    for name, sizes in map(_shape, values):
        if name in found:
            raise click.BadParameter(f"expected NAME=SIZES once for each input, got {name} again")
        found[name] = sizes
    return found


def headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """What is wrong is never repeated: it may be a token."""
    found = {}
    for value in values:
        name, colon, text = (each.strip() for each in value.partition(":"))
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise click.BadParameter("expected 'NAME: VALUE', got one without a name and a colon")
        if name.lower() in _OURS:
            raise click.BadParameter(f"expected a header of your own, got {name}, which belongs to the request itself")
        if text == PLACEHOLDER or text.endswith(f" {PLACEHOLDER}"):
            raise click.BadParameter(f"expected 'NAME: VALUE', got {name} with … where its value belongs")
        if not text.isprintable() or not _in_latin_1(text):
            raise click.BadParameter(f"expected 'NAME: VALUE', got {name} with characters that no header can carry")
        found[name] = text
    return found


_OURS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "inference-header-content-length",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def _in_latin_1(text: str) -> bool:
    return all(ord(each) < 256 for each in text)


def sweep(_: click.Context, __: click.Parameter, value: str | None) -> Axes | None:
    """`threads,batch` or with values, `threads=1:2,batch=1:8`."""
    if value is None:
        return None
    axes = Axes()
    for part in value.split(","):
        axes = _with_axis(axes, *part.strip().partition("=")[::2])
    return axes


def _with_axis(axes: Axes, name: str, values: str) -> Axes:
    chosen = [each for each in values.split(":") if each]
    try:
        if name == "threads":
            return replace(axes, threads=_numbers(chosen))
        if name == "ep":
            return replace(axes, providers=tuple(map(long, chosen)))
        if name == "batch":
            return replace(axes, batches=_numbers(chosen))
    except ValueError as error:
        raise click.BadParameter(f"{name}: {error}") from None
    raise click.BadParameter(f"expected some of {_AXES}, such as threads,batch or threads=1:2,batch=1:8, got '{name}'")


def _numbers(chosen: Sequence[str]) -> tuple[int, ...]:
    if not all(each.isdecimal() and len(each) <= _MOST_DIGITS and 0 < int(each) <= 4096 for each in chosen):
        raise ValueError(f"expected numbers such as 1:2:4, got '{begin(':'.join(chosen))}'")
    return tuple(int(each) for each in chosen)


def _shape(value: str) -> tuple[str, tuple[int, ...]]:
    name, equals, text = value.rpartition("=")
    sizes = [each.strip() for each in text.replace("x", ",").split(",")]
    if not equals or not name or not all(each.isdecimal() and len(each) <= _MOST_DIGITS for each in sizes):
        raise click.BadParameter(f"expected NAME=SIZES such as image=1,3,224,224, got {begin(value)!r}")
    return name, tuple(map(int, sizes))


@dataclass(frozen=True, slots=True)
class TypedInputs:
    """`--input`: NAME=@FILE.npy or NAME=1,2,3 once for each input, or one FILE.npz, or one FILE.json."""

    values: tuple[str, ...]

    def files(self) -> Iterator[Path]:
        """What is read for them."""
        for value in self.values:
            name, equals, text = value.partition("=")
            if not equals:
                yield Path(name)
            elif text.startswith("@"):
                yield Path(text[1:])

    def __call__(self, specs: Sequence[TensorSpec]) -> Cases:
        """Raises CannotMeasure."""
        one = self.values[0] if len(self.values) == 1 else ""
        if one.endswith(".npz") and not one.partition("=")[1]:
            return from_npz(Path(one), specs)
        try:
            if one.endswith(".json") and not one.partition("=")[1]:
                return _one_request(read_request(one), specs, f"one request from {Path(one).name}")
            model = ModelInfo(name="", versions=(), inputs=tuple(specs), outputs=())
            return _one_request(read_pairs(self.values, model), specs, "one request of your own")
        except InvalidRequest as error:
            raise CannotMeasure(str(error).replace("--json", "--input", 1), _HINT) from None


_HINT = "Give NAME=@FILE.npy or NAME=1,2,3 once for each input, or one FILE.npz, or a request as FILE.json."


def _one_request(feeds: Feeds, specs: Sequence[TensorSpec], source: str) -> Cases:
    missing = [spec.name for spec in specs if spec.name not in feeds]
    if missing:
        raise CannotMeasure(f"--input: expected one for each input of the model, got none for '{missing[0]}'", _HINT)
    typed = {spec.name: as_type(feeds[spec.name], spec, "--input") for spec in specs}
    return checked(Cases(feeds=(typed,), source=source), specs)


def source(values: tuple[str, ...]) -> Source | None:
    return TypedInputs(values) if values else None
