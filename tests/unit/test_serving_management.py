"""What a server says of itself, as it goes over the wire. Real HTTP, no network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from edgeward_agent.serving.api import DataApi
from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.codec import Codec
from edgeward_agent.serving.exchange import Head, Request
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.serving.shared_memory import NoRegions
from edgeward_contract.artifact import ModelName
from support.caller import Caller
from support.serving import constant_model


def _get(target: bytes, model: Path, *, expected: str = "") -> tuple[int, object]:
    async def main() -> Caller:
        registry, caller = Registry(), Caller()
        registry.adopt(load_file(model))
        if expected:
            registry.expect(ModelName(expected))
        scheduler = Scheduler(asyncio.get_running_loop(), threads=1)
        codec = Codec(limit_bytes=1)
        management = Management(registry, NoRegions(), body_bytes=1)
        api = DataApi(registry, Runner(scheduler, NoCapture()), management=management, codec=codec, terms=Terms())
        Request(caller, Head(method=b"GET", target=target, headers={}, keep_alive=True), b"", 0).serve(api)
        await registry.close()
        codec.close()
        return caller

    ((status, body, _),) = asyncio.run(main()).told
    return status, msgspec.json.decode(body)


_NONE_LIVE = "expected every model to have a live version, one has none"


@pytest.mark.parametrize("path", [b"/v2/health/live", b"/v2/health/ready", b"/v2/models/model/ready", b"/v2"])
def test_a_query_changes_nothing(tmp_path: Path, path: bytes) -> None:
    model = constant_model(tmp_path / "model.onnx", 1.0)
    plain = _get(path, model)
    assert plain[0] == 200
    assert [_get(path + query, model) for query in (b"?", b"?x=1", b"?/v2/models/a?b")] == [plain] * 3


@pytest.mark.parametrize(
    ("target", "expected", "status", "document"),
    [
        (b"/v2/health/live", "", 200, {"live": True}),
        (b"/v2/health/live", "other", 200, {"live": True}),
        (b"/v2/health/ready", "", 200, {"ready": True}),
        (b"/v2/health/ready", "other", 503, {"ready": False, "error": _NONE_LIVE}),
        (b"/v2/models/model/ready", "other", 200, {"name": "model", "ready": True}),
        (b"/v2/models/model/versions/1/ready", "", 200, {"name": "model", "ready": True}),
        (
            b"/v2/models/other/ready",
            "other",
            404,
            {"name": "other", "ready": False, "error": "Request for unknown model: 'other' is not found"},
        ),
    ],
)
def test_who_reads_the_body_learns_what_the_status_says(
    tmp_path: Path, target: bytes, expected: str, status: int, document: dict[str, object]
) -> None:
    assert _get(target, constant_model(tmp_path / "model.onnx", 1.0), expected=expected) == (status, document)
