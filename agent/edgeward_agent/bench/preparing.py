"""What every mode begins and ends with: the model, its cases and its budget; the machine, and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from edgeward_agent.bench import cases as making
from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.cases import Cases, shape_text
from edgeward_agent.bench.errors import NOTHING_DUE, NOTHING_YET, CannotMeasure
from edgeward_agent.bench.graph import axis_names
from edgeward_agent.bench.machine import Watch, own_cpu_s
from edgeward_agent.bench.measuring import Measured
from edgeward_agent.bench.noise import Noise, Surroundings, assess
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.paths import Opened
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.remote import inputs_of
from edgeward_agent.bench.report import SCHEMA, ModelFacts, Report, Server, Settings
from edgeward_agent.bench.subject import Subject, budget_of, file_of, load
from edgeward_agent.bench.verdict import Outcome, Verdict
from edgeward_agent.bench.wire import parse_place
from edgeward_agent.errors import ServingError
from edgeward_contract.manifest import TensorSpec
from edgeward_contract.version import __version__
from edgeward_contract.visible import visible

EXITS: Final = {Outcome.PASS: 0, Outcome.OVER: 1, Outcome.INCONCLUSIVE: 3}
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """`subject` is None for a model that only another server has."""

    subject: Subject | None
    name: str
    specs: tuple[TensorSpec, ...]
    cases: Cases
    budget: Budget
    notes: tuple[str, ...]

    @property
    def at_hand(self) -> Subject:
        """The model as a file. Raises CannotMeasure when there is none."""
        if self.subject is None:
            raise CannotMeasure(
                f"{self.name}: expected an ONNX file or a release folder, got a name",
                "With --url alone there is nothing to load; give the file as MODEL too.",
            )
        return self.subject


def prepare(options: Options) -> Prepared:
    """Load the model, or ask the server for its inputs. Raises CannotMeasure, ServerLost."""
    path = Path(options.model)
    subject = load(path) if not options.url or file_of(path).is_file() else None  # a folder may just be called so
    name = options.name or (subject.name if subject else options.model)
    specs = subject.inputs if subject else ()
    if options.url:
        found = inputs_of(parse_place(options.url), name, options.headers, options.timeout_s)
        specs = specs or found
    cases = choose_cases(options, subject, specs)
    return Prepared(
        subject=subject,
        name=name,
        specs=specs,
        cases=cases,
        budget=options.budget or budget_of(subject),
        notes=tuple(notes(subject, cases)) if subject is not None else (),
    )


def choose_cases(options: Options, subject: Subject | None, specs: Sequence[TensorSpec]) -> Cases:
    """The person's own, else the golden set, else random ones; a shape that is given means random ones."""
    if options.source is not None:
        return options.source(specs)
    found = making.golden(subject) if subject is not None and not options.shapes else None
    axes = axis_names(subject.file) if subject is not None else {}
    return found or making.random(specs, options.shapes, options.seed, axes)


def notes(subject: Subject, cases: Cases) -> Iterator[str]:
    """What has to be known of a model beside its figures; a fallback is never silent."""
    if subject.refused:
        yield f"a device would refuse this file: {subject.refused}"
    if fallback := subject.session.providers.fallback:
        yield f"{subject.title}: {fallback}"
    if empty := _without_numbers(subject, cases):
        yield f"{subject.title} answers the first case without a finite number in {', '.join(empty)}"


def _without_numbers(subject: Subject, cases: Cases) -> list[str]:
    """Outputs that are NaN or infinite all over; what cannot be answered is said where it is measured."""
    try:
        found = subject.answer(cases.feeds[0])
    except ServingError:
        return []
    return [
        name for name, each in found.items() if each.dtype.kind == "f" and each.size and not np.isfinite(each).any()
    ]


def facts(prepared: Prepared) -> ModelFacts:
    subject = prepared.subject
    shapes = tuple(f"{visible(each.name)} {each.datatype} {shape_text(each.shape)}" for each in prepared.specs)
    if subject is None:
        return ModelFacts(title=prepared.name, path="", inputs=shapes)
    return ModelFacts(
        title=subject.title,
        path=str(subject.path),
        inputs=shapes,
        size_bytes=subject.size_bytes,
        sha256=subject.sha256,
    )


def watch(*opened: Opened) -> Watch:
    """Counts ourselves and the serving processes that we started; everything else is others."""

    def own_s() -> float:
        return own_cpu_s() + sum(each.daemon.cpu_s() for each in opened if each.daemon)

    return Watch(own_s)


def server(opened: Opened) -> Server | None:
    if opened.daemon is None:
        return None
    return Server(ready_s=opened.daemon.ready_s, resident_bytes=opened.daemon.resident_bytes())


def noise_of(probes: Sequence[Floats], seen: Surroundings) -> Noise:
    return assess(probes, seen)


def slowdown(noise: Noise, options: Options) -> float:
    """What the verdict allows for: nothing on a quiet machine, and nothing with --force."""
    return noise.slowdown if noise.noisy and not options.force else 1.0


def settings(options: Options, cases: Cases, measured: Measured) -> Settings:
    return Settings(
        rate=options.wishes.rate,
        arrivals=options.wishes.arrivals.value if options.wishes.rate else "closed",
        clients=options.wishes.clients,
        cases=cases.source,
        seed=options.seed,
        rounds=measured.rounds,
        planned_rounds=measured.planned,
        duration_s=measured.seconds,
    )


def exit_code(verdict: Verdict | None, measured: Measured) -> int:
    """A server that went away may be over its budget until then; that it made it until then decides nothing."""
    if measured.interrupted:
        return INTERRUPTED
    code = EXITS[verdict.outcome] if verdict else 0
    return EXITS[Outcome.INCONCLUSIVE] if measured.lost and code == 0 else code


def report_maker(
    prepared: Prepared, options: Options, measured: Measured, seen: Surroundings, noise: Noise
) -> Callable[[Verdict | None], Report]:
    """A report with what every mode has; the modes add theirs."""

    def make(verdict: Verdict | None) -> Report:
        return Report(
            schema=SCHEMA,
            edgeward=__version__,
            onnxruntime=version("onnxruntime"),
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            model=facts(prepared),
            settings=settings(options, prepared.cases, measured),
            machine=seen,
            noise=noise,
            verdict=verdict,
            exit_code=exit_code(verdict, measured),
            notes=prepared.notes,
            interrupted=measured.interrupted,
            lost=measured.lost,
        )

    return make


def check_something(measured: Measured) -> None:
    """Raises Interrupted when there was no time for anything, CannotMeasure when chance has left a path out."""
    if measured.rounds == 0:
        raise NOTHING_YET
    if not all(any(len(block.latencies_us) for block in each) for each in measured.blocks.values()):
        raise NOTHING_YET if measured.interrupted else NOTHING_DUE
