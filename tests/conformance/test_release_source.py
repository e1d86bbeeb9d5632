"""What every place that releases come from must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from edgeward_contract.desired import DesiredModel
from edgeward_contract.manifest import Manifest
from support.link_fleet import FleetHarness, OpenFleet, open_fleet, push
from support.stub_fleet import StubFleet

MANIFEST = b'{"schema":1,"name":"a manifest is bytes to its source"}'
FILE = bytes(range(256)) * 1000  # four chunks of 64 KiB
UNKNOWN = Sha256("00" * 32)


ADAPTERS = ("memory", "https", "https to the real fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A source, what is in it, and the switch of its fleet."""

    source: ReleaseSource
    set_online: Callable[[bool], Awaitable[None]]
    manifest: bytes = MANIFEST
    file: bytes = FILE

    @property
    def artifact(self) -> ArtifactRef:
        return ArtifactRef(sha256=sha256_of(self.file), size_bytes=len(self.file))


@asynccontextmanager
async def in_memory() -> AsyncIterator[Shop]:
    fleet = MemoryFleet()
    releases = MemoryReleases(fleet)
    releases.add(MANIFEST, {"model.onnx": FILE})
    yield Shop(source=releases, set_online=fleet.set_online)


@asynccontextmanager
async def over_https(folder: Path) -> AsyncIterator[Shop]:
    async with StubFleet(folder) as stub:
        stub.releases.add(MANIFEST, {"model.onnx": FILE})
        identity = stub.ca.enrolled(folder / "identity", stub.device_url)
        wire = Wire(stub.device_url, tls.mutual(identity), timeout_s=10)
        try:
            yield Shop(source=HttpsReleaseSource(wire), set_online=stub.fleet.set_online)
        finally:
            wire.close()


@asynccontextmanager
async def real_fleet(opened: OpenFleet, release: Path) -> AsyncIterator[Shop]:
    """Packed, pushed and wanted of the device: it may fetch nothing else."""
    manifest = (release / "manifest.json").read_bytes()
    await asyncio.to_thread(push, opened, release)
    async with FleetHarness(opened) as harness:
        parsed = Manifest.parse(manifest)
        wanted = DesiredModel(release=parsed.release, sha256=sha256_of(manifest), deployment="d-1")
        await harness.want(wanted)

        async def set_online(online: bool) -> None:
            await (harness.come_back() if online else harness.go_offline())

        source = HttpsReleaseSource(harness.wire)
        yield Shop(source=source, set_online=set_online, manifest=manifest, file=(release / "model.onnx").read_bytes())


Scenario = Callable[[Shop], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFleet]:
    with open_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        yield opened


@pytest.fixture(params=ADAPTERS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, checkout: Path) -> AbstractAsyncContextManager[Shop]:
    if request.param == "memory":
        return in_memory()
    if request.param == "https":
        return over_https(tmp_path)
    return real_fleet(request.getfixturevalue("fleet"), checkout / "models/wdbc-risk/releases/2")


@pytest.fixture
def play(shop: AbstractAsyncContextManager[Shop]) -> Play:
    async def act(scenario: Scenario) -> None:
        async with asyncio.timeout(60), shop as opened:
            await scenario(opened)

    return lambda scenario: asyncio.run(act(scenario))


def test_a_manifest_comes_byte_for_byte(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        assert await shop.source.manifest(sha256_of(shop.manifest)) == shop.manifest

    play(scenario)


def test_the_chunks_of_an_artifact_make_it_whole(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        index = await shop.source.chunk_index(shop.artifact)
        assert index.artifact == shop.artifact
        pieces = [await shop.source.chunk(chunk.best({Encoding.RAW})) for chunk in index.chunks]
        assert b"".join(pieces) == shop.file

    play(scenario)


def test_chunks_may_be_asked_for_at_the_same_time(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        index = await shop.source.chunk_index(shop.artifact)
        forms = [chunk.best({Encoding.RAW}) for chunk in index.chunks]
        pieces = await asyncio.gather(*(shop.source.chunk(form) for form in forms))
        assert b"".join(pieces) == shop.file

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
            await shop.source.chunk_index(
                ArtifactRef(sha256=shop.artifact.sha256, size_bytes=shop.artifact.size_bytes + 1)
            )

    play(scenario)


def test_without_a_fleet_every_call_is_lost_and_later_it_works_again(play: Play) -> None:
    async def scenario(shop: Shop) -> None:
        await shop.set_online(False)
        for call in (shop.source.manifest(sha256_of(shop.manifest)), shop.source.chunk_index(shop.artifact)):
            with pytest.raises(LinkLost):
                await call
        await shop.set_online(True)
        assert await shop.source.manifest(sha256_of(shop.manifest)) == shop.manifest

    play(scenario)
