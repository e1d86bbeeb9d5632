"""The trained network as an ONNX graph, written node by node: clean names, no exporter, no torch.

Batch normalisation is folded into the convolutions. Opset and IR are held back so that the oldest supported ONNX
Runtime can load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from ecg_beats import Rhythm
from ecg_heart import RATE_HZ
from ecg_simulator import LEADS, WINDOW
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

State = Mapping[str, npt.NDArray[np.float64]]

OPSET: Final = 17
IR_VERSION: Final = 8


class EcgGraph:
    """Builds the graph from the state of an `EcgNet`.

    Args:
        state: parameters and running statistics by torch's names.
        stem_stride: of the first convolution; the blocks halve the time axis each.
        floor_mv: added to the size of a window before it is divided by it.
        epsilon: of the batch normalisation.
    """

    def __init__(self, state: State, *, stem_stride: int, floor_mv: float, epsilon: float) -> None:
        self._state = state
        self._stem_stride = stem_stride
        self._epsilon = epsilon
        self._nodes: list[NodeProto] = []
        self._constants = [numpy_helper.from_array(np.array(floor_mv, dtype=np.float32), "floor_mv")]

    def build(self) -> ModelProto:
        """`ecg` FP32 (batch, 12, 5000) → `probability` FP32 (batch, rhythms), `rhythm` INT64 (batch,)."""
        at = self._scaled("ecg")
        at = self._relu(self._convolution("stem", at, stride=self._stem_stride))
        for number in range(len({name.split(".")[1] for name in self._state if name.startswith("blocks.")})):
            at = self._block(f"blocks.{number}", at)
        self._head(at)
        return self._model()

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: int | list[int]) -> str:
        node = helper.make_node(operator, inputs, [output], name=f"{output}.{operator}")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._nodes.append(node)
        return output

    def _scaled(self, ecg: str) -> str:
        """Each lead without its mean, all leads divided by the size of the window."""
        mean = self._add("ReduceMean", [ecg], "mean", axes=[2], keepdims=1)
        centred = self._add("Sub", [ecg, mean], "centred")
        power = self._add("Mul", [centred, centred], "power")
        mean_power = self._add("ReduceMean", [power], "mean_power", axes=[1, 2], keepdims=1)
        size = self._add("Sqrt", [mean_power], "size")
        return self._add("Div", [centred, self._add("Add", [size, "floor_mv"], "divisor")], "scaled")

    def _block(self, name: str, at: str) -> str:
        inner = self._relu(self._convolution(f"{name}.first", at, stride=2))
        inner = self._convolution(f"{name}.second", inner)
        beside = self._convolution(f"{name}.short_cut", at, stride=2)
        return self._relu(self._add("Add", [inner, beside], f"{name}.sum"))

    def _convolution(self, name: str, at: str, stride: int = 1) -> str:
        """A convolution with the normalisation after it folded in."""
        gain, shift, mean, variance = (
            self._state[f"{name}_norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + self._epsilon)
        weight = self._state[f"{name}.weight"] * scale[:, np.newaxis, np.newaxis]
        self._keep(f"{name}.weight", weight)
        self._keep(f"{name}.bias", shift - mean * scale)
        edge = weight.shape[2] // 2
        shape = {"kernel_shape": [weight.shape[2]], "strides": [stride], "pads": [edge, edge]}
        return self._add("Conv", [at, f"{name}.weight", f"{name}.bias"], name, **shape)

    def _relu(self, at: str) -> str:
        return self._add("Relu", [at], f"{at}.relu")

    def _head(self, at: str) -> None:
        mean, highest = self._add("GlobalAveragePool", [at], "pool.mean"), self._add("GlobalMaxPool", [at], "pool.max")
        pooled = self._add("Flatten", [self._add("Concat", [mean, highest], "pool", axis=1)], "features", axis=1)
        self._keep("head.weight", self._state["head.weight"])
        self._keep("head.bias", self._state["head.bias"])
        logits = self._add("Gemm", [pooled, "head.weight", "head.bias"], "logits", transB=1)
        self._add("Softmax", [logits], "probability", axis=1)
        self._add("ArgMax", [logits], "rhythm", axis=1, keepdims=0)

    def _keep(self, name: str, value: npt.NDArray[np.float64]) -> None:
        self._constants.append(numpy_helper.from_array(value.astype(np.float32), name))

    def _model(self) -> ModelProto:
        ecg = helper.make_tensor_value_info("ecg", TensorProto.FLOAT, ["batch", len(LEADS), WINDOW])
        outputs = [
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", len(Rhythm)]),
            helper.make_tensor_value_info("rhythm", TensorProto.INT64, ["batch"]),
        ]
        model = helper.make_model(
            helper.make_graph(self._nodes, "ecg_rhythm", [ecg], outputs, initializer=self._constants),
            producer_name="edgeward models/ecg-rhythm",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        facts = {"leads": " ".join(LEADS), "rate_hz": str(RATE_HZ), "unit": "mV", "rhythms": " ".join(Rhythm)}
        helper.set_model_props(model, facts)
        checker.check_model(model, full_check=True)
        return model
