"""Look through a write-ahead log before SQLite does.

SQLite stops at the first frame whose checksum is wrong and says nothing: right for a write that power loss cut short,
and fatal when a bit flipped in the middle, because every later commit is then gone and `integrity_check` says ok.
The format is that of https://sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = (0x377F0682, 0x377F0683)  # the last bit says that checksums read big-endian words
_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MASK: Final = 0xFFFFFFFF

Salts = tuple[int, int]
Sums = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One page as a commit left it. `commit_pages` is the database's size in pages on the last frame of a commit."""

    page_number: int
    commit_pages: int
    salts: Salts
    sums: Sums
    offset: int
    page: bytes

    @property
    def commits(self) -> bool:
        return self.commit_pages != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Where the chain of checksums breaks although a later commit is there."""

    offset: int
    problem: str


def find_damage(data: bytes, page_bytes: int) -> Damage | None:
    """None when SQLite will see every commit that was finished.

    A broken frame without a commit behind it is a write that was cut short; nobody was told that it is safe.
    """
    if not data.strip(b"\0"):
        return None  # no frame was ever written: an extent that the file system had only reserved
    if len(data) < HEADER_BYTES + FRAME_HEADER_BYTES + page_bytes:
        return None
    header = _HEADER.unpack_from(data)
    order = "big" if header[0] & 1 else "little"
    sums = checksum((0, 0), data[:24], order)
    if header[0] not in _MAGIC or header[2] != page_bytes or sums != header[6:8]:
        return Damage(offset=0, problem="expected the header of a write-ahead log, got a damaged one")
    return _walk(data, page_bytes, (header[4], header[5]), sums, order)


def frames(data: bytes, page_bytes: int) -> Iterator[Frame]:
    """Every whole frame in the file, sound or not."""
    step = FRAME_HEADER_BYTES + page_bytes
    for offset in range(HEADER_BYTES, len(data) - step + 1, step):
        number, commit_pages, salt1, salt2, sum1, sum2 = _FRAME.unpack_from(data, offset)
        page = data[offset + FRAME_HEADER_BYTES : offset + step]
        yield Frame(
            page_number=number,
            commit_pages=commit_pages,
            salts=(salt1, salt2),
            sums=(sum1, sum2),
            offset=offset,
            page=page,
        )


def likely_frames(data: bytes, page_bytes: int) -> Iterator[Frame]:
    """The frames of this generation up to its last commit, whatever their checksums say: for salvage."""
    here = list(frames(data, page_bytes))
    if not here:
        return
    # The first frame is of the newest generation: a log that starts again overwrites it first.
    candidates = {here[0].salts}
    if len(data) >= HEADER_BYTES:
        header = _HEADER.unpack_from(data)
        candidates.add((header[4], header[5]))
    current = [frame for frame in here if any(_akin(frame.salts, salts) for salts in candidates)]
    last = max((index for index, frame in enumerate(current) if frame.commits), default=-1)
    yield from current[: last + 1]


def checksum(sums: Sums, data: bytes, order: str) -> Sums:
    """Section 4.2 of the file format: over pairs of 32-bit words."""
    first, second = sums
    words = struct.unpack(f"{'>' if order == 'big' else '<'}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def _walk(data: bytes, page_bytes: int, salts: Salts, sums: Sums, order: str) -> Damage | None:
    rest = iter(frames(data, page_bytes))
    for frame in rest:
        start = frame.offset
        sums = checksum(sums, data[start : start + 8] + frame.page, order)
        if frame.salts != salts or frame.sums != sums:
            return _judge([frame, *rest], salts)
    return None


def _judge(tail: list[Frame], salts: Salts) -> Damage | None:
    """The chain ends at `tail[0]`: by design, by a torn write, or by damage?"""
    current = [frame for frame in tail if _akin(frame.salts, salts)]
    if not any(frame.commits for frame in current):
        return None
    return Damage(
        offset=tail[0].offset, problem="expected the chain of checksums to hold, but a later commit is cut off"
    )


def _akin(found: Salts, salts: Salts) -> bool:
    """Of this generation. One equal half is enough: a restart changes both, a flipped bit only one."""
    return found[0] == salts[0] or found[1] == salts[1]
