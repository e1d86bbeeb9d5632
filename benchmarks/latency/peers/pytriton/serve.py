"""Triton's front end (its C++ server) with a Python function behind it, as nvidia-pytriton's documentation shows it:
one instance, its default batching.

    serve.py MODEL.onnx NAME PORT        POST /v2/models/NAME/infer, V2 with binary tensors
"""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

NUMPY = {"tensor(float)": np.float32, "tensor(int64)": np.int64}

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [each.name for each in session.get_outputs()]


def tensors(nodes):
    """The batch is Triton's own dimension; every tensor needs one more, so a vector of the batch becomes [batch, 1]."""
    return [Tensor(name=node.name, dtype=NUMPY[node.type], shape=tuple(node.shape[1:]) or (1,)) for node in nodes]


@batch
def infer(**inputs):
    results = session.run(names, inputs)
    return {name: result.reshape(len(result), -1) for name, result in zip(names, results, strict=True)}


if __name__ == "__main__":
    port = int(sys.argv[3])
    config = TritonConfig(http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name=sys.argv[2],
            infer_func=infer,
            inputs=tensors(session.get_inputs()),
            outputs=tensors(session.get_outputs()),
            config=ModelConfig(max_batch_size=16),
        )
        triton.serve()
