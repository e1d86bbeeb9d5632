"""Inputs of a model as a person gives them at a prompt: files of arrays, short lists, or a request of the protocol."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgeward_agent.bench.arrays import as_datatype, read_npy
from edgeward_agent.client import InvalidRequest, ModelInfo
from edgeward_agent.wire.tensors import NUMPY, Array, Scalar, TensorError, from_elements
from edgeward_contract.manifest import Datatype, TensorSpec
from edgeward_contract.schema import ContractError, Fields, JsonValue, parse_json

_MAX_REQUEST_BYTES = 64 << 20


def read_pairs(pairs: Sequence[str], model: ModelInfo) -> dict[str, Array]:
    """`NAME=@FILE.npy` and `NAME=1,2,3`. Raises InvalidRequest, which names the pair."""
    specs = {spec.name: spec for spec in model.inputs}
    inputs: dict[str, Array] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in specs:
            known = ", ".join(sorted(specs))
            raise InvalidRequest(f"--input: expected NAME=VALUE with a name of {known}, got {pair[:80]!r}")
        if name in inputs:
            raise InvalidRequest(f"--input {name}: expected once, got it again: {pair[:80]!r}")
        try:
            inputs[name] = (
                _from_file(Path(value[1:]), specs[name]) if value[:1] == "@" else _from_text(value, specs[name])
            )
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"--input {name}: {_words(error)}") from None
    return inputs


def read_request(name: str) -> dict[str, Array]:
    """A request of the Open Inference Protocol, from a file or from standard input. Raises InvalidRequest."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        tensors = parse_json(data, limit_bytes=_MAX_REQUEST_BYTES).objects("inputs", max_items=64)
        return {each.text("name"): _from_request(each) for each in tensors}
    except (OSError, ContractError, TensorError) as error:
        raise InvalidRequest(f"--json {name}: {_words(error)}") from None


def _from_file(path: Path, spec: TensorSpec) -> Array:
    """With the model's own datatype where that keeps the kind of number: numpy writes FP64 unless told otherwise."""
    array = read_npy(path)
    wanted = NUMPY.get(spec.datatype)
    return as_datatype(array, spec.datatype) if wanted is not None and array.dtype.kind == wanted.kind else array


def _from_text(text: str, spec: TensorSpec) -> Array:
    """One case: free dimensions become 1."""
    if spec.datatype not in NUMPY:
        raise TensorError(f"{spec.datatype} has no form as text or JSON; give NAME=@FILE.npy")
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    return from_elements(spec.datatype, shape, [_scalar(each.strip(), spec.datatype) for each in text.split(",")])


def _scalar(text: str, datatype: Datatype) -> Scalar:
    if datatype is Datatype.BYTES:
        return text
    if datatype is Datatype.BOOL:
        return text in ("1", "true")
    return float(text) if datatype in (Datatype.FP16, Datatype.FP32, Datatype.FP64) else int(text)


def _from_request(tensor: Fields) -> Array:
    datatype = tensor.choice("datatype", Datatype)
    if datatype not in NUMPY:
        raise TensorError(f"{tensor.at('datatype')}: {datatype} has no form in JSON")
    return from_elements(datatype, tensor.integers("shape", minimum=0), _flat(tensor.raw("data"), tensor.at("data")))


def _flat(data: JsonValue, path: str) -> list[Scalar]:
    """Nested or flat lists, as the protocol allows both."""
    if isinstance(data, dict):
        raise ContractError(path, "expected a list of values, got an object")
    if not isinstance(data, list):
        return [data]
    return [value for each in data for value in _flat(each, path)]


def _words(error: Exception) -> str:
    return f"expected a readable file, got: {error.strerror}" if isinstance(error, OSError) else str(error)
