"""One ONNX model in memory. This and `opening` are the only modules that know ONNX Runtime.

One thread and no spinning, unless the manifest says otherwise: on two cores a spinning pool doubled the tail and took a
whole core while idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final
from weakref import WeakSet

import msgspec
import numpy as np
import numpy.typing as npt

from edgeward_agent.errors import ModelError, ServingError
from edgeward_agent.ort import onnxruntime as ort
from edgeward_agent.serving.bfloat16 import bits_run, takes_bits
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.opening import load_error, open_session, plan_session, reason
from edgeward_agent.serving.providers import (
    CPU,
    RUNTIME_NAMES,
    own_name,
)
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.wire import tensors
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import Datatype, TensorSpec
from edgeward_contract.serving_options import ServingOptions

_DATATYPES: Final = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}
_Binding = ort.capi._pybind_state.SessionIOBinding
_ARENA: Final = "BFCArena"  # names itself where it finds no memory
_WARM_RUNS: Final = 3
_LARGE: Final = 8  # times a batch of one


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Two of the options by the runtime's own names, for whoever compares them; the defaults are what a device does.

    `provider` is one of `providers()`; what it cannot run falls back to the CPU, and `Session.provider` tells.
    """

    threads: int = 1
    provider: str = RUNTIME_NAMES[CPU]

    def options(self) -> ServingOptions:
        return ServingOptions(threads=self.threads, providers=(own_name(self.provider),))


class RunFailed(ServingError):
    """The model or the runtime failed on a request that fits the interface."""


class Bound:
    """A model with memory that the runtime reads from and writes to, run after run.

    It is prepared once what it would look up again for each run: names, types and places.
    """

    __slots__ = ("__weakref__", "_binding", "_kept", "_options", "_run", "results")

    def __init__(
        self, run: Callable[..., None], binding: object, kept: Sequence[ort.OrtValue], results: list[Array]
    ) -> None:
        self._run: Callable[..., None] | None = run
        self._binding: object = binding
        self._kept = kept  # the memory, for as long as it is bound
        self._options = ort.RunOptions()
        self.results = results

    def run(self) -> bool:
        """Fill `results`. False: it failed, or a result has another shape this time; to run unbound will tell."""
        run = self._run
        if run is None:
            return False
        try:
            run(self._binding, self._options)
        except Exception:
            return False
        return True

    def release(self) -> None:
        """Let the model go, whoever still has this."""
        self._run = self._binding = None
        self._kept = ()


class Session:
    """A loaded model. `providers` says what it runs on, `joinable` whether the rows of several requests can be told
    apart in its outputs.

    Args:
        prepared: the file is a graph that `prepare` wrote on this device.

    Raises (on construction):
        ModelError: there is no such file, it is not ONNX, it uses what the protocol cannot carry, or with
            `shrink_arena` its inputs do not fit in memory.
    """

    def __init__(self, path: Path, options: ServingOptions | Tuning | None = None, *, prepared: bool = False) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: expected an ONNX file, found none")
        self._path = path
        wanted = options.options() if isinstance(options, Tuning) else options or ServingOptions()
        plan = plan_session(wanted)
        try:
            self._session, self.providers = open_session(path, wanted, plan, prepared=prepared)
        except Exception as error:  # the runtime's errors have no common base but this
            raise load_error(path, error) from None
        self.interface = Interface.of(
            [_spec(path, "input", each) for each in self._session.get_inputs()],
            [_spec(path, "output", each) for each in self._session.get_outputs()],
        )
        self.joinable = _one_first_axis([*self._session.get_inputs(), *self._session.get_outputs()])
        # The runtime's own `run` looks every feed over a second time and makes new options: a third of a small model.
        self._plain = not takes_bits(self.interface)
        self._run = self._session._sess.run if self._plain else bits_run(self._session, self.interface)
        self._usual = ort.RunOptions()
        self._bounds: WeakSet[Bound] = WeakSet()
        self._binds = False  # until a run that is bound was seen to give what one that is not gives
        self._large_bytes = _LARGE * _size_bytes(self._zeros().values()) if wanted.shrink_arena else 0

    @property
    def provider(self) -> str:
        """The first of the execution providers that it runs on, by the runtime's name."""
        return RUNTIME_NAMES.get(self.providers.active[0], self.providers.active[0])

    def run(self, outputs: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        """Results in the order of `outputs`. Callable from any thread. `feeds` must have every input.

        Raises:
            Refusal: 400, the shapes do not fit each other; only the runtime knows.
            RunFailed: anything else.
        """
        options = self._usual
        if self._large_bytes and _size_bytes(feeds.values()) > self._large_bytes:
            options = _shrinking()
        try:
            results: list[Array] = self._run(outputs, feeds, options)
        except Exception as error:
            if _ARENA in str(error):  # which would take as much as it was refused with the next that it needs
                with suppress(RunFailed):
                    self.shrink()
            raise _translated(error, self._apart(feeds)) from None
        return results

    def bind(self, feeds: Mapping[str, Array], like: Mapping[str, Array]) -> Bound | None:
        """The same run again and again: inputs are what `feeds` hold then, results are as large as those in `like`.

        None where that would bring nothing, where the runtime has more to do than to run, and before `warm` has shown
        that the model answers so as it does otherwise.
        """
        return self._bind(feeds, like) if self._binds else None

    def _bind(self, feeds: Mapping[str, Array], like: Mapping[str, Array]) -> Bound | None:
        simple = self.providers.active == (CPU,) and not self._large_bytes and self._plain
        arrays = (*feeds.values(), *like.values())
        if not simple or any(each.dtype.hasobject or not each.nbytes for each in arrays):
            return None
        results = {name: np.empty(each.shape, each.dtype) for name, each in like.items()}
        binding = _Binding(self._session._sess)
        kept = [ort.OrtValue.ortvalue_from_numpy(each)._ortvalue for each in (*feeds.values(), *results.values())]
        for name, value in zip(feeds, kept, strict=False):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(results, kept[len(feeds) :], strict=True):
            binding.bind_ortvalue_output(name, value)
        bound = Bound(self._session._sess.run_with_iobinding, binding, kept, list(results.values()))
        self._bounds.add(bound)
        return bound

    def _apart(self, feeds: Mapping[str, Array]) -> str:
        """Which sizes do not fit each other, of axes that the graph calls by one name; empty for none."""
        sizes: dict[str, tuple[int, str]] = {}
        for each in self._session.get_inputs():
            shape = feeds[each.name].shape
            if len(shape) != len(each.shape):
                continue  # the runtime says better what is wrong with that
            for axis, size in zip(each.shape, shape, strict=True):
                first, where = sizes.setdefault(axis, (size, each.name)) if isinstance(axis, str) else (size, "")
                if size != first:
                    return f"expected one size of '{axis}', got {first} in '{where}' and {size} in '{each.name}'"
        return ""

    def warm(self) -> None:
        """Run on zeros, so that the first patient does not pay for the arena. A model may refuse zeros.

        Raises:
            ModelError: inputs as the model wants them do not fit in memory.
        """
        feeds = self._zeros()
        results: list[Array] = []
        try:
            for _ in range(_WARM_RUNS):
                results = self.run(list(self.interface.outputs), feeds)
        except (Refusal, RunFailed):
            return
        self._binds = self._binds_rightly(feeds, dict(zip(self.interface.outputs, results, strict=True)))

    def _binds_rightly(self, feeds: Mapping[str, Array], wanted: Mapping[str, Array]) -> bool:
        """Whether a bound run gives the same bits. The runtime leaves a result that it need not compute, as an input
        that is an output too, what lay there before, and says that all went well: that may be another patient's.
        """
        bound = self._bind(feeds, wanted)
        if bound is None:
            return False
        pairs = [(_bytes(each), _bytes(other)) for each, other in zip(bound.results, wanted.values(), strict=True)]
        for found, expected in pairs:
            found[...] = ~expected
        ran = bound.run()
        bound.release()
        return ran and all(np.array_equal(found, expected) for found, expected in pairs)

    def shrink(self) -> None:
        """Give back what the arena took for the largest request so far: a run on zeros that ends with it.

        Raises:
            RunFailed: the model does not run on zeros; nothing was given back.
        """
        try:
            self._run(list(self.interface.outputs), self._zeros(), _shrinking())
        except Exception as error:
            raise RunFailed(f"expected a model that runs on zeros, got: {reason(error)}") from None

    def close(self) -> None:
        """Give the memory back. `run` must not be called any more."""
        for each in self._bounds:
            each.release()
        del self._run
        del self._session

    def _zeros(self) -> dict[str, Array]:
        try:
            return {name: _zeros(spec) for name, spec in self.interface.inputs.items()}
        except (MemoryError, ValueError) as error:  # numpy's answer to a size that no address reaches is a ValueError
            raise ModelError(f"{self._path}: expected inputs that fit in memory, got: {error}") from None


def _shrinking() -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _size_bytes(arrays: Iterable[Array]) -> int:
    return sum(each.nbytes for each in arrays)


def _bytes(array: Array) -> npt.NDArray[np.uint8]:
    """The same memory; `array` lies in one piece."""
    return array.reshape(-1).view(np.uint8)


def _spec(path: Path, side: str, node: ort.NodeArg) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise ModelError(
            f"{path}: {side} {node.name}: expected a tensor of a type that clients can send, got {node.type}"
            + (" (export the classifier with zipmap off)" if "map(" in node.type else "")
        )
    shape = tuple(dim if isinstance(dim, int) else -1 for dim in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)


def _one_first_axis(nodes: Iterable[ort.NodeArg]) -> bool:
    """Whether the graph calls the first axis of every tensor by one name: each row that goes in comes out as one."""
    names = {each.shape[0] if each.shape else None for each in nodes}
    return len(names) == 1 and isinstance(names.pop(), str)


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(1 if dim == -1 else dim for dim in spec.shape)
    if spec.datatype is Datatype.BYTES:
        return np.full(shape, "", object)
    return np.zeros(shape, tensors.CARRIER[spec.datatype])


def _translated(error: Exception, apart: str) -> ServingError:
    """The runtime checks shapes against each other and calls that, and a node's own complaint, by one name.

    Args:
        apart: what of the request cannot fit any model of these axes.
    """
    if apart:
        return Refusal(HTTPStatus.BAD_REQUEST, apart)
    why = reason(error)
    if "INVALID_ARGUMENT" in str(error) and "while running" not in why:
        return Refusal(HTTPStatus.BAD_REQUEST, f"expected inputs that fit the model, got: {why}")
    return RunFailed(f"the model failed: {why}")
