"""The values of tensors in JSON, and what is said of JSON that is none. Pure.

JSON has no word for NaN and infinities, yet Python's `json` and the rapidjson in `tritonclient` write them bare. A
body that has them is read a second time, with an object in place of each that no caller can have written: what stands
among numbers is a number, and anywhere else it is refused, and never text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import msgspec

from edgeward_agent.wire.tensors import Buffer, Scalar, TensorError

_MAX_TEXT: Final = 120
_MISPLACED: Final = "expected NaN and Infinity among the numbers of FP32 and FP64 alone, got one elsewhere"
_MAX_LENIENT_BYTES: Final = 128 << 10  # read with a regular expression: 17 ms where every word is a match
_WORDS: Final = {b"NaN": float("nan"), b"Infinity": float("inf"), b"-Infinity": float("-inf")}
_VALUES: Final = tuple(_WORDS.values())
_KEY: Final = secrets.token_hex(4)
_BEGIN: Final = b'{"%b":' % _KEY.encode()
_STAND_INS: Final = {word: b"%b%d}" % (_BEGIN, place) for place, word in enumerate(_WORDS)}
# A string that never ends is matched to the end of the body: else each quote in it would be looked at as the beginning
# of one, each time to the end, and 40 KiB would stop everybody for five seconds.
_STRING_OR_WORD: Final = re.compile(rb'(?s)("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|-?Infinity\b|NaN\b')
_LONE_SURROGATE: Final = re.compile(rb"(?i)(?<!\\)(?:\\\\)*(\\ud[89ab][0-9a-f]{2})(?!\\u)")
_MAX_LISTS: Final = 16 << 10  # in each other: a list of one number costs ten times what the number does
_KINDS: Final[Mapping[str, Any]] = {"b": bool, "i": int, "u": int, "f": float, "O": str}
_MAX_RANK: Final = 64  # of numpy
_BLANK: Final = b" \t\r\n"
_OPEN: Final = ord("[")


class _Word(msgspec.Struct, rename={"place": _KEY}, gc=False):
    """What stands for a word: the place of its value among all. Any other object has none."""

    place: int = len(_VALUES)


_NUMBER_OR_WORD: Final = float | _Word


def json_elements(kind: str, data: msgspec.Raw, rank: int, *, literals: bool) -> list[Scalar]:
    """Values of a JSON tensor, flat. Nested lists are allowed by the protocol but rare: tried second.

    Args:
        kind: of the numpy type.
        rank: how deep the lists may lie in each other.
        literals: the body was made good by `with_words`.

    Raises:
        TensorError: a value that is not of the kind, or lists of another depth.
    """
    if literals and kind == "f":
        return _numbers(_nested(_NUMBER_OR_WORD, bytes(data), rank))
    if literals and _BEGIN in bytes(data):
        raise TensorError(f"data: {_MISPLACED}")
    try:
        return _decoder(_KINDS[kind], 1).decode(data)
    except msgspec.ValidationError as error:
        problem = lower(error)
    text = bytes(data)
    if _depth(text) > 1:
        return _nested(_KINDS[kind], text, rank)
    raise TensorError(f"data: {problem}")


def with_words(body: Buffer) -> tuple[bytes, int]:
    """The body as JSON, and how many words stand in it. None are found where it is too long to look."""
    if len(body) > _MAX_LENIENT_BYTES:
        return b"", 0
    count = 0

    def replaced(match: re.Match[bytes]) -> bytes:
        nonlocal count
        if match.group(1) is not None:
            return match.group()
        count += 1
        return _STAND_INS[match.group()]

    return _STRING_OR_WORD.sub(replaced, bytes(body)), count


def check_words(count: int, read: Iterable[msgspec.Raw]) -> None:
    """Hold the words of a body against those in the data that was read as numbers.

    Raises:
        TensorError: one stands elsewhere, where nobody has looked at it.
    """
    if count != sum(bytes(each).count(_BEGIN) for each in read):
        raise TensorError(_MISPLACED)


def json_problem(header: bytes, error: msgspec.DecodeError) -> str:
    """NaN and Infinity are what numpy users send by mistake: say that, instead of "malformed". And half of a pair that
    makes one character, as JavaScript cuts text, is for msgspec where the body ends.
    """
    position = str(error).rpartition("(byte ")[2].rstrip(")")
    if position.isdecimal():
        at = int(position)
        for word in ("NaN", "Infinity"):
            if header.startswith(word.encode(), at):
                return f"expected finite numbers in JSON, got {word} at byte {at}; send the tensor as binary data"
    text = lower(error)
    half = _LONE_SURROGATE.search(header) if "truncated" in text or "end of hex escape" in text else None
    if half is not None:
        return f"expected surrogates of text in pairs, got {half.group(1).decode()} alone at byte {half.start(1)}"
    return f"expected JSON, got: {text}"


def lower(error: Exception) -> str:
    """A message of msgspec as the end of a sentence."""
    text = str(error)[:_MAX_TEXT]
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _nested(kind: object, text: bytes, rank: int) -> list[Scalar]:
    """As deep as it begins, and no deeper than the tensor is."""
    lists = text.count(b"[")
    if lists > _MAX_LISTS:
        raise TensorError(f"data: expected at most {_MAX_LISTS} lists in each other, got {lists}: send it flat")
    depth = max(1, min(_depth(text), rank))
    if depth > _MAX_RANK:
        raise TensorError(f"data: expected lists of at most {_MAX_RANK} levels, got {depth}")
    try:
        values: list[Any] = _decoder(kind, depth).decode(text)
    except (msgspec.ValidationError, RecursionError) as error:
        raise TensorError(f"data: {lower(error).replace(' | object', '')}") from None
    for _ in range(depth - 1):
        values = list(chain.from_iterable(values))
    return values


def _depth(text: bytes) -> int:
    """How many lists it begins with."""
    depth = at = 0
    while at < len(text) and (text[at] in _BLANK or text[at] == _OPEN):
        depth += text[at] == _OPEN
        at += 1
    return depth


@lru_cache(maxsize=64)
def _decoder(kind: object, depth: int) -> msgspec.json.Decoder[list[Any]]:
    wanted: Any = kind
    for _ in range(depth):
        wanted = list[wanted]
    return msgspec.json.Decoder(wanted)


def _numbers(values: list[Any]) -> list[Scalar]:
    try:
        return [each if type(each) is float else _VALUES[each.place] for each in values]
    except IndexError:
        raise TensorError("data: expected `float`, got `object`") from None
