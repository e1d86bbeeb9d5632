"""MLServer with a runtime of one's own, as its documentation shows it: there is none for ONNX. Default settings (one
inference pool of one worker process), but for the ports and the access log.

It speaks V2 over HTTP in JSON alone: its binary form is for gRPC.

    serve.py MODEL.onnx NAME PORT        POST /v2/models/NAME/infer
"""

import asyncio
import sys

import numpy as np
import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        self.output_names = [each.name for each in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {each.name: NumpyCodec.decode_input(each).astype(np.float32, copy=False) for each in payload.inputs}
        results = self.session.run(self.output_names, feeds)
        outputs = [
            NumpyCodec.encode_output(name, result) for name, result in zip(self.output_names, results, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    port = int(sys.argv[3])
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        debug=False,
    )
    model = ModelSettings(
        name=sys.argv[2],
        implementation=OnnxModel,
        parameters=ModelParameters(uri=sys.argv[1]),
    )
    server = MLServer(settings)
    await server.start(models_settings=[model])


if __name__ == "__main__":
    asyncio.run(main())
