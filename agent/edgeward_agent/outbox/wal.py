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

    The last transaction may be a write that was cut short, and then nobody was told that it is safe: a frame's head is
    written before its page, over what an older generation left there. It is damage when a commit lies behind it, for
    that one was begun after the last had reached the disk, or when a single bit explains it. A whole block of the very
    last transaction that went bad cannot be told from a write cut short.
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
        content = data[start : start + 8] + frame.page
        computed = checksum(sums, content, order)
        if frame.salts != salts or frame.sums != computed:
            return _judge([frame, *rest], salts, flipped=_is_one_bit_off(frame, salts, computed, len(content), order))
        sums = computed
    return None


def _judge(tail: list[Frame], salts: Salts, *, flipped: bool) -> Damage | None:
    """The chain ends at `tail[0]`: by design, by a torn write, or by damage?"""
    commits = sum(frame.commits for frame in tail if _akin(frame.salts, salts))
    if commits == 0 or (commits == 1 and not flipped):
        return None
    return Damage(
        offset=tail[0].offset, problem="expected the chain of checksums to hold, but a later commit is cut off"
    )


def _is_one_bit_off(frame: Frame, salts: Salts, computed: Sums, size: int, order: str) -> bool:
    """Whether one flipped bit makes the frame what it is: in its salts, in its checksums, or in what they are over."""
    said = sum(_bits(found, wanted) for found, wanted in zip(frame.salts + frame.sums, salts + computed, strict=True))
    return said == 1 or (frame.salts == salts and _explains_one_bit(frame.sums, computed, size // 8))


def _explains_one_bit(sums: Sums, computed: Sums, pairs: int) -> bool:
    """The checksum is linear: a word that is larger by d moves the sums by d times what depends on its place alone."""
    first, second = (sums[0] - computed[0]) & _MASK, (sums[1] - computed[1]) & _MASK
    deltas = [sign << bit for bit in range(32) for sign in (1, -1)]
    even, odd = (1, 1), (0, 1)
    for _ in range(pairs):
        for on_first, on_second in (even, odd):
            if any(on_first * delta & _MASK == first and on_second * delta & _MASK == second for delta in deltas):
                return True
        even, odd = _carried(even), _carried(odd)
    return False


def _carried(sums: Sums) -> Sums:
    """Through one more pair of words."""
    first = (sums[0] + sums[1]) & _MASK
    return first, (sums[1] + first) & _MASK


def _bits(found: int, wanted: int) -> int:
    return (found ^ wanted).bit_count()


def _akin(found: Salts, salts: Salts) -> bool:
    """Of this generation. One equal half is enough: a restart changes both, a flipped bit only one."""
    return found[0] == salts[0] or found[1] == salts[1]
