"""What to do next about the difference between what the fleet wants and what is here. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgeward_agent.ports import ServingState
from edgeward_agent.update.deployment import Book, Deployment
from edgeward_agent.update.machine import BEFORE_ACTIVATION, ON_TRIAL, Event
from edgeward_agent.update.slots import Installed, Slots
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import DesiredModel
from edgeward_contract.reported import UpdateState

_GIVEN_UP: Final = frozenset({UpdateState.FAILED, UpdateState.REJECTED, UpdateState.ROLLED_BACK, UpdateState.STRANDED})


@dataclass(frozen=True, slots=True)
class Stop:
    """End a deployment that is no longer wanted: `event` is CANCEL, SUPERSEDE or WITHDRAWN."""

    model: ModelName
    event: Event


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a model off the device."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Deploy:
    """Open a deployment."""

    wanted: DesiredModel


Step = Stop | Remove | Deploy


def plan(book: Book) -> tuple[Step, ...]:
    """Steps towards `book.desired`; empty when each model has its answer or is on its way to it.

    Removals come first: a device with room for one model must free it before the next. A model that is on trial
    or rolling back is stopped, and planned for again once it has come to rest.
    """
    if book.desired is None:
        return ()
    wanted = book.desired.models
    here = sorted({*book.slots, *(name for name, each in book.deployments.items() if each.working)})
    removals = [step for name in here if name not in wanted for step in _leave(name, book)]
    changes = [step for name in sorted(wanted) for step in _change(wanted[name], book)]
    return (*removals, *changes)


def answered(wanted: DesiredModel, newest: Deployment | None, slots: Slots) -> bool:
    """Whether the newest deployment is this one, under way or done with.

    One that was given up stays so: only a new deployment tries that release again. A commit counts as an answer
    for as long as the release is still the current one.
    """
    if newest is None or not newest.answers(wanted):
        return False
    if newest.state is UpdateState.COMMITTED:
        return slots.current == newest.installed
    return newest.working or newest.state in _GIVEN_UP


def given_up(deployment: Deployment) -> bool:
    return deployment.state in _GIVEN_UP


@dataclass(frozen=True, slots=True)
class Restore:
    """Let the current release of a model answer again."""

    model: ModelName
    installed: Installed


@dataclass(frozen=True, slots=True)
class Drop:
    """Unload a model that is not on the device any more, or one version whose load was given up and ended late."""

    model: ModelName
    sha256: Sha256 | None = None


Repair = Restore | Drop


def repairs(book: Book, state: ServingState) -> tuple[Repair, ...]:
    """What makes the serving process agree with the slots. Models on trial are the business of their deployment."""
    busy = {name for name, each in book.deployments.items() if each.working and each.state not in BEFORE_ACTIVATION}
    gone = [
        Drop(name)
        for name, served in sorted(state.models.items())
        if name not in book.slots and name not in busy and (served.live or served.loaded)
    ]
    missing = [
        Restore(name, slots.current)
        for name, slots in sorted(book.slots.items())
        if name not in busy and slots.current and live_sha256(state, name) != slots.current.sha256
    ]
    strays = [
        Drop(name, each.sha256)
        for name, slots in sorted(book.slots.items())
        if name not in busy and slots.current and live_sha256(state, name) == slots.current.sha256
        for each in state.models[name].loaded
        if each.sha256 != slots.current.sha256
    ]
    return (*gone, *strays, *missing)


def anew(book: Book, sha256: Sha256) -> DesiredModel | None:
    """The wish that fetches a current release once more: where the fleet still wants it, and it was not given up."""
    for model, slots in book.slots.items():
        wanted = book.desired.models.get(model) if book.desired else None
        newest = book.deployments.get(model)
        if wanted and newest and slots.current and slots.current.sha256 == sha256:
            ended = newest.state is UpdateState.COMMITTED and newest.answers(wanted)
            return wanted if ended and newest.sha256 == sha256 else None
    return None


def all_live(book: Book, state: ServingState) -> bool:
    """Whether each model answers that has a current release, be it from that one or from the one on trial."""
    names = [name for name, slots in book.slots.items() if slots.current]
    return all(live_sha256(state, name) is not None for name in names)


def live_sha256(state: ServingState, model: ModelName) -> Sha256 | None:
    served = state.models.get(model)
    return served.live.sha256 if served and served.live else None


def _leave(model: ModelName, book: Book) -> tuple[Step, ...]:
    newest = book.deployments.get(model)
    if newest is None or not newest.working:
        return (Remove(model),)
    if newest.state in BEFORE_ACTIVATION:
        return (Stop(model, Event.CANCEL), Remove(model))
    return (Stop(model, Event.WITHDRAWN),) if newest.state in ON_TRIAL else ()


def _change(wanted: DesiredModel, book: Book) -> tuple[Step, ...]:
    model = wanted.release.name
    newest = book.deployments.get(model)
    if answered(wanted, newest, book.slots.get(model, Slots())):
        return ()
    if newest is None or not newest.working:
        return (Deploy(wanted),)
    if newest.state in BEFORE_ACTIVATION:
        return (Stop(model, Event.SUPERSEDE), Deploy(wanted))
    if newest.state in ON_TRIAL and newest.sha256 != wanted.sha256:
        return (Stop(model, Event.WITHDRAWN),)
    return ()  # rolling back, or the same release is on trial already: its end decides
