"""The ONNX graphs: the export of a trained pipeline, and the four faults that are planted in copies of it.

Opset and IR are held back on purpose, so that the oldest ONNX Runtime that Edgeward supports can load them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.pipeline import Pipeline
from wdbc_data import BAND_WIDTH, SIZE_BANDS

OPSET: Final = 17
ML_OPSET: Final = 3
IR_VERSION: Final = 8

SETTLING_STEPS: Final = 40_000
SETTLING_SHARE: Final = 0.01


def export(pipeline: Pipeline, features: int) -> ModelProto:
    """Export a classifier with its scaling.

    Args:
        pipeline: fitted, with classes 0 (benign) and 1 (malignant).
        features: how many columns it reads.

    Returns:
        A model that maps `features` FP32 (batch, features) to `risk` FP32 (batch, 1) and `label` INT64 (batch,).
    """
    raw = to_onnx(
        pipeline,
        initial_types=[("features", FloatTensorType([None, features]))],
        options={id(pipeline): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    _rename(raw.graph.node, "probabilities", "class_probabilities")
    raw.graph.initializer.append(_ints("malignant_class", [1]))
    nodes = [*raw.graph.node, helper.make_node("Gather", ["class_probabilities", "malignant_class"], ["risk"], axis=1)]
    return _model(nodes, raw.graph.initializer, features)


def with_swapped_columns(model: ModelProto, first: int, second: int) -> ModelProto:
    """The same model that reads each of two columns as the other: it loads, answers, and is wrong."""
    features = _width(model)
    order = list(range(features))
    order[first], order[second] = second, first
    nodes = _nodes(model)
    _rename(nodes, "features", "features_in_order")
    nodes.insert(0, helper.make_node("Gather", ["features", "column_order"], ["features_in_order"], axis=1))
    return _model(nodes, [*model.graph.initializer, _ints("column_order", order)], features)


def with_short_size_table(model: ModelProto, area_column: int) -> ModelProto:
    """The same model with a weight per band of tumour size, all 1, from a table that ends too early.

    An area beyond the last band makes the look-up fail, and with it the whole inference.
    """
    nodes = _with_plain_risk(model)
    nodes += [
        helper.make_node("Gather", ["features", "area_column"], ["area"], axis=1),
        helper.make_node("Div", ["area", "band_width"], ["band_position"]),
        helper.make_node("Cast", ["band_position"], ["band"], to=TensorProto.INT64),
        helper.make_node("Gather", ["band_weights", "band"], ["band_weight"], axis=0),
        helper.make_node("Mul", ["plain_risk", "band_weight"], ["risk"]),
    ]
    constants = [
        _ints("area_column", [area_column]),
        _floats("band_width", [BAND_WIDTH]),
        _floats("band_weights", [1.0] * SIZE_BANDS),
    ]
    return _model(nodes, [*model.graph.initializer, *constants], _width(model))


def with_slow_settling(model: ModelProto) -> ModelProto:
    """The same model that creeps up to its answer in many small steps instead of giving it.

    Each step needs the one before and the patient's own risk, so no optimiser can shorten it and no second core
    can share it.
    """
    nodes = _with_plain_risk(model)
    nodes += [
        helper.make_node("Mul", ["plain_risk", "half"], ["first_guess"]),
        helper.make_node("Loop", ["steps", "", "first_guess"], ["risk"], body=_settling_step()),
    ]
    constants = [
        _floats("half", [0.5]),
        _floats("share", [SETTLING_SHARE]),
        numpy_helper.from_array(np.array(SETTLING_STEPS, dtype=np.int64), "steps"),
    ]
    return _model(nodes, [*model.graph.initializer, *constants], _width(model))


def with_trapping_division(model: ModelProto, numerator: int, denominator: int) -> ModelProto:
    """The same model with a ratio of two columns that is kept as a negated whole number.

    A denominator of 0 gives infinity, which x86-64 casts to the smallest INT64; that divided by -1 overflows, and
    the processor ends the process with SIGFPE. ONNX Runtime guards whole-number division against 0, not against this.
    0/0 counts as 0, so that a device's warm-up with zeros passes: only a patient brings the fault to light.
    """
    nodes = _with_plain_risk(model)
    nodes += [
        helper.make_node("Gather", ["features", "numerator_column"], ["numerator"], axis=1),
        helper.make_node("Gather", ["features", "denominator_column"], ["denominator"], axis=1),
        helper.make_node("Div", ["numerator", "denominator"], ["ratio"]),
        helper.make_node("IsNaN", ["ratio"], ["no_ratio"]),
        helper.make_node("Where", ["no_ratio", "no_ratio_value", "ratio"], ["known_ratio"]),
        helper.make_node("Cast", ["known_ratio"], ["whole_ratio"], to=TensorProto.INT64),
        helper.make_node("Div", ["whole_ratio", "minus_one"], ["negated_ratio"]),
        helper.make_node("LessOrEqual", ["negated_ratio", "zero"], ["plausible"]),
        helper.make_node("Where", ["plausible", "plain_risk", "implausible_risk"], ["risk"]),
    ]
    constants = [
        _ints("numerator_column", [numerator]),
        _ints("denominator_column", [denominator]),
        _ints("minus_one", [-1]),
        _ints("zero", [0]),
        _floats("no_ratio_value", [0.0]),
        _floats("implausible_risk", [1.0]),
    ]
    return _model(nodes, [*model.graph.initializer, *constants], _width(model))


def _settling_step() -> object:
    nodes = [
        helper.make_node("Sub", ["plain_risk", "guess"], ["missing"]),
        helper.make_node("Mul", ["missing", "share"], ["step"]),
        helper.make_node("Add", ["guess", "step"], ["next_guess"]),
        helper.make_node("Identity", ["go_on"], ["still_go_on"]),
    ]
    inputs = [
        helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("guess", TensorProto.FLOAT, ["batch", 1]),
    ]
    outputs = [
        helper.make_tensor_value_info("still_go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next_guess", TensorProto.FLOAT, ["batch", 1]),
    ]
    return helper.make_graph(nodes, "settling_step", inputs, outputs)


def _model(nodes: Sequence[NodeProto], constants: Sequence[TensorProto], features: int) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "wdbc_risk",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])],
        [
            helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["batch", 1]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        initializer=constants,
    )
    model = helper.make_model(
        graph,
        producer_name="edgeward models/wdbc-risk",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )
    checker.check_model(model, full_check=True)
    return model


def _with_plain_risk(model: ModelProto) -> list[NodeProto]:
    nodes = _nodes(model)
    _rename(nodes, "risk", "plain_risk")
    return nodes


def _nodes(model: ModelProto) -> list[NodeProto]:
    copy = ModelProto()
    copy.CopyFrom(model)
    return list(copy.graph.node)


def _rename(nodes: Sequence[NodeProto], old: str, new: str) -> None:
    """Rename a tensor wherever these nodes read or write it."""
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _width(model: ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)


def _ints(name: str, values: Sequence[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def _floats(name: str, values: Sequence[float]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)
