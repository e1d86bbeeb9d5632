"""What an ONNX file says of its own inputs and outputs, so that nobody has to type it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from edgeward_contract.manifest import Datatype, TensorSpec
from edgeward_contract.serving_options import ServingOptions
from edgeward_fleet.packing.errors import NotAModel, SheetRefused

DATATYPES: Final[dict[int, Datatype]] = {
    TensorProto.BOOL: Datatype.BOOL,
    TensorProto.UINT8: Datatype.UINT8,
    TensorProto.UINT16: Datatype.UINT16,
    TensorProto.UINT32: Datatype.UINT32,
    TensorProto.UINT64: Datatype.UINT64,
    TensorProto.INT8: Datatype.INT8,
    TensorProto.INT16: Datatype.INT16,
    TensorProto.INT32: Datatype.INT32,
    TensorProto.INT64: Datatype.INT64,
    TensorProto.FLOAT16: Datatype.FP16,
    TensorProto.BFLOAT16: Datatype.BF16,
    TensorProto.FLOAT: Datatype.FP32,
    TensorProto.DOUBLE: Datatype.FP64,
    TensorProto.STRING: Datatype.BYTES,
}
_NOT_TEXT: Final = "expected a valid ONNX model, found a name in it that is not UTF-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The tensors that go into a model and come out of it, in the file's order.

    `first_axes` is what the graph calls the first axis of each tensor, or gives to it by inference; empty for one that
    has no name.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    first_axes: frozenset[str] = frozenset()


def read_signature(data: bytes, serving: ServingOptions | None = None) -> Signature:
    """What goes in and out when the dimensions that `serving` pins are pinned.

    Raises:
        NotAModel: no ONNX, breaks ONNX's own rules, weights elsewhere, or not tensors in and out.
        SheetRefused: a dimension is pinned that the model does not have.
    """
    try:
        signature = _signature(_parse(data), serving or ServingOptions())
    except UnicodeDecodeError:  # the checker's complaint of a name
        raise NotAModel(_NOT_TEXT) from None
    names = [*signature.first_axes, *(each.name for each in (*signature.inputs, *signature.outputs))]
    if not all(isinstance(name, str) for name in names):  # protobuf hands out such a name as bytes
        raise NotAModel(_NOT_TEXT)
    return signature


def _signature(model: onnx.ModelProto, serving: ServingOptions) -> Signature:
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    _pin(serving, inputs, list(model.graph.output))
    named = onnx.shape_inference.infer_shapes(model).graph.output  # the runtime infers names too
    return Signature(
        inputs=_specs("input", inputs),
        outputs=_specs("output", model.graph.output),
        first_axes=frozenset(_first_axis(each) for each in (*inputs, *named)),
    )


def _pin(
    serving: ServingOptions, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> None:
    """Write the pinned values into the graph, as the runtime will: by what the inputs call their dimensions."""
    free = _free_dimensions(inputs)
    _check_pinned("dimensions", serving.dimensions, {dim.dim_param for dim in free})
    _check_pinned("denotations", serving.denotations, {dim.denotation for dim in free})
    for dim in (*free, *_free_dimensions(outputs)):
        size = serving.dimensions.get(dim.dim_param) or serving.denotations.get(dim.denotation)
        if size:
            dim.dim_value = size


def _free_dimensions(values: Sequence[onnx.ValueInfoProto]) -> list[onnx.TensorShapeProto.Dimension]:
    return [dim for each in values for dim in each.type.tensor_type.shape.dim if not dim.HasField("dim_value")]


def _first_axis(value: onnx.ValueInfoProto) -> str:
    shape = value.type.tensor_type.shape.dim
    return shape[0].dim_param if shape else ""


def _check_pinned(kind: str, pinned: Mapping[str, int], found: set[str]) -> None:
    if unknown := sorted(set(pinned) - found):
        have = ", ".join(sorted(found - {""})) or "none"
        raise SheetRefused(f"serving.{kind}: expected some of the model's free ones ({have}), got {unknown[0]}")


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise NotAModel(f"expected an ONNX model, found {_looks_like(data)}") from None
    if not model.ir_version or not model.graph.output:
        raise NotAModel(f"expected an ONNX model, found {_looks_like(data)}")
    if any(each.data_location == TensorProto.EXTERNAL for each in _tensors(model.graph)):
        raise NotAModel("expected the weights inside the file, found some in external files")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise NotAModel(f"expected a valid ONNX model, found: {str(error).strip().splitlines()[0]}") from None
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every constant of a graph, also those of its nodes and of the graphs in them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (each for node in graph.node for each in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _looks_like(data: bytes) -> str:
    """A guess that helps the person who picked the wrong file."""
    if not data:
        return "an empty file"
    for magic, kind in ((b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?)"), (b"\x80", "a Python pickle")):
        if data.startswith(magic):
            return kind
    if data.startswith(b"\x89HDF"):
        return "an HDF5 file (a Keras model?)"
    return f"{len(data)} bytes of something else"


def _specs(kind: str, values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    specs = tuple(_spec(kind, value) for value in values)
    if not specs:
        raise NotAModel(f"expected at least one {kind}, found none")
    return specs


def _spec(kind: str, value: onnx.ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise NotAModel(
            f"{kind} {value.name}: expected a tensor, found a {value.type.WhichOneof('value')}",
            hint="Export classifiers with zipmap=False, so that probabilities are a tensor.",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in DATATYPES:
        raise NotAModel(f"{kind} {value.name}: expected a type of the inference protocol, found {tensor.elem_type}")
    dims = (dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, datatype=DATATYPES[tensor.elem_type], shape=tuple(dims))
