"""Who may call over gRPC where the agent was given a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc as library
import numpy as np
import pytest
from onnx import TensorProto
from tritonclient.grpc import aio  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from edgeward_agent.listening import bound_address, reserve_grpc
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.runtime import serving
from support.rpc import code, rpc_tensor
from support.serving import identity_model

ONE = np.ones((1, 3), np.float32)
GOOD = {"authorization": "Bearer sesame"}


def test_a_token_is_asked_for_before_anything_is_read(tmp_path: Path) -> None:
    registry = Registry()
    registry.adopt(load_file(identity_model(tmp_path / "fp32.onnx", TensorProto.FLOAT, ["n", "m"])))

    async def main() -> None:
        with reserve_grpc("127.0.0.1:0") as reserved:
            address = bound_address(reserved)
            limits = Limits(token=b"sesame")
            async with (
                serving(registry, NoCapture(), [], grpc=address, limits=limits),
                aio.InferenceServerClient(address) as client,
            ):
                assert await client.is_server_live()  # a probe has no token
                assert await client.is_server_ready()
                await _refused(client)
                found = await client.infer("fp32", [rpc_tensor("in", ONE, "FP32")], headers=GOOD)
                assert (found.as_numpy("out") == ONE).all()
                stream = client.stream_infer(_requests(), headers=GOOD)
                assert [error async for _, error in stream] == [None]

    asyncio.run(main())


async def _refused(client: aio.InferenceServerClient) -> None:
    for headers in (None, {"authorization": "Bearer other"}, {"authorization": "sesame"}, {"authorization": ""}):
        for size in (3, 1 << 20):
            given = [rpc_tensor("in", np.ones((1, size), np.float32), "FP32")]
            with pytest.raises(InferenceServerException, match="expected the header `Authorization: Bearer") as caught:
                await client.infer("fp32", given, headers=headers)
            assert code(caught.value) == "UNAUTHENTICATED"
        with pytest.raises(InferenceServerException):
            await client.get_model_metadata("fp32", headers=headers)
        with pytest.raises(library.RpcError, match="UNAUTHENTICATED"):
            assert [each async for each in client.stream_infer(_requests(), headers=headers)]


async def _requests() -> AsyncIterator[dict[str, object]]:
    yield {"model_name": "fp32", "inputs": [rpc_tensor("in", ONE, "FP32")]}
