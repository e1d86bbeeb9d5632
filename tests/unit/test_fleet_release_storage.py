"""The artifact store and the spool in front of it: nothing enters on trust, nothing leaves unchecked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_contract.artifact import ArtifactRef, Sha256, sha256_of
from edgeward_contract.chunks import CHUNK_BYTES, ChunkIndex, raw_index
from edgeward_fleet.errors import Invalid, TooLarge
from edgeward_fleet.models.uploads import Spool
from edgeward_fleet.storage import ArtifactDamaged, ChunkStore, StorageError
from support.rehearsal import pieces


def _stored(store: ChunkStore, folder: Path, data: bytes) -> ChunkIndex:
    source = folder / "source"
    source.write_bytes(data)
    return store.store_file(source, ArtifactRef(sha256=sha256_of(data), size_bytes=len(data)))


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ChunkStore:
    """On the local disk, and on a file system that knows no folders and no fsync."""
    urls = {"folder": (tmp_path / "artifacts").as_uri(), "memory": f"memory://{tmp_path.name}"}
    return ChunkStore(urls[request.param])


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
def test_a_file_comes_back_as_it_went_in(store: ChunkStore, tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    index = _stored(store, tmp_path, data)
    assert b"".join(store.read_whole(index)) == data
    assert index == raw_index(data)
    assert ChunkIndex.parse(index.canonical()) == index


def test_a_chunk_that_is_not_there_is_said_to_be_damaged(store: ChunkStore) -> None:
    with pytest.raises(ArtifactDamaged, match="expected a sound chunk 000000000000… in the store, found none"):
        store.get(Sha256("0" * 64))


def test_a_rotten_chunk_is_never_handed_out_and_is_mended_by_storing_it_again(tmp_path: Path) -> None:
    store = ChunkStore(str(tmp_path / "artifacts"))
    digest = store.put(b"sound")
    path = tmp_path / "artifacts" / digest[:2] / digest
    path.write_bytes(b"r0und")
    with pytest.raises(ArtifactDamaged):
        store.get(digest)
    store.put(b"sound")
    assert store.get(digest) == b"sound"


def test_a_write_that_fails_leaves_no_half_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ChunkStore(str(tmp_path / "artifacts"))

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="cannot be stored: .*No space left on device"):
            store.put(b"data")
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_a_store_that_there_is_not_is_refused() -> None:
    with pytest.raises(StorageError, match="expected a folder or a URL of an installed fsspec driver"):
        ChunkStore("carrier-pigeon://coop")


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="expected a store that can be written"):
        ChunkStore(str(tmp_path / "file" / "artifacts"))


@given(st.binary(max_size=5000), st.integers(1, 2000))
def test_the_spool_keeps_what_came_until_it_is_let_go(data: bytes, piece: int) -> None:
    async def scenario(folder: Path) -> None:
        spool = Spool(folder, max_bytes=10_000)
        async with spool.receive(sha256_of(data), pieces(data, piece)) as (path, artifact):
            assert path.read_bytes() == data
            assert artifact == ArtifactRef(sha256=sha256_of(data), size_bytes=len(data))

    with TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))
        assert not list(Path(folder).iterdir())


async def _receive(folder: Path, expected: Sha256, body: AsyncIterator[bytes], max_bytes: int = 1000) -> None:
    async with Spool(folder, max_bytes=max_bytes).receive(expected, body):
        raise AssertionError("expected the body to be refused")


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"body: expected sha256 .*, got .* of 4 B"):
        asyncio.run(_receive(tmp_path, sha256_of(b"other"), pieces(b"data")))
    with pytest.raises(TooLarge, match="artifact: expected at most 1000 bytes, got more"):
        asyncio.run(_receive(tmp_path, sha256_of(b"x"), pieces(b"x" * 3_000_000, 700_000)))
    assert not list(tmp_path.iterdir())


def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (1 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(_receive(tmp_path, sha256_of(b""), broken(), max_bytes=1 << 30))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_fleet_left_behind_goes_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "abandoned.part").write_bytes(b"half")
    Spool(tmp_path, max_bytes=1)
    assert not list(tmp_path.iterdir())
