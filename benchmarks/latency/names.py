"""What servers and ways are called before people. Pure."""

from __future__ import annotations

from typing import Final

SERVERS: Final = {
    "raw": "the model alone",
    "raw huge": "the model alone, in huge pages",
    "echo": "C echo (the floor)",
    "ours": "Edgeward",
    "bare": "Edgeward, bare",
    "fastapi": "FastAPI + orjson",
    "mlserver": "MLServer",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "pytriton": "Triton's front end",
}
WAYS: Final = {
    "run": "run",
    "tcp": "TCP",
    "unix": "unix socket",
    "frames": "shared memory",
    "grpc": "gRPC",
}
