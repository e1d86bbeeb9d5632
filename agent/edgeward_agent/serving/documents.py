"""What the protocol tells of server and models, as plain values: every front end has its own way to send them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edgeward_agent.serving.interface import Interface
from edgeward_agent.wire import tensors
from edgeward_contract.manifest import Datatype, TensorSpec
from edgeward_contract.schema import JsonValue
from edgeward_contract.serving_options import ServingOptions

Document = dict[str, JsonValue]

_PLATFORM: Final = "onnxruntime_onnx"
_MAX_INT32: Final = (1 << 31) - 1
_EXTENSIONS: Final[tuple[str, ...]] = (
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "statistics",
)


def server_metadata(version: str, *, shared_memory: bool) -> Document:
    """The answer to GET /v2."""
    extensions = [*_EXTENSIONS, *(("system_shared_memory",) if shared_memory else ())]
    return {"name": "edgeward", "version": version, "extensions": list[JsonValue](extensions)}


def model_metadata(model: str, versions: Sequence[int], interface: Interface) -> Document:
    """The answer to GET /v2/models/NAME; -1 is a free dimension."""
    return {
        "name": model,
        "versions": [str(version) for version in versions],
        "platform": _PLATFORM,
        "inputs": [_metadata(each) for each in interface.inputs.values()],
        "outputs": [_metadata(each) for each in interface.outputs.values()],
    }


def model_config(model: str, interface: Interface, options: ServingOptions, *, body_bytes: int) -> Document:
    """The answer to GET /v2/models/NAME/config, in the shape of Triton's ModelConfig.

    There is no limit to a batch but the size of a body, so that is what `max_batch_size` says.
    """
    rows = _most_rows(interface, body_bytes)
    config: Document = {
        "name": model,
        "platform": _PLATFORM,
        "backend": "onnxruntime",
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": rows,
        "input": [_config(each, batched=rows > 0) | _INPUT for each in interface.inputs.values()],
        "output": [_config(each, batched=rows > 0) | _OUTPUT for each in interface.outputs.values()],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [_instances(model)],
        "default_model_filename": "model.onnx",
        "parameters": {},
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }
    if options.batching is not None:
        config["dynamic_batching"] = {
            "preferred_batch_size": [options.batching.max_rows],
            "max_queue_delay_microseconds": options.batching.max_delay_us,
        }
    return config


def index_entry(model: str, version: str, state: str, reason: str = "") -> Document:
    """One of the answer to POST /v2/repository/index."""
    return {"name": model, "version": version, "state": state, "reason": reason}


def region_entry(name: str, *, key: str, offset: int, size_bytes: int) -> Document:
    """One of the answer to GET /v2/systemsharedmemory/status."""
    return {"name": name, "key": key, "offset": offset, "byte_size": size_bytes}


_INPUT: Final[Document] = {
    "format": "FORMAT_NONE",
    "is_shape_tensor": False,
    "allow_ragged_batch": False,
    "optional": False,
}
_OUTPUT: Final[Document] = {"label_filename": "", "is_shape_tensor": False}


def _metadata(spec: TensorSpec) -> Document:
    document: Document = {"name": spec.name, "datatype": spec.datatype.value, "shape": list[JsonValue](spec.shape)}
    for key, names in (("labels", spec.labels), ("units", spec.units)):
        if names:  # an addition of ours
            document[key] = list[JsonValue](names)
    return document


def _config(spec: TensorSpec, *, batched: bool) -> Document:
    dims = spec.shape[1:] if batched else spec.shape
    return {"name": spec.name, "data_type": config_type(spec.datatype), "dims": list[JsonValue](dims)}


def config_type(datatype: Datatype) -> str:
    """The name of a datatype in Triton's ModelConfig."""
    return "TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype.value}"


def _instances(model: str) -> Document:
    return {"name": model, "kind": "KIND_CPU", "count": 1, "gpus": [], "passive": False}


def _most_rows(interface: Interface, body_bytes: int) -> int:
    """How many rows fit into a body; 0 for a model without a batch dimension."""
    if not interface.batched:
        return 0
    row_bytes = sum(_row_bytes(each) for each in interface.inputs.values())
    return max(1, min(body_bytes // max(row_bytes, 1), _MAX_INT32))


def _row_bytes(spec: TensorSpec) -> int:
    """At least: free dimensions and texts may be larger."""
    return math.prod(max(dim, 1) for dim in spec.shape[1:]) * tensors.CARRIER[spec.datatype].itemsize
