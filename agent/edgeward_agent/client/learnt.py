"""Which questions go through shared memory, and which over HTTP beside it. Pure: the clock is given.

A plan has to say how large each output may be, which a model does not tell beforehand. So a question of a new form goes
over HTTP, and its answer shows; from the second on it has a plan.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from http import HTTPStatus
from typing import Final

import numpy as np

from edgeward_agent.client.answers import Answer
from edgeward_agent.client.arrays import as_array
from edgeward_agent.client.plan import Layout, lay_out
from edgeward_agent.client.wish import WishFields
from edgeward_agent.wire.frames import MAX_ID_BYTES
from edgeward_agent.wire.tensors import DATATYPE, Array

_REMEMBERED: Final = 64
_TRY_AGAIN_S: Final = 5.0
_MAX_PRIORITY: Final = 255


def form_of(wish: WishFields, inputs: Mapping[str, Array]) -> tuple[Hashable, dict[str, Array]]:
    """What decides which plan a question needs, and its inputs as arrays.

    Raises:
        InvalidRequest: an input is no array.
    """
    model, version, outputs, _, capture, _, _ = wish
    form: list[Hashable] = [model, version, outputs, capture]
    arrays: dict[str, Array] = {}
    for name, given in inputs.items():
        array = given if given.__class__ is np.ndarray else as_array(name, given)
        arrays[name] = array
        form += (name, array.dtype, array.shape)
    return tuple(form), arrays


def carried(wish: WishFields) -> bool:
    """Whether a packet has room for what comes with each question."""
    _, _, _, request_id, _, _, priority = wish
    try:
        id_bytes = len(request_id.encode())
    except UnicodeEncodeError:  # half a surrogate pair, which JSON has a way to write
        return False
    return id_bytes <= MAX_ID_BYTES and priority <= _MAX_PRIORITY


class _Form:
    __slots__ = ("not_before_s", "rooms")

    def __init__(self) -> None:
        self.rooms: Mapping[str, int] = {}
        self.not_before_s = 0.0


class Learnt:
    """The forms of question that were answered over HTTP, the newest few."""

    def __init__(self) -> None:
        self._forms: dict[Hashable, _Form] = {}
        self._refusals: set[int] = set()

    def layout(self, form: Hashable, wish: WishFields, inputs: Mapping[str, Array], now_s: float) -> Layout | None:
        """The plan that a question may have now; None sends it over HTTP."""
        known = self._forms.get(form)
        if known is None or now_s < known.not_before_s:
            return None
        return lay_out(wish, inputs, known.rooms)

    def learn(self, form: Hashable, inputs: Mapping[str, Array], answer: Answer) -> None:
        """An answer over HTTP shows what the outputs are. One that has come before has outgrown its place."""
        known = self._forms.get(form)
        if known is None:
            if len(self._forms) >= _REMEMBERED:
                del self._forms[next(iter(self._forms))]
            known = self._forms[form] = _Form()
            if not all(map(_fits, (*inputs.values(), *answer.outputs.values()))):
                known.not_before_s = math.inf
        sizes = {name: array.nbytes for name, array in answer.outputs.items()}
        grew = any(size > known.rooms.get(name, size) for name, size in sizes.items())
        known.rooms = {name: 2 * size for name, size in sizes.items()} if grew else sizes

    def refused(self, form: Hashable, status: int, now_s: float) -> bool:
        """The server took no plan: ask for one later, or never when the wire has no such tensors.

        Returns whether it is the first time with this status; 0 is no server at all. A form that others have pushed out
        meanwhile is learnt anew.
        """
        known = self._forms.get(form)
        if known is None:
            return False
        first = status not in self._refusals
        self._refusals.add(status)
        known.not_before_s = math.inf if status == HTTPStatus.NOT_IMPLEMENTED else now_s + _TRY_AGAIN_S
        return first


def _fits(array: Array) -> bool:
    """Whether the wire has such a tensor: elements of a fixed size, the first byte first."""
    return array.dtype in DATATYPE and not array.dtype.hasobject
