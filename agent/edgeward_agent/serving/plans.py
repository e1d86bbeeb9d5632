"""Requests that come again with equal JSON and other numbers: read once, then only their tensors are copied.

What the JSON of a request means depends on nothing but the JSON and the model, so it is kept with the version that it
was read for, under its own bytes. A plan has memory of its own for inputs and results, which the runtime is bound to:
that saves it a third of the time of a small model. So it serves one request at a time; another one is read anew.
A large request that lies in the same memory each time (`whole`) is not even copied: the runtime is bound to it there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.exchange import KnownAnswer
from edgeward_agent.serving.rerun import Rerun
from edgeward_agent.wire.tensors import COPIED_BELOW_BYTES, Array, Buffer
from edgeward_contract.manifest import CaptureMode

if TYPE_CHECKING:  # which knows versions, and these know their plans
    from edgeward_agent.serving.standing import Standing

_MAX_PLANS: Final = 16
_MAX_PLAN_BYTES: Final = 2 << 20  # of the binary part
_MAX_HEADER_BYTES: Final = 8 << 10
_MAX_SEEN: Final = 256
_DURABLE: Final = CaptureMode.DURABLE
_PLAIN: Final = "iuf"
"""Kinds of arrays whose bytes are those of the wire. A BOOL has to be looked at, text to be decoded."""


def _nowhere() -> None:
    return None


class Plan:
    """One form of request. `busy` while a request has its memory."""

    __slots__ = (
        "_came",
        "_inputs",
        "_known",
        "_lies",
        "_tensors_at",
        "_there",
        "answer",
        "asked",
        "body_bytes",
        "busy",
        "rerun",
        "standing",
    )

    def __init__(self, asked: InferRequest, header_length: int, body_bytes: int) -> None:
        own = {name: np.empty(array.shape, array.dtype) for name, array in asked.feeds.items()}
        self.asked = msgspec.structs.replace(asked, feeds=own)
        self.body_bytes = body_bytes
        self.busy = False
        self.standing: Standing | None = None  # the short way, where there is one
        self.answer: KnownAnswer | None = None  # once it is known
        self._known: list[Array] | None = None  # the results that `answer` looks at
        # Larger results are sent from where they lie, which takes as long as the client takes to read them: the next
        # request would write its own into the rest of the answer.
        self.rerun = Rerun(own, list(asked.outputs), COPIED_BELOW_BYTES)
        self._came: Callable[[], memoryview | None] = _nowhere  # where the last body lay, as long as that is there
        self._lies: Callable[[], memoryview | None] = _nowhere
        self._there: Rerun | None = None  # on the body that lies there
        self._inputs: list[tuple[memoryview, int, int]] = []
        self._tensors_at = at = header_length
        for array in own.values():
            if array.nbytes:
                self._inputs.append((array.reshape(-1).view(np.uint8).data, at, at + array.nbytes))
            at += array.nbytes

    def take(self, body: Buffer) -> None:
        """Copy the tensors out of a body."""
        if len(body) >= COPIED_BELOW_BYTES:
            body = memoryview(body)  # a part of it is no copy
        for own, begin, end in self._inputs:
            own[:] = body[begin:end]

    def on(self, body: Buffer) -> Rerun:
        """The run on a body: where it lies, if bodies come there time and again, else on a copy.

        A body that is lent (a view) has to stay as it is until the model has run.
        """
        if isinstance(body, memoryview):
            there = self._there
            if there is not None and body is self._lies() and there.results is not None:
                return there
            if body is self._came() and (there := self._settled(body)) is not None:
                self._there, self._lies = there, weakref.ref(body)
                return there
            self._came = weakref.ref(body)
        self.take(body)
        return self.rerun

    def _settled(self, body: memoryview) -> Rerun | None:
        if self.rerun.results is None:  # not bound; where it is, no input is empty
            return None
        feeds, at = {}, self._tensors_at
        for name, own in self.rerun.feeds.items():
            feeds[name] = np.frombuffer(body[at : at + own.nbytes], own.dtype).reshape(own.shape)
            at += own.nbytes
        return self.rerun.elsewhere(feeds) if all(each.flags.aligned for each in feeds.values()) else None

    def knows(self, results: list[Array]) -> bool:
        """Whether `answer` is the answer with these results."""
        return self.answer is not None and results is self._known

    def learn_answer(self, results: list[Array], header_length: int | None, parts: Sequence[Buffer]) -> None:
        """Keep of an answer with these results what is the same as long as the shapes are."""
        stays = results is self.rerun.results or (self._there is not None and results is self._there.results)
        if not stays or header_length is None:
            return
        views: list[Buffer] = [each.reshape(-1).view(np.uint8).data for each in results]
        if len(parts[0]) + sum(map(len, views)) < COPIED_BELOW_BYTES:  # what is joined is copied, before the next run
            self.answer = KnownAnswer(bytes(parts[0]), views, header_length)
            self._known = results


class Plans:
    """The plans of one version. Touched on the loop's thread alone."""

    __slots__ = ("_plans", "_seen")

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}
        self._seen: set[bytes] = set()

    def find(self, body: Buffer, header_length: int) -> Plan | None:
        """The plan of a request, if it came before and its memory is free."""
        plan = self._plans.get(bytes(body[:header_length]))
        if plan is None or plan.busy or plan.body_bytes != len(body):
            return None
        return plan

    def learn(self, body: bytes | bytearray, header_length: int | None, asked: InferRequest) -> Plan | None:
        """Make a plan of a request that was read, when it comes for the second time and is one that can be copied."""
        if header_length is None or not 0 < header_length <= _MAX_HEADER_BYTES or asked.id:
            return None  # an id makes it the only one of its kind
        header = bytes(body[:header_length])
        if header in self._plans:
            return None  # it is busy, or the binary part is of another length
        if header not in self._seen:
            self._note(header)
        elif _can_be_copied(asked, memoryview(body)[header_length:]):
            self._seen.discard(header)
            if len(self._plans) >= _MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            plan = self._plans[header] = Plan(asked, header_length, len(body))
            return plan
        return None

    def _note(self, header: bytes) -> None:
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(header)


def _can_be_copied(asked: InferRequest, binary: memoryview) -> bool:
    """Whether the inputs are the binary part and nothing else, in their order, and the outputs go as bytes too.

    A durable record is built when its answer is long due, and another request may have the memory by then.
    """
    if asked.aside is not None or asked.capture is _DURABLE or not asked.outputs or len(binary) > _MAX_PLAN_BYTES:
        return False
    plain = all(each.dtype.kind in _PLAIN for each in asked.feeds.values())
    return plain and all(asked.outputs.values()) and b"".join(each.tobytes() for each in asked.feeds.values()) == binary
