"""The chunk index of an artifact: how a large file crosses a bad network in pieces that stand alone.

The index is transport, not identity: a device checks each chunk against it and the whole file against the
manifest, so an index that lies costs a download and nothing else. Pure: where the bytes come from and go to is
the caller's affair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import ArtifactRef, Sha256, read_sha256, sha256_of
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, check_schema, parse_json

SCHEMA: Final = 1
CHUNK_BYTES: Final = 256 * 1024
MAX_CHUNK_BYTES: Final = 4 << 20
MAX_INDEX_BYTES: Final = 16 << 20


class Encoding(StrEnum):
    """How a chunk is stored and sent. Readers skip encodings that they do not know; `raw` is always there."""

    RAW = "raw"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """One encoded form of a chunk, content-addressed by the digest of the encoded bytes."""

    encoding: Encoding
    sha256: Sha256
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """`size_bytes` bytes of the file from `offset` on, with digest `sha256` once decoded."""

    offset: int
    size_bytes: int
    sha256: Sha256
    stored: tuple[StoredChunk, ...]

    def best(self, known: Collection[Encoding]) -> StoredChunk:
        """The smallest form that the reader can decode; raises ContractError when there is none."""
        usable = [form for form in self.stored if form.encoding in known]
        if not usable:
            raise ContractError("stored", f"expected one of {sorted(known)}, got {[f.encoding for f in self.stored]}")
        return min(usable, key=lambda form: form.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkIndex:
    """The chunks of one artifact, in order and without gaps."""

    artifact: ArtifactRef
    chunks: tuple[Chunk, ...]

    @classmethod
    def parse(cls, data: bytes) -> ChunkIndex:
        """Raises ContractError: not an index, or chunks that do not tile the artifact exactly."""
        fields = parse_json(data, limit_bytes=MAX_INDEX_BYTES)
        check_schema(fields, SCHEMA)
        index = cls(
            artifact=ArtifactRef.read(fields.object("artifact")),
            chunks=tuple(_read_chunk(each) for each in fields.objects("chunks")),
        )
        position = 0
        for number, chunk in enumerate(index.chunks):
            if chunk.offset != position:
                raise ContractError(f"chunks[{number}].offset", f"expected {position}, got {chunk.offset}")
            position += chunk.size_bytes
        if position != index.artifact.size_bytes:
            raise ContractError("chunks", f"expected {index.artifact.size_bytes} bytes in all, got {position}")
        return index

    def canonical(self) -> bytes:
        return canonical_json(
            {
                "schema": SCHEMA,
                "artifact": self.artifact.document(),
                "chunks": [_chunk_document(chunk) for chunk in self.chunks],
            }
        )

    def missing(self, present: Collection[Sha256]) -> tuple[Chunk, ...]:
        """The chunks still to fetch, in file order; a digest that occurs twice is fetched once."""
        seen = set(present)
        wanted: list[Chunk] = []
        for chunk in self.chunks:
            if chunk.sha256 not in seen:
                seen.add(chunk.sha256)
                wanted.append(chunk)
        return tuple(wanted)


def raw_index(data: bytes, *, chunk_bytes: int = CHUNK_BYTES) -> ChunkIndex:
    """Cut `data` into equal chunks that are stored as they are."""
    chunks = tuple(_raw_chunk(offset, piece) for offset, piece in _pieces(data, chunk_bytes))
    return ChunkIndex(artifact=ArtifactRef(sha256=sha256_of(data), size_bytes=len(data)), chunks=chunks)


def present_bytes(index: ChunkIndex, present: Iterable[Sha256]) -> int:
    """How much of the artifact is here, for progress."""
    here = set(present)
    return sum(chunk.size_bytes for chunk in index.chunks if chunk.sha256 in here)


def _pieces(data: bytes, chunk_bytes: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, len(data), chunk_bytes):
        yield offset, data[offset : offset + chunk_bytes]


def _raw_chunk(offset: int, piece: bytes) -> Chunk:
    digest = sha256_of(piece)
    raw = StoredChunk(encoding=Encoding.RAW, sha256=digest, size_bytes=len(piece))
    return Chunk(offset=offset, size_bytes=len(piece), sha256=digest, stored=(raw,))


def _read_chunk(fields: Fields) -> Chunk:
    known = {encoding.value for encoding in Encoding}
    return Chunk(
        offset=fields.integer("offset", minimum=0),
        size_bytes=fields.integer("size_bytes", minimum=1, maximum=MAX_CHUNK_BYTES),
        sha256=read_sha256(fields, "sha256"),
        stored=tuple(
            _read_stored(each) for each in fields.objects("stored", max_items=16) if each.text("encoding") in known
        ),
    )


def _read_stored(fields: Fields) -> StoredChunk:
    return StoredChunk(
        encoding=fields.choice("encoding", Encoding),
        sha256=read_sha256(fields, "sha256"),
        size_bytes=fields.integer("size_bytes", minimum=1, maximum=MAX_CHUNK_BYTES),
    )


def _chunk_document(chunk: Chunk) -> JsonValue:
    stored: list[JsonValue] = [
        {"encoding": form.encoding.value, "sha256": form.sha256, "size_bytes": form.size_bytes} for form in chunk.stored
    ]
    return {"offset": chunk.offset, "size_bytes": chunk.size_bytes, "sha256": chunk.sha256, "stored": stored}
