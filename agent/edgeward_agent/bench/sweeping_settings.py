"""What a sweep tries: every combination of what was asked for and can vary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_agent.bench.cases import Cases
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.options import Axes
from edgeward_agent.bench.subject import Subject
from edgeward_agent.bench.sweeping_words import setting_name
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving.opening import providers
from edgeward_contract.manifest import TensorSpec

BATCHES: Final = (1, 2, 4, 8, 16)
_MOST_ROWS: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row to be."""

    threads: int
    provider: str
    batch: int

    @property
    def name(self) -> str:
        return setting_name(self.threads, short(self.provider), self.batch)


def settings_of(axes: Axes, subject: Subject, cases: Cases) -> tuple[list[Setting], tuple[str, ...]]:
    """Every combination once, and a note where the batch was to be swept and cannot be.

    Raises:
        CannotMeasure: there are too many; or sizes of a batch are named, and cannot be.
    """
    batches, notes = _batches(axes, subject.inputs, cases)
    chosen = itertools.product(_providers(axes, subject), _threads(axes, subject), batches)
    found = [Setting(threads=each, provider=provider, batch=batch) for provider, each, batch in dict.fromkeys(chosen)]
    if len(found) > _MOST_ROWS:
        raise CannotMeasure(
            f"--sweep: expected at most {_MOST_ROWS} combinations, got {len(found)}",
            "Name the values: --sweep threads=1:2,batch=1:8.",
        )
    return found, notes


def _providers(axes: Axes, subject: Subject) -> Sequence[str]:
    return (subject.session.provider,) if axes.providers is None else axes.providers or providers()


def _threads(axes: Axes, subject: Subject) -> Sequence[int]:
    """As a session has them."""
    wanted = (subject.serving.threads,) if axes.threads is None else axes.threads
    return [min(each, usable_cores()) for each in wanted] or thread_counts(usable_cores())


def _batches(axes: Axes, specs: Sequence[TensorSpec], cases: Cases) -> tuple[Sequence[int], tuple[str, ...]]:
    batches = (1,) if axes.batches is None else axes.batches or BATCHES
    if max(batches) == 1:
        return batches, ()
    expected, got, hint = _in_the_way(specs, cases)
    if not got:
        return batches, ()
    if axes.batches:
        raise CannotMeasure(f"--sweep batch: expected {expected}, got {got}", hint)
    return (1,), (f"the batch was not swept: that needs {expected}, and this is {got}",)


def _in_the_way(specs: Sequence[TensorSpec], cases: Cases) -> tuple[str, str, str]:
    """(what a batch needs, what is there instead, the way out); all empty where cases can be put together."""
    alone = "sweep threads and ep alone."
    if not specs:
        return "a model with inputs", "one without any", f"There is nothing to put together: {alone}"
    if not all(spec.shape[:1] == (-1,) for spec in specs):
        axis = "Export it with a dynamic batch axis"
        return "a model whose first axis is free", "one that fixes it", f"{axis}, or {alone}"
    rows = {array.shape[0] for feeds in cases.feeds for array in feeds.values()} - {1}
    if rows:
        found = f"requests with {min(rows)} in their first axis"
        return "requests of one case each", found, f"Give single cases, such as --shape {specs[0].name}=1,…, or {alone}"
    return "", "", ""


def thread_counts(most: int) -> tuple[int, ...]:
    """Powers of two up to the number of processors, and that number."""
    powers = [2**each for each in range(most.bit_length()) if 2**each <= most]
    return tuple(sorted({*powers, most}))


def short(provider: str) -> str:
    """`cpu`, `cuda`, `coreml`."""
    return provider.removesuffix("ExecutionProvider").lower()


def long(name: str) -> str:
    """The execution provider that a person calls so. Raises ValueError."""
    for each in providers():
        if short(each) == name.lower() or each == name:
            return each
    raise ValueError(f"expected an execution provider of {', '.join(map(short, providers()))}, got '{name}'")
