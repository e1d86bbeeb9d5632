"""The client of bedside applications: numpy arrays in, numpy arrays out. Needs the standard library and numpy alone.

with Client("unix:/var/lib/edgeward/socket/serving.sock") as client:
    answer = client.infer("wdbc-risk", {"features": features})
    risk = answer["probability"]
"""

from edgeward_agent.client.answers import Answer, ModelInfo
from edgeward_agent.client.blocking import Client
from edgeward_agent.client.concurrent import AsyncClient
from edgeward_agent.client.errors import (
    ClientError,
    InvalidAddress,
    InvalidRequest,
    ModelNotFound,
    NotAllowed,
    NotRecorded,
    ServerFailed,
    Unavailable,
    Unreachable,
)
from edgeward_contract.manifest import CaptureMode

__all__ = [
    "Answer",
    "AsyncClient",
    "CaptureMode",
    "Client",
    "ClientError",
    "InvalidAddress",
    "InvalidRequest",
    "ModelInfo",
    "ModelNotFound",
    "NotAllowed",
    "NotRecorded",
    "ServerFailed",
    "Unavailable",
    "Unreachable",
]
