"""Models inside the bedside application itself, with the calls of the client, for those who want no daemon.

with Engine("wdbc-risk.onnx") as engine:
    risk = engine.infer("wdbc-risk", {"features": features})["risk"]

What it does without: updates, records, and a crash of the runtime that is not the application's own. Needs the extra
`agent`, unlike the client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.arrays import sendable
from edgeward_agent.client.errors import ClientError, InvalidRequest, ModelNotFound, ServerFailed
from edgeward_agent.client.wish import WishFields, check_texts, whole, wish_of
from edgeward_agent.serving.interface import Interface, fits
from edgeward_agent.serving.local import load_all
from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.release import Version
from edgeward_agent.serving.session import RunFailed
from edgeward_agent.wire.tensors import DATATYPE, Array, floats_of_bf16
from edgeward_contract.manifest import CaptureMode, Datatype, TensorSpec

_HINTS: Final[dict[type[ClientError], str]] = {
    InvalidRequest: "Compare it with what the model takes: `engine.model(NAME)`.",
    ModelNotFound: "The Engine has the models that it was made with, by the names of their manifests or files.",
    ServerFailed: "The message is the runtime's own: see whether the model is meant for such inputs.",
}


class Engine:
    """Models in this process. `infer` may be called from any thread.

    Args:
        paths: ONNX files, or release folders. A model is called as its manifest says, else as its file.

    Raises:
        ModelError: a file is missing, does not load or does not fit its manifest, or two models have one name.
        TypeError: no file was named.
    """

    def __init__(self, *paths: Path | str) -> None:
        if not paths:
            raise TypeError("expected at least one ONNX file or release folder, got none")
        loaded = load_all([Path(path) for path in paths])
        self._versions: dict[str, Version] = {version.name: version for _, version in loaded}

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back. What is asked afterwards is not found."""
        versions, self._versions = self._versions, {}
        for version in versions.values():
            version.session.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        request_id: str = "",
        capture: CaptureMode = CaptureMode.OFF,
        deadline_us: int = 0,
        priority: int = 0,
    ) -> Answer:
        """Run a model here and now.

        Args:
            inputs: arrays by input name; text as an array of str.
            version: must be the one that is loaded.
            outputs: names of those wanted; all without it.
            capture: must be OFF: records are the daemon's.
            deadline_us, priority: taken for the sake of the client's callers; nobody waits in front here.

        Raises:
            ClientError: InvalidRequest, ModelNotFound or ServerFailed, as a server would have it.
        """
        try:
            wish = wish_of(model, inputs, version, outputs, request_id, capture, deadline_us, priority)
            return self._infer(wish, inputs)
        except ClientError as error:
            raise _hinted(error) from None

    def _infer(self, wish: WishFields, inputs: Mapping[str, Array]) -> Answer:
        model, version, outputs, request_id, capture, _, _ = wish
        check_texts(request_id)
        found = self._find(model, version)
        if capture is not CaptureMode.OFF:
            raise InvalidRequest("expected capture off, got another: an engine in the application has no outbox")
        wanted = _wanted(found.interface, outputs)
        feeds = _feeds(found.interface, inputs)
        try:
            results = found.session.run(wanted, feeds)
        except Refusal as refusal:
            raise InvalidRequest(str(refusal)) from None
        except RunFailed as error:
            raise ServerFailed(str(error)) from None
        given = map(partial(_given, found.interface), wanted, results)
        named = dict(zip(wanted, given, strict=True))
        return Answer(model=found.name, version=str(found.version), request_id=request_id, outputs=named)

    def model(self, model: str, *, version: int | None = None) -> ModelInfo:
        """Raises InvalidRequest or ModelNotFound."""
        try:
            found = self._find(model, None if version is None else whole("version", version))
        except ClientError as error:
            raise _hinted(error) from None
        return ModelInfo(
            name=found.name,
            versions=(str(found.version),),
            inputs=tuple(found.interface.inputs.values()),
            outputs=tuple(found.interface.outputs.values()),
        )

    def ready(self) -> bool:
        """Whether there is a model to ask."""
        return bool(self._versions)

    def _find(self, model: str, version: int | None) -> Version:
        check_texts(model)
        found = self._versions.get(model)
        if found is None or version not in (None, found.version):
            wanted = f"'{model}'" if found is None else f"'{model}' version {version}"
            raise ModelNotFound(f"Request for unknown model: {wanted} is not found")
        return found


def _hinted(error: ClientError) -> ClientError:
    """The same error, without a hint that is about a server."""
    if error.hint == type(error).hint:
        error.hint = _HINTS[type(error)]
    return error


def _wanted(interface: Interface, outputs: Sequence[str]) -> list[str]:
    check_texts(*outputs)
    for name in outputs:
        if name not in interface.outputs:
            raise InvalidRequest(f"expected outputs of {sorted(interface.outputs)}, got '{name}'")
    return list(outputs or interface.outputs)


def _given(interface: Interface, name: str, result: Array) -> Array:
    return floats_of_bf16(result) if interface.outputs[name].datatype is Datatype.BF16 else result


def _feeds(interface: Interface, inputs: Mapping[str, Array]) -> dict[str, Array]:
    check_texts(*inputs)
    if set(inputs) != set(interface.inputs):
        raise InvalidRequest(f"expected inputs {sorted(interface.inputs)}, got {sorted(inputs)}")
    return {name: _feed(interface.inputs[name], sendable(name, array)) for name, array in inputs.items()}


def _feed(spec: TensorSpec, array: Array) -> Array:
    """Raises InvalidRequest: another datatype or shape than the model takes."""
    datatype = DATATYPE[array.dtype]
    if datatype is not spec.datatype:
        raise InvalidRequest(f"input '{spec.name}': expected datatype {spec.datatype}, got {datatype}")
    if not fits(spec.shape, array.shape):
        raise InvalidRequest(f"input '{spec.name}': expected shape {list(spec.shape)}, got {list(array.shape)}")
    if datatype is Datatype.BYTES:
        return array
    plain = np.ascontiguousarray(array)
    if datatype is Datatype.BOOL:  # any byte but 0 and 1 in a C++ bool is undefined behaviour inside the runtime
        plain = plain.view(np.uint8) != 0
    return plain.reshape(array.shape)
