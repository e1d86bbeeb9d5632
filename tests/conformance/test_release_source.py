"""What every place that releases come from must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_agent.identity import tls
from edgeward_agent.link.memory import MemoryFleet, MemoryReleases
from edgeward_agent.link.source import HttpsReleaseSource
from edgeward_agent.link.wire import Wire
from edgeward_agent.ports import ReleaseSource
from edgeward_contract.artifact import ArtifactRef, Sha256, sha256_of
from edgeward_contract.chunks import Encoding, StoredChunk
from support.stub_fleet import StubFleet

MANIFEST = b'{"schema":1,"name":"a manifest is bytes to its source"}'
FILE = bytes(range(256)) * 1000  # four chunks of 64 KiB
ARTIFACT = ArtifactRef(sha256=sha256_of(FILE), size_bytes=len(FILE))
UNKNOWN = Sha256("00" * 32)


@dataclass(frozen=True, slots=True)
class Shop:
    source: ReleaseSource
    fleet: MemoryFleet


@asynccontextmanager
async def in_memory(_: Path) -> AsyncIterator[Shop]:
    fleet = MemoryFleet()
    releases = MemoryReleases(fleet)
    releases.add(MANIFEST, {"model.onnx": FILE})
    yield Shop(releases, fleet)


@asynccontextmanager
async def over_https(folder: Path) -> AsyncIterator[Shop]:
    async with StubFleet(folder) as stub:
        stub.releases.add(MANIFEST, {"model.onnx": FILE})
        identity = stub.ca.enrolled(folder / "identity", stub.device_url)
        wire = Wire(stub.device_url, tls.mutual(identity), timeout_s=10)
        try:
            yield Shop(HttpsReleaseSource(wire), stub.fleet)
        finally:
            wire.close()


ADAPTERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Shop]]] = {"memory": in_memory, "https": over_https}
Scenario = Callable[[Shop], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture(params=ADAPTERS)
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    async def act(scenario: Scenario) -> None:
        async with asyncio.timeout(60), ADAPTERS[request.param](tmp_path) as shop:
            await scenario(shop)

    return lambda scenario: asyncio.run(act(scenario))


def test_a_manifest_comes_byte_for_byte(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        assert await shop.source.manifest(sha256_of(MANIFEST)) == MANIFEST

    play(scenario)


def test_the_chunks_of_an_artifact_make_it_whole(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        index = await shop.source.chunk_index(ARTIFACT)
        assert index.artifact == ARTIFACT
        pieces = [await shop.source.chunk(chunk.best({Encoding.RAW})) for chunk in index.chunks]
        assert b"".join(pieces) == FILE

    play(scenario)


def test_chunks_may_be_asked_for_at_the_same_time(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        index = await shop.source.chunk_index(ARTIFACT)
        forms = [chunk.best({Encoding.RAW}) for chunk in index.chunks]
        pieces = await asyncio.gather(*(shop.source.chunk(form) for form in forms))
        assert b"".join(pieces) == FILE

    play(scenario)


def test_what_is_not_there_is_refused(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        stored = StoredChunk(encoding=Encoding.RAW, sha256=UNKNOWN, size_bytes=1)
        for call in (
            shop.source.manifest(UNKNOWN),
            shop.source.chunk_index(ArtifactRef(sha256=UNKNOWN, size_bytes=1)),
            shop.source.chunk(stored),
        ):
            with pytest.raises(LinkRefused):
                await call

    play(scenario)


def test_an_index_of_another_size_than_the_manifests_is_refused(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        with pytest.raises(LinkRefused):
            await shop.source.chunk_index(ArtifactRef(sha256=ARTIFACT.sha256, size_bytes=ARTIFACT.size_bytes + 1))

    play(scenario)


def test_without_a_fleet_every_call_is_lost_and_later_it_works_again(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        await shop.fleet.set_online(False)
        for call in (shop.source.manifest(sha256_of(MANIFEST)), shop.source.chunk_index(ARTIFACT)):
            with pytest.raises(LinkLost):
                await call
        await shop.fleet.set_online(True)
        assert await shop.source.manifest(sha256_of(MANIFEST)) == MANIFEST

    play(scenario)
