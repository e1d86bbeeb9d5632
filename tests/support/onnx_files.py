"""Small ONNX files, made here, so that no test needs a training library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.array([[0.5], [-1.0], [2.0]], dtype=np.float32)


def risk_model(path: Path, *, weights: npt.NDArray[np.float32] = WEIGHTS, batch: str | int = "N") -> Path:
    """`features` FP32 [batch, n] → `risk` FP32 [batch, 1]: sigmoid of a weighted sum."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["risk"]),
        ],
        "risk",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, len(weights)])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, [batch, 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return save(path, graph)


def save(path: Path, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return path


def expected_risk(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What `risk_model` must answer, by plain arithmetic."""
    return np.asarray(1 / (1 + np.exp(-(features @ WEIGHTS))), dtype=np.float32)


def some_features(cases: int = 5) -> npt.NDArray[np.float32]:
    return np.linspace(-1, 1, cases * 3, dtype=np.float32).reshape(cases, 3)
