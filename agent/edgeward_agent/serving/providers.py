"""Execution providers by capability: what a release wants, what the installed runtime has, what came of it. Pure.

The runtime falls back by itself, and says so on standard output or not at all: a provider whose library does not load
is dropped, and the session runs on the CPU as if nobody had asked. Here every fallback is a sentence that reaches the
log, the status and whoever asks for the model's configuration.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

CPU: Final = "cpu"
RUNTIME_NAMES: Final[Mapping[str, str]] = {
    "acl": "ACLExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
_OURS: Final = {theirs: ours for ours, theirs in RUNTIME_NAMES.items()}
_OWN_POOL: Final = {"openvino": "num_of_threads", "xnnpack": "intra_op_num_threads"}


class ProviderReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a session runs on, best first; `fallback` says why it is not what was wanted, or is empty."""

    active: tuple[str, ...] = (CPU,)
    fallback: str = ""


class ProviderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask the runtime for, and what need not be tried."""

    chosen: tuple[str, ...]
    problems: tuple[str, ...] = ()

    @property
    def beside_the_cpu(self) -> tuple[str, ...]:
        return tuple(each for each in self.chosen if each != CPU)

    def only(self, name: str) -> ProviderPlan:
        """One of them, and the CPU."""
        return ProviderPlan(chosen=(name, CPU))

    def without(self, name: str, problem: str) -> ProviderPlan:
        """Go on without a provider that the runtime refused."""
        chosen = tuple(each for each in self.chosen if each != name)
        return ProviderPlan(chosen=chosen, problems=(*self.problems, f"{name}: {problem}"))


def own_name(runtime_name: str) -> str:
    """`CPUExecutionProvider` is `cpu`; what has no name of ours keeps its own."""
    return _OURS.get(runtime_name, runtime_name)


def plan_providers(wanted: Sequence[str], available: Iterable[str]) -> ProviderPlan:
    """`available` are the runtime's own names. The CPU is always chosen, and last: it leaves nothing over."""
    here = {own_name(each) for each in available}
    before = tuple(itertools.takewhile(lambda each: each != CPU, wanted))
    problems = [f"{each}: {_missing(each, here)}" for each in before if each not in here]
    problems += [f"{each}: comes after {CPU}, which leaves nothing to it" for each in wanted[len(before) + 1 :]]
    return ProviderPlan(chosen=(*(each for each in before if each in here), CPU), problems=tuple(problems))


def report_providers(plan: ProviderPlan, running: Iterable[str]) -> ProviderReport:
    """`running` is what the session says that it runs on: the runtime drops what it could not load."""
    active = tuple(own_name(each) for each in running)
    dropped = tuple(f"{each}: the runtime could not load it" for each in plan.chosen if each not in active)
    problems = (*plan.problems, *dropped)
    text = f"expected {_what_was_wanted(plan)}, runs on {active[0]} ({'; '.join(problems)})" if problems else ""
    return ProviderReport(active=active, fallback=text)


def runtime_providers(plan: ProviderPlan, threads: int) -> list[tuple[str, dict[str, str]]]:
    """What the runtime takes: names with options. Providers with a pool of their own get the same number of threads."""
    return [
        (RUNTIME_NAMES.get(each, each), {_OWN_POOL[each]: str(threads)} if each in _OWN_POOL else {})
        for each in plan.chosen
    ]


def _missing(name: str, here: set[str]) -> str:
    known = "is not in the installed onnxruntime" if name in RUNTIME_NAMES else "is not known to this agent"
    return f"{known}, which has {', '.join(sorted(here))}" if name in RUNTIME_NAMES else known


def _what_was_wanted(plan: ProviderPlan) -> str:
    names = [each.partition(":")[0] for each in plan.problems]
    return ", ".join([*names, *plan.beside_the_cpu])
