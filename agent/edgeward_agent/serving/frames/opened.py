"""A plan with its memory: the copies between what a client shares and what a model may see.

Tensors are copied, never used in place: a client that could change an input after its checks would decide what the
runtime reads, and one that could change an output would decide what the next node of the graph does.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeward_agent.serving.asked import InferRequest
from edgeward_agent.serving.frames.plan import InputPlace, Place, Plan, check_fits_model, check_gives, told_shapes
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.refusal import Refusal, invalid
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.rerun import Rerun
from edgeward_agent.serving.session import Session
from edgeward_agent.serving.standing import Standing
from edgeward_agent.wire.frames import ANSWER_END, shapes_bytes
from edgeward_agent.wire.tensors import Array, to_bytes
from edgeward_contract.manifest import TensorSpec

_BOUND_BELOW_BYTES: Final = 8 << 20
"""Results are copied before the next run. Larger ones take so long that to be bound brings nothing but its memory."""


class Opened:
    """What a connection keeps between requests. `version` is the one that the plan was last held to, and `standing` the
    short way to it, where there is one.
    """

    __slots__ = (
        "_end",
        "_feeds",
        "_flags",
        "_gives",
        "_outputs",
        "_placed",
        "_places",
        "_plain",
        "_runner",
        "_told",
        "_usual",
        "_version_end",
        "_wanted",
        "plan",
        "rerun",
        "standing",
        "version",
    )

    def __init__(self, plan: Plan, memory: mmap.mmap, version: Version, runner: Runner) -> None:
        """Raises Refusal when the plan does not fit the version."""
        self.plan = plan
        self._runner = runner
        shared = memoryview(memory)
        self._feeds: dict[str, Array] = {each.name: np.zeros(each.shape, each.dtype) for each in plan.inputs}
        self._plain: list[tuple[memoryview, memoryview]] = []
        self._flags: list[tuple[Array, Array]] = []
        for each in plan.inputs:
            self._add_input(each, shared[each.offset : each.end])
        self._outputs = [shared[each.offset : each.end] for each in plan.outputs]
        self._wanted = dict.fromkeys((each.name for each in plan.outputs), True)
        self.rerun = Rerun(self._feeds, list(self._wanted), _BOUND_BELOW_BYTES)
        self._usual = self._request("", None, 0)
        self._gives: list[TensorSpec] = []
        self.standing: Standing | None = None
        self.bind(version)

    def bind(self, version: Version) -> None:
        """Hold the plan to a version. Raises Refusal when it does not fit, or gives what the client was not told."""
        check_fits_model(self.plan, version.interface)
        gives = [version.interface.outputs[place.name] for place in self.plan.outputs]
        check_gives(self._gives or gives, gives)
        self._gives = gives
        self.version = version
        self._told = told_shapes(self.plan, version.interface)
        self._places: list[tuple[memoryview, memoryview]] = []
        self._placed: list[Array] | None = None
        self._end = b""
        self._version_end = ANSWER_END.pack(version.version)
        self.standing = None
        if Standing.possible(self._runner, version, self._usual):
            self.standing = Standing(self._runner, version, self._usual, self.plan.input_bytes)

    def run(self, session: Session) -> list[Array]:
        """As `Session.run`, on the inputs that were taken last. The results are valid until the next run."""
        return self.rerun.run(session)

    def take_inputs(self) -> None:
        """Copy what the client has written to where it cannot reach."""
        for own, shared in self._plain:
            own[:] = shared
        for flags, shared_bytes in self._flags:
            np.not_equal(shared_bytes, 0, out=flags)

    def request(self, request_id: str, timeout_us: int | None, priority: int) -> InferRequest:
        """What is asked of the model; valid until inputs are taken again."""
        if timeout_us is None and not priority and not request_id:
            return self._usual
        return self._request(request_id, timeout_us, priority)

    def give_outputs(self, results: Sequence[Array]) -> bytes:
        """Copy results to where the client reads them. Returns the end of the answer: the version, and the shapes that
        have to be told.

        Raises:
            Refusal: 400, one does not fit its place.
        """
        if results is self._placed:
            for shared, own in self._places:
                shared[:] = own
            return self._end
        for place, shared, array in zip(self.plan.outputs, self._outputs, results, strict=True):
            data = to_bytes(array)
            size = len(data)
            if size > place.size_bytes:
                raise _too_small(place, size)
            shared[:size] = data
        end = self._version_end
        if self._told:
            end += shapes_bytes([results[index].shape for index in self._told])
        if results is self.rerun.results:
            self._remember(results, end)
        return end

    def _remember(self, results: list[Array], end: bytes) -> None:
        """These come again with other numbers: the model is bound to where they lie."""
        views = [each.reshape(-1).view(np.uint8).data for each in results]
        self._places = [(shared[: len(own)], own) for shared, own in zip(self._outputs, views, strict=True)]
        self._placed, self._end = results, end

    def _add_input(self, place: InputPlace, shared: memoryview) -> None:
        own = self._feeds[place.name].reshape(-1)
        if not place.size_bytes:
            return  # nothing to copy, and no bytes to view
        if place.dtype == np.bool_:
            # Any byte but 0 and 1 in a C++ bool is undefined behaviour inside the runtime.
            self._flags.append((own, np.frombuffer(shared, np.uint8)))
        else:
            self._plain.append((own.view(np.uint8).data, shared))

    def _request(self, request_id: str, timeout_us: int | None, priority: int) -> InferRequest:
        return InferRequest(request_id, self._feeds, self._wanted, self.plan.capture, timeout_us, priority)


def _too_small(place: Place, size: int) -> Refusal:
    return invalid(f"output '{place.name}': expected a place of at least {size} bytes, got {place.size_bytes}")
