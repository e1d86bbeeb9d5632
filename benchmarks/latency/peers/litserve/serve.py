"""LitServe as its documentation shows it: one worker process, no batching, default settings.

serve.py MODEL.onnx NAME PORT        POST /predict {"input": nested lists} → {"output": nested lists}
"""

import sys

import litserve
import numpy as np
import onnxruntime


class OnnxApi(litserve.LitAPI):
    def setup(self, device):
        self.session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
        self.feed = self.session.get_inputs()[0].name
        self.outputs = [each.name for each in self.session.get_outputs()]

    def decode_request(self, request):
        return np.asarray(request[self.feed], np.float32)

    def predict(self, x):
        return self.session.run(self.outputs, {self.feed: x})

    def encode_response(self, output):
        return {name: result.tolist() for name, result in zip(self.outputs, output, strict=True)}


if __name__ == "__main__":
    server = litserve.LitServer(OnnxApi(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False, log_level="warning")
