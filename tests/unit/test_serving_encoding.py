"""Compressed bodies: what is read, what is refused before it takes memory, and who gets a compressed answer."""

from __future__ import annotations

import gc
import gzip
import tracemalloc
import weakref
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.codec import _rest
from edgeward_agent.serving.encoding import Inflater, check_encoding, chosen, pack
from edgeward_agent.serving.refusal import Refusal

_PACKED: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"deflate": zlib.compress}


def _inflate(encoding: bytes, body: bytes, *, limit: int = 1 << 20, first: int = 100) -> bytes:
    inflater = Inflater(encoding, body, limit_bytes=limit)
    whole = inflater.start(first)
    return inflater.rest() if whole is None else whole


@pytest.mark.parametrize("encoding", _PACKED)
@given(body=st.binary(max_size=3000), first=st.integers(1, 4000))
def test_bodies_survive_a_round_trip(encoding: bytes, body: bytes, first: int) -> None:
    assert _inflate(encoding, _PACKED[encoding](body), first=first, limit=3000) == body
    (packed,) = pack(encoding, [body[:7], memoryview(body)[7:]])
    assert _inflate(encoding, bytes(packed)) == body


@pytest.mark.parametrize("encoding", _PACKED)
@pytest.mark.parametrize("first", [1, 999, 1000, 1001, 5000])
def test_the_limit_is_for_what_comes_out(encoding: bytes, first: int) -> None:
    assert len(_inflate(encoding, _PACKED[encoding](bytes(1000)), limit=1000, first=first)) == 1000
    with pytest.raises(Refusal, match="expected a body of at most 1000 bytes when decompressed") as caught:
        _inflate(encoding, _PACKED[encoding](bytes(1001)), limit=1000, first=first)
    assert caught.value.status == 413


@pytest.mark.parametrize("encoding", _PACKED)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda body: b"nonsense", "got another thing"),
        (lambda body: body[:-1], "got one that is cut off"),
        (lambda body: body[: len(body) // 2], "got one that is cut off"),
        (lambda body: body + b"x", "got more behind its end"),
        (lambda body: body + body, "got more behind its end"),
        (lambda body: body[:20] + bytes([body[20] ^ 0xFF]) + body[21:], "got another thing"),
    ],
    ids=["nonsense", "cut", "half", "more", "twice", "flipped"],
)
def test_what_is_no_whole_stream_is_refused(encoding: bytes, spoil: object, words: str) -> None:
    assert callable(spoil)
    packed = spoil(_PACKED[encoding](bytes(range(256)) * 4))
    for first in (10, 1 << 16):
        with pytest.raises(Refusal, match=f"(?s)expected .* in {encoding.decode()}, {words}") as caught:
            _inflate(encoding, packed, first=first)
        assert caught.value.status == 400


def test_a_refused_bomb_leaves_nothing_behind() -> None:
    """Its traceback would keep what was inflated until the collector comes by, which counts objects and not bytes."""
    inflater = Inflater(b"gzip", gzip.compress(bytes(4 << 20)), limit_bytes=1 << 20)
    assert inflater.start(1 << 16) is None
    gone = weakref.ref(inflater)
    gc.disable()
    try:
        refusal = _rest(inflater)
        del inflater
        assert gone() is None
    finally:
        gc.enable()
    assert isinstance(refusal, Refusal) and refusal.status == 413


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(squeeze.compress(bytes(1 << 20)) for _ in range(256)), squeeze.flush()])
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="when decompressed"):
            _inflate(b"gzip", bomb, limit=1 << 20, first=1 << 16)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_which_encodings_are_read() -> None:
    assert check_encoding(b"gzip") == b"gzip"
    assert check_encoding(b" Deflate ") == b"deflate"
    assert check_encoding(b"identity") is None
    assert check_encoding(b"") is None
    for other in (b"br", b"gzip, gzip", b"\xff" * 1000):
        with pytest.raises(Refusal, match="expected Content-Encoding gzip or deflate, got") as caught:
            check_encoding(other)
        assert caught.value.status == 415
        assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"GZIP;q=0.5", b"gzip"),
        (b"gzip;q=0", None),
        (b"gzip, deflate", None),
        (b"gzip, deflate, br", None),
        (b"br", None),
        (b"*", None),
        (b"", None),
        (b",,;;==", None),
        (b"gzip;q=x", None),
        (b"identity", None),
        (b"gzip, identity;q=0", b"gzip"),
        (b"gzip;q=0.5, deflate;q=0.9, *;q=0", b"deflate"),
        (b"br, identity;q=0", None),
    ],
)
def test_who_gets_a_compressed_answer(accepted: bytes, encoding: bytes | None) -> None:
    assert chosen(accepted) == encoding
    assert chosen(accepted) == encoding  # remembered


@given(st.binary(max_size=60))
def test_any_list_of_encodings_can_be_read(accepted: bytes) -> None:
    assert chosen(accepted) in (None, b"gzip", b"deflate")
