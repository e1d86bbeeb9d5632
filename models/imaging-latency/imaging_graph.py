"""The network as an ONNX graph. Opset and IR are held back so that the oldest supported ONNX Runtime can load it."""

from __future__ import annotations

from typing import Final

import numpy as np
from imaging_network import CLASSES, SIDE_PX, Layer, Network
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

OPSET: Final = 17
IR_VERSION: Final = 8


def export(network: Network) -> ModelProto:
    """A model that maps `image` FP32 (batch, 3, 224, 224), RGB from 0 to 1, to `scores` FP32 (batch, 1000)."""
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["doubled"]),
        helper.make_node("Sub", ["doubled", "one"], ["centred"]),
    ]
    at, kept = "centred", ""
    for layer in network.layers:
        kept = at if layer.keep else kept
        nodes += _layer(layer, at, kept)
        at = layer.name
    nodes += [
        helper.make_node("GlobalAveragePool", [at], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "classifier.weight", "classifier.bias"], ["scores"]),
    ]
    return _model(nodes, _constants(network))


def _layer(layer: Layer, at: str, kept: str) -> list[NodeProto]:
    """The layer's result is named after it."""
    followed = layer.clipped or layer.add_kept
    result = f"{layer.name}.sum" if followed else layer.name
    convolution = helper.make_node(
        "Conv",
        [at, f"{layer.name}.weight", f"{layer.name}.bias"],
        [result],
        name=f"{layer.name}.conv",
        kernel_shape=list(layer.weight.shape[2:]),
        strides=[layer.stride] * 2,
        pads=[layer.padding] * 4,
        group=layer.weight.shape[0] if layer.depthwise else 1,
    )
    if layer.clipped:
        return [convolution, helper.make_node("Clip", [result, "zero", "six"], [layer.name])]
    return [convolution, *([helper.make_node("Add", [result, kept], [layer.name])] if layer.add_kept else [])]


def _constants(network: Network) -> list[TensorProto]:
    arrays = {"classifier.weight": network.classifier, "classifier.bias": network.classifier_bias}
    for layer in network.layers:
        arrays |= {f"{layer.name}.weight": layer.weight, f"{layer.name}.bias": layer.bias}
    for name, value in (("zero", 0.0), ("one", 1.0), ("two", 2.0), ("six", 6.0)):
        arrays[name] = np.array(value, dtype=np.float32)
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _model(nodes: list[NodeProto], constants: list[TensorProto]) -> ModelProto:
    shape: list[str | int | None] = ["batch", 3, SIDE_PX, SIDE_PX]
    graph = helper.make_graph(
        nodes,
        "imaging_latency",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        initializer=constants,
    )
    model = helper.make_model(
        graph,
        producer_name="edgeward models/imaging-latency",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    checker.check_model(model, full_check=True)
    return model
