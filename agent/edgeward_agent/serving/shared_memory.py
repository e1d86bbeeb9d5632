"""Memory that clients share with us: inputs are read from it and outputs written to it, beside the request.

Source: Triton's system shared memory extension. A client makes a file under /dev/shm, registers it by name, and names
region, offset and size instead of sending bytes. Off by default: whoever may ask could name a file of another program.

These files stay the client's: it can cut one short while we look at it, and touching a page that is gone would end
the process (SIGBUS). So nothing is mapped here: a region is read and written through its descriptor, and a file that
turns out too short costs one request an error.
"""

from __future__ import annotations

import os
import re
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edgeward_agent.serving.refusal import Refusal, invalid, not_found, unsupported
from edgeward_agent.wire.tensors import Buffer

FOLDER: Final = Path("/dev/shm")  # noqa: S108 — shm_open(3) on Linux
MAX_REGIONS: Final = 64
MAX_REGION_BYTES: Final = 256 << 20
_MAX_NAME: Final = 128
# What shm_open takes: no second separator, so no way out of the folder. `sem.` are semaphores of the C library.
_KEY: Final = re.compile(r"/?(?!\.|sem\.)[A-Za-z0-9._-]{1,250}")
_NAME: Final = re.compile(rf"[\x21-\x7e]{{1,{_MAX_NAME}}}")
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Region(Protocol):
    """A stretch of memory that a client shares. Callable from any thread; whoever holds one may use it.

    What `read` returns must stay as it was: a client that could change a tensor after its checks would decide what
    the runtime reads. An implementation over a mapping therefore copies too, unless the file is sealed for writing.
    """

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, size: int) -> Buffer:
        """A copy of `size` bytes.

        Raises:
            Refusal: 400, they are not (or no longer) there.
        """

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data` there, whole.

        Raises:
            Refusal: 400, it does not (or no longer) fit.
        """


def check_span(region: Region, offset: int, size: int) -> None:
    """Raises Refusal unless `size` bytes from `offset` lie within the region. Whole numbers do not overflow here."""
    if offset < 0 or size < 0 or offset + size > region.size_bytes:
        raise invalid(
            f"expected offset and byte size within the shared memory region's {region.size_bytes} bytes,"
            f" got {offset} and {size}"
        )


class FileRegion:
    """A part of a file under /dev/shm.

    The descriptor is closed when nobody refers to the region any more, not when it is unregistered: a request on its
    way must never read from a number that another file has taken meanwhile.
    """

    __slots__ = ("__weakref__", "_base", "_fd", "key", "size_bytes")

    def __init__(self, fd: int, *, key: str, base: int, size_bytes: int) -> None:
        self._fd = fd
        self._base = base
        self.key = key
        self.size_bytes = size_bytes
        weakref.finalize(self, os.close, fd).atexit = False

    @property
    def offset(self) -> int:
        """Where in the file the region begins."""
        return self._base

    def read(self, offset: int, size: int) -> bytes:
        check_span(self, offset, size)
        try:
            data = os.pread(self._fd, size, self._base + offset)
        except OSError as error:
            raise self._failed("read", error) from None
        if len(data) != size:
            raise self._cut()
        return data

    def write(self, offset: int, data: Buffer) -> None:
        check_span(self, offset, len(data))
        # Beyond the end a write would make the file longer again: the client cut it, it shall hear of it.
        if os.fstat(self._fd).st_size < self._base + offset + len(data):
            raise self._cut()
        try:
            written = os.pwrite(self._fd, data, self._base + offset)
        except OSError as error:
            raise self._failed("written", error) from None
        if written != len(data):
            raise self._cut()

    def _cut(self) -> Refusal:
        return invalid(f"expected shared memory '{self.key}' as long as it was registered, it has been cut short")

    def _failed(self, done: str, error: OSError) -> Refusal:
        return invalid(f"expected shared memory '{self.key}' to be {done}, got: {error.strerror}")


class RegionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What all clients together may register."""

    regions: int = MAX_REGIONS
    region_bytes: int = MAX_REGION_BYTES


class Regions:
    """Regions by the names that clients gave them. Registered and looked up on the loop's thread."""

    def __init__(self, limits: RegionLimits | None = None, *, folder: Path = FOLDER) -> None:
        self._limits = limits or RegionLimits()
        self._folder = folder
        self._named: dict[str, FileRegion] = {}

    def __iter__(self) -> Iterator[tuple[str, FileRegion]]:
        return iter(self._named.items())

    def find(self, name: str) -> FileRegion:
        """Raises Refusal 404 for a name that is not registered."""
        try:
            return self._named[name]
        except KeyError:
            raise not_found(f"Unable to find shared memory region: '{name[:_MAX_NAME]}'") from None

    def register(self, name: str, *, key: str, offset: int, size_bytes: int) -> None:
        """Open the file that `key` names and keep a part of it as a region.

        Raises:
            Refusal: 400, and what is wrong with name, key, offset or size; nothing is registered then.
        """
        self._check_name(name)
        if not _KEY.fullmatch(key):
            raise invalid(f"shared memory region '{name}': expected a key such as '/images', got {key[:_MAX_NAME]!r}")
        if not 0 < size_bytes <= self._limits.region_bytes or offset < 0:
            raise invalid(
                f"shared memory region '{name}': expected an offset from 0 and 1 to {self._limits.region_bytes} bytes,"
                f" got offset {offset} and {size_bytes}"
            )
        fd = self._open(name, key.removeprefix("/"))
        try:
            _check_file(name, os.fstat(fd), offset + size_bytes)
        except BaseException:
            os.close(fd)
            raise
        self._named[name] = FileRegion(fd, key=key, base=offset, size_bytes=size_bytes)

    def unregister(self, name: str) -> None:
        """Forget a region. Idempotent; requests on their way keep what they found."""
        self._named.pop(name, None)

    def clear(self) -> None:
        self._named.clear()

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise invalid(f"expected a region's name of 1 to {_MAX_NAME} printable characters, got {name[:40]!r}")
        if name in self._named:
            raise invalid(f"shared memory region '{name}' already in manager: expected it to be unregistered first")
        if len(self._named) >= self._limits.regions:
            raise invalid(f"expected at most {self._limits.regions} shared memory regions, all are taken")

    def _open(self, name: str, file: str) -> int:
        try:
            return os.open(self._folder / file, _OPEN)
        except OSError as error:
            raise invalid(f"Unable to open shared memory region: '{name}' ({file}): {error.strerror}") from None


class NoRegions:
    """Shared memory that is switched off. There are no regions, and none can be made."""

    def __iter__(self) -> Iterator[tuple[str, FileRegion]]:
        return iter(())

    def find(self, name: str) -> FileRegion:
        raise _off()

    def register(self, name: str, *, key: str, offset: int, size_bytes: int) -> None:
        raise _off()

    def unregister(self, name: str) -> None:
        raise _off()

    def clear(self) -> None:
        raise _off()


def _off() -> Refusal:
    return unsupported("shared memory is switched off here: set serving.shared_memory, or `serve --shared-memory`")


def _check_file(name: str, found: os.stat_result, needed: int) -> None:
    """A second hard link would be a file that has another name elsewhere, perhaps outside."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise invalid(f"shared memory region '{name}': expected a plain file with one name, got another thing")
    if needed > found.st_size:
        raise invalid(
            f"shared memory region '{name}': expected offset and size within the file's {found.st_size} bytes,"
            f" got an end at {needed}"
        )
