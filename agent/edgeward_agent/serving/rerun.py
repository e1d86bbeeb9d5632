"""The same run of a model again and again, on memory that stays: the runtime is bound to it when it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgeward_agent.serving.session import Bound, Session
from edgeward_agent.wire.tensors import Array

_MAX_BINDINGS: Final = 3


class Rerun:
    """Inputs that are written anew before each run, and the outputs that are wanted. One run at a time.

    Results of more than `limit_bytes` together get memory of their own each time.
    """

    __slots__ = ("_bindings", "_bound", "_limit_bytes", "_names", "_session", "feeds")

    def __init__(self, feeds: Mapping[str, Array], names: Sequence[str], limit_bytes: int) -> None:
        self.feeds = dict(feeds)
        self._names = list(names)
        self._limit_bytes = limit_bytes
        self._session: Session | None = None
        self._bound: Bound | None = None
        self._bindings = 0

    @property
    def results(self) -> list[Array] | None:
        """Where a run that is bound leaves its results; None while none is."""
        return self._bound.results if self._bound is not None else None

    def elsewhere(self, feeds: Mapping[str, Array]) -> Rerun | None:
        """The same with inputs that lie in other memory. None while this one is not bound."""
        if self._bound is None or self._session is None:
            return None
        other = Rerun(feeds, self._names, self._limit_bytes)
        other._session = self._session
        other._bound = self._session.bind(other.feeds, dict(zip(self._names, self._bound.results, strict=True)))
        return other if other._bound is not None else None

    def again(self, session: Session) -> list[Array] | None:
        """As `run`, where it is bound already and no more than that is needed; else None."""
        bound = self._bound
        if bound is None or session is not self._session:
            return None
        if bound.run():
            return bound.results
        self._bound = None  # the model failed, or its data decides the shape of a result
        return None

    def run(self, session: Session) -> list[Array]:
        """As `Session.run`. The results are valid until the next run."""
        if session is not self._session:
            self._session, self._bound, self._bindings = session, None, 0
        if (again := self.again(session)) is not None:
            return again
        results = session.run(self._names, self.feeds)
        if self._bindings < _MAX_BINDINGS and sum(each.nbytes for each in results) < self._limit_bytes:
            self._bindings += 1
            self._bound = session.bind(self.feeds, dict(zip(self._names, results, strict=True)))
        return results
