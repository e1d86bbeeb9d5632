"""Opens the ways of asking one model: the session at hand, our own serving process, or a server elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgeward_agent.bench import bf16
from edgeward_agent.bench import daemon as daemons
from edgeward_agent.bench.cases import Cases
from edgeward_agent.bench.daemon import Daemon
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.options import PATHS, Options
from edgeward_agent.bench.subject import Subject
from edgeward_agent.bench.targets import IN_PROCESS, TCP, UNIX, InProcess, OverSocket, Target
from edgeward_agent.bench.wire import Place, infer_request, parse_place
from edgeward_contract.manifest import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What can be asked, the outermost last: that one is judged."""

    targets: tuple[Target, ...]
    daemon: Daemon | None = None

    @property
    def judged(self) -> str:
        return self.targets[-1].name


def wanted_paths(options: Options, *, local: bool) -> tuple[str, ...]:
    """Which ways to measure, in order. In an open loop the judged one alone, unless asked otherwise.

    With several clients the session is left out: it has one caller, and its times would compare with nothing.
    """
    if options.url:
        return (IN_PROCESS,) if local and not options.wishes.rate and options.wishes.clients == 1 else ()
    if options.through:
        return tuple(path for word, path in PATHS.items() if word in options.through)
    if options.wishes.rate:
        return (TCP,)
    return (IN_PROCESS, UNIX, TCP) if options.wishes.clients == 1 else (UNIX, TCP)


def open_model(stack: ExitStack, subject: Subject, cases: Cases, options: Options, *, suffix: str = "") -> Opened:
    """Start what is needed; the stack ends it. Raises CannotMeasure, ServerLost."""
    paths = wanted_paths(options, local=True)
    targets: list[Target] = []
    daemon: Daemon | None = None
    if IN_PROCESS in paths:
        targets.append(InProcess(IN_PROCESS + suffix, subject.session, cases.feeds))
    if UNIX in paths or TCP in paths:
        daemon = stack.enter_context(daemons.daemon(subject.path))
        for path, place in ((UNIX, daemon.unix), (TCP, daemon.tcp)):
            if path in paths and place is not None:
                targets.append(_over(path + suffix, place, subject.name, cases, options, subject.inputs, ours=True))
    if not targets:
        raise CannotMeasure("--through unix: expected a system with unix sockets, got one without", "Use tcp.")
    for target in targets:
        stack.callback(target.close)
    return Opened(targets=tuple(targets), daemon=daemon)


def open_url(
    stack: ExitStack,
    subject: Subject | None,
    name: str,
    cases: Cases,
    options: Options,
    specs: Sequence[TensorSpec],
) -> Opened:
    """A server elsewhere, and beside it the file at hand, where there is one."""
    place = parse_place(options.url)
    targets: list[Target] = []
    if subject is not None and wanted_paths(options, local=True):
        targets.append(InProcess(IN_PROCESS, subject.session, cases.feeds))
    targets.append(_over(str(place), place, name, cases, options, specs, ours=False))
    for target in targets:
        stack.callback(target.close)
    return Opened(targets=tuple(targets))


def _over(
    name: str, place: Place, model: str, cases: Cases, options: Options, specs: Sequence[TensorSpec], *, ours: bool
) -> OverSocket:
    bits = bf16.names(specs)
    requests = [infer_request(place, model, feeds, options.headers, patient=ours, bits=bits) for feeds in cases.feeds]
    return OverSocket(name, place, requests, clients=options.wishes.clients, timeout_s=options.timeout_s, model=model)


def names(targets: Sequence[Target]) -> list[str]:
    return [target.name for target in targets]
