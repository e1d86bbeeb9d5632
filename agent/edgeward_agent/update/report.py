"""What the device says of its models. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgeward_agent.ports import ServedModel, ServingState
from edgeward_agent.update.deployment import Book
from edgeward_agent.update.plan import live_sha256
from edgeward_agent.update.slots import Slots
from edgeward_contract.artifact import ModelName, ReleaseRef
from edgeward_contract.reported import LiveModel, ReportedModel, UpdateState

_MAX_FALLBACK: Final = 900  # characters; the contract's limit for a string


def reported_models(
    book: Book, state: ServingState | None, percents: Mapping[ModelName, int]
) -> dict[ModelName, ReportedModel]:
    """Every model that is wanted, installed or live, and those whose deployment was cancelled.

    What is live is what the serving process said at the last look, never what the slots would like.
    """
    served = state.models if state else {}
    cancelled = {name for name, each in book.deployments.items() if each.state is UpdateState.CANCELLED}
    wanted = book.desired.models if book.desired else {}
    live = {name for name, each in served.items() if each.live}
    return {name: _one(name, book, served.get(name), percents) for name in {*wanted, *book.slots, *live, *cancelled}}


def stranded(book: Book, state: ServingState | None) -> set[str]:
    """An alarm for each model that could not go back, for as long as it has not."""
    names = [name for name, each in book.deployments.items() if each.state is UpdateState.STRANDED]
    return {f"stranded:{name}" for name in names if not (state and _as_the_slots_say(name, book, state))}


def _as_the_slots_say(name: ModelName, book: Book, state: ServingState) -> bool:
    current = book.slots.get(name, Slots()).current
    return live_sha256(state, name) == (current.sha256 if current else None)


def _one(name: ModelName, book: Book, served: ServedModel | None, percents: Mapping[ModelName, int]) -> ReportedModel:
    newest = book.deployments.get(name)
    return ReportedModel(
        live=_live(name, served, book.slots.get(name, Slots())) if served else None,
        update=newest.status(percents.get(name, 0)) if newest else None,
    )


def _live(name: ModelName, served: ServedModel, slots: Slots) -> LiveModel | None:
    if served.live is None:
        return None
    return LiveModel(
        release=ReleaseRef(name, served.live.version),
        sha256=served.live.sha256,
        slot=slots.name_of(served.live.sha256),
        traffic=served.traffic,
        fallback=served.live.fallback[:_MAX_FALLBACK],
    )
