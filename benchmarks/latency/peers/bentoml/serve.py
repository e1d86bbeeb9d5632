"""BentoML as its documentation shows it: a service class of one worker, numpy in, default settings.

serve.py MODEL.onnx NAME PORT        POST /predict {"x": nested lists} → {"output": nested lists}
"""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Onnx:
    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], providers=["CPUExecutionProvider"])
        self.feed = self.session.get_inputs()[0].name
        self.outputs = [each.name for each in self.session.get_outputs()]

    @bentoml.api
    def predict(self, x: np.ndarray) -> dict:
        results = self.session.run(self.outputs, {self.feed: x.astype(np.float32, copy=False)})
        return {name: result.tolist() for name, result in zip(self.outputs, results, strict=True)}


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    os.environ["PEER_MODEL"] = str(Path(sys.argv[1]).resolve())
    words = ["bentoml", "serve", "serve:Onnx", "--host", "127.0.0.1", "--port", sys.argv[3]]
    os.chdir(here)
    os.execv(Path(sys.executable).with_name("bentoml"), words)
