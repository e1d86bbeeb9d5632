"""What a careful user writes by hand: FastAPI, orjson both ways, uvicorn with uvloop and httptools, one worker.

The body is read by orjson alone: a pydantic model of nested lists costs several times as much. The model runs inside
`async def`: in a thread, with one thread of the runtime or with one for each core, it was measured too, and gave a
third fewer answers of the small model and no more of the large one.

    serve.py MODEL.onnx NAME PORT        POST /predict {"input": nested lists} → {"output": nested lists}
"""

import sys

import numpy as np
import onnxruntime
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
feed = session.get_inputs()[0].name
outputs = [each.name for each in session.get_outputs()]
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    body = orjson.loads(await request.body())
    results = session.run(outputs, {feed: np.asarray(body[feed], np.float32)})
    content = orjson.dumps(dict(zip(outputs, results, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), access_log=False, log_level="warning")
