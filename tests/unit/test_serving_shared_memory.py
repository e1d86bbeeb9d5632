"""Regions of shared memory: what may be registered, and what a client that changes its file can do to us."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeward_agent.serving.refusal import Refusal
from edgeward_agent.serving.shared_memory import FOLDER, FileRegion, NoRegions, RegionLimits, Regions

SMALL = RegionLimits(regions=3, region_bytes=1000)


@pytest.fixture
def regions(tmp_path: Path) -> Regions:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    return Regions(SMALL, folder=tmp_path)


@pytest.fixture
def region(regions: Regions) -> FileRegion:
    regions.register("r", key="/file", offset=100, size_bytes=100)
    return regions.find("r")


def _refused(status: int, words: str, call: Callable[[], object]) -> None:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.status == status
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def _open_files() -> int:
    gc.collect()  # tracebacks of earlier tests hold regions
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_folder_is_where_shm_open_looks() -> None:
    assert Path("/dev/shm") == FOLDER


def test_a_region_is_read_and_written_from_its_own_offset(region: FileRegion, tmp_path: Path) -> None:
    assert region.read(0, 3) == bytes([100, 101, 102])
    assert region.read(100, 0) == b""
    region.write(98, memoryview(b"ab"))
    assert (tmp_path / "file").read_bytes()[198:] == b"ab"
    assert (region.key, region.offset, region.size_bytes) == ("/file", 100, 100)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 101), (100, 1), (-1, 1), (0, -1), (1 << 63, 1), (1, 1 << 64), (50, 51)]
)
def test_nothing_is_read_or_written_outside(region: FileRegion, offset: int, size: int) -> None:
    words = "expected offset and byte size within the shared memory region's 100 bytes"
    _refused(400, words, lambda: region.read(offset, size))
    if 0 <= size < 1000:
        _refused(400, words, lambda: region.write(offset, b"x" * size))


def test_a_file_that_was_cut_short_costs_an_error_and_stays_as_it_is(region: FileRegion, tmp_path: Path) -> None:
    os.truncate(tmp_path / "file", 120)
    assert len(region.read(0, 20)) == 20
    _refused(400, "it has been cut short", lambda: region.read(0, 21))
    _refused(400, "it has been cut short", lambda: region.write(10, b"x" * 11))
    os.truncate(tmp_path / "file", 0)
    _refused(400, "it has been cut short", lambda: region.read(0, 1))
    _refused(400, "it has been cut short", lambda: region.write(0, b"x"))
    assert (tmp_path / "file").stat().st_size == 0


def test_a_region_outlives_its_name_for_as_long_as_a_request_holds_it(regions: Regions) -> None:
    before = _open_files()
    regions.register("r", key="file", offset=0, size_bytes=10)
    held = regions.find("r")
    regions.unregister("r")
    regions.unregister("r")
    _refused(404, "Unable to find shared memory region: 'r'", lambda: regions.find("r"))
    assert held.read(0, 2) == b"\0\1"
    assert _open_files() == before + 1
    del held
    assert _open_files() == before


def test_all_are_forgotten_at_once(regions: Regions) -> None:
    for name in ("a", "b", "c"):
        regions.register(name, key="file", offset=0, size_bytes=10)
    assert [name for name, _ in regions] == ["a", "b", "c"]
    _refused(400, "at most 3 shared memory regions", lambda: regions.register("d", key="file", offset=0, size_bytes=1))
    regions.clear()
    assert not list(regions)


KEYS = [
    "",
    "/",
    "..",
    "/..",
    ".",
    ".hidden",
    "a/b",
    "/a/b",
    "//file",
    "../file",
    "file\0",
    "fi le",
    "file\n",
    "é",
    "a" * 300,
]


@pytest.mark.parametrize("key", [*KEYS, "sem.lock", "/sem.lock"])
def test_a_key_is_one_plain_name(regions: Regions, key: str) -> None:
    before = _open_files()
    _refused(400, "expected a key such as '/images'", lambda: regions.register("r", key=key, offset=0, size_bytes=1))
    assert _open_files() == before


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "n" * 129])
def test_a_name_is_printable(regions: Regions, name: str) -> None:
    _refused(400, "expected a region's name", lambda: regions.register(name, key="file", offset=0, size_bytes=1))


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, -1), (-1, 10), (0, 1001), (0, 1 << 64)])
def test_a_region_has_a_size(regions: Regions, offset: int, size: int) -> None:
    words = "expected an offset from 0 and 1 to 1000 bytes"
    _refused(400, words, lambda: regions.register("r", key="file", offset=offset, size_bytes=size))


@pytest.mark.parametrize(("offset", "size"), [(0, 201), (200, 1), (1 << 70, 1)])
def test_a_region_lies_within_its_file(regions: Regions, offset: int, size: int) -> None:
    before = _open_files()
    words = "expected offset and size within the file's 200 bytes"
    _refused(400, words, lambda: regions.register("r", key="file", offset=offset, size_bytes=size))
    assert _open_files() == before


def test_a_name_is_taken_once(regions: Regions) -> None:
    regions.register("r", key="file", offset=0, size_bytes=1)
    words = "shared memory region 'r' already in manager"
    _refused(400, words, lambda: regions.register("r", key="file", offset=0, size_bytes=1))


def test_only_a_plain_file_under_the_folder_is_opened(regions: Regions, tmp_path: Path) -> None:
    outside = tmp_path / "folder" / "secret"
    outside.parent.mkdir()
    outside.write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "same").hardlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for key in ("link", "folder", "socket", "missing"):
            _not_registered(regions, key, "Unable to open shared memory region: 'r'")
    for key in ("same", "pipe"):
        _not_registered(regions, key, "expected a plain file with one name")


def _not_registered(regions: Regions, key: str, words: str) -> None:
    _refused(400, words, lambda: regions.register("r", key=key, offset=0, size_bytes=1))


def test_shared_memory_that_is_off_says_how_to_switch_it_on() -> None:
    off = NoRegions()
    assert not list(off)
    for call in (
        lambda: off.register("r", key="file", offset=0, size_bytes=1),
        lambda: off.find("r"),
        lambda: off.unregister("r"),
        off.clear,
    ):
        _refused(501, "shared memory is switched off here", call)
