"""One ONNX model in memory. The only module that knows ONNX Runtime.

One thread and no spinning: on two cores a spinning pool doubled the tail and took a whole core while idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import numpy as np

from edgeward_agent.errors import ModelError, ServingError
from edgeward_agent.ort import QUIET
from edgeward_agent.ort import onnxruntime as ort
from edgeward_agent.serving import tensors
from edgeward_agent.serving.interface import Interface
from edgeward_agent.serving.protocol import Refusal
from edgeward_agent.serving.tensors import Array
from edgeward_contract.manifest import Datatype, TensorSpec

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
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}
_WARM_RUNS: Final = 3
CPU: Final = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How the runtime runs a model; the defaults are what a device does.

    `provider` is one of `providers()`; what it cannot run falls back to the CPU, and `Session.provider` tells.
    """

    threads: int = 1
    provider: str = CPU


class RunFailed(ServingError):
    """The model or the runtime failed on a request that fits the interface."""


class Session:
    """A loaded model.

    Raises (on construction):
        ModelError: there is no such file, it is not ONNX, or it uses what the protocol cannot carry.
    """

    def __init__(self, path: Path, tuning: Tuning | None = None) -> None:
        wanted = tuning or Tuning()
        if not path.is_file():
            raise ModelError(f"{path}: expected an ONNX file, found none")
        try:
            self._session = ort.InferenceSession(
                path, _options(wanted.threads), providers=list(dict.fromkeys((wanted.provider, CPU)))
            )
        except Exception as error:  # the runtime's errors have no common base but this
            reason = _reason(error).removeprefix(f"Load model from {path} failed:")
            raise ModelError(f"{path}: expected an ONNX model that loads, got: {reason}") from None
        self.interface = Interface.of(
            [_spec(path, "input", each) for each in self._session.get_inputs()],
            [_spec(path, "output", each) for each in self._session.get_outputs()],
        )

    @property
    def provider(self) -> str:
        """The first of the execution providers that took part in the model."""
        names: list[str] = self._session.get_providers()
        return names[0]

    def run(self, outputs: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        """Results in the order of `outputs`. Callable from any thread.

        Raises:
            Refusal: 400, the shapes do not fit each other; only the runtime knows.
            RunFailed: anything else.
        """
        try:
            results: list[Array] = self._session.run(outputs, feeds)
        except Exception as error:
            raise _translated(error) from None
        return results

    def warm(self) -> None:
        """Run on zeros, so that the first patient does not pay for the arena. A model may refuse zeros."""
        feeds = {name: _zeros(spec) for name, spec in self.interface.inputs.items()}
        try:
            for _ in range(_WARM_RUNS):
                self.run(list(self.interface.outputs), feeds)
        except (Refusal, RunFailed):
            return

    def close(self) -> None:
        """Give the memory back. `run` must not be called any more."""
        del self._session


def providers() -> tuple[str, ...]:
    """The execution providers of the installed runtime that work on this machine alone; Azure's calls a cloud."""
    return tuple(each for each in ort.get_available_providers() if not each.startswith("Azure"))


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _spec(path: Path, side: str, node: ort.NodeArg) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise ModelError(
            f"{path}: {side} {node.name}: expected a tensor of a type that clients can send, got {node.type}"
            + (" (export the classifier with zipmap off)" if "map(" in node.type else "")
        )
    shape = tuple(dim if isinstance(dim, int) else -1 for dim in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(1 if dim == -1 else dim for dim in spec.shape)
    if spec.datatype is Datatype.BYTES:
        return np.full(shape, "", object)
    return np.zeros(shape, tensors.NUMPY[spec.datatype])


def _translated(error: Exception) -> ServingError:
    """The runtime checks shapes against each other and calls that, and a node's own complaint, by one name."""
    reason = _reason(error)
    if "INVALID_ARGUMENT" in str(error) and "while running" not in reason:
        return Refusal(HTTPStatus.BAD_REQUEST, f"expected inputs that fit the model, got: {reason}")
    return RunFailed(f"the model failed: {reason}")


def _reason(error: Exception) -> str:
    """ONNX Runtime writes `[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : what happened`."""
    parts = str(error).split(" : ", 3)
    text = parts[3] if len(parts) == 4 and parts[0] == "[ONNXRuntimeError]" else str(error)
    return " ".join(text.split())[:500] or type(error).__name__
