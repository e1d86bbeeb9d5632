"""The values of tensors in JSON, and what is said of JSON that is none. Pure.

JSON has no word for NaN and infinities, yet Python's `json` and the rapidjson in `tritonclient` write them bare. A
body that has them is read a second time, with the words as strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Final

import msgspec

from edgeward_agent.serving.tensors import Buffer, Scalar, TensorError

_MAX_TEXT: Final = 120
_MAX_LENIENT_BYTES: Final = 256 << 10  # read with a regular expression, at about 10 ms for each MiB
_WORDS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_STRING_OR_WORD: Final = re.compile(rb'("(?:[^"\\]|\\.)*+")|-?Infinity\b|NaN\b')
_LISTS: Final[Mapping[str, type]] = {
    "b": list[bool],
    "i": list[int],
    "u": list[int],
    "f": list[float],
    "O": list[str],
}
_WITH_WORDS: Final[type] = list[float | str]
_FLAT: Final[Mapping[str, msgspec.json.Decoder[list[Scalar]]]] = {
    kind: msgspec.json.Decoder(each) for kind, each in _LISTS.items()
}


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
        return _numbers(_nested(_WITH_WORDS, data, rank))
    try:
        return _FLAT[kind].decode(data)
    except msgspec.ValidationError as error:
        problem = lower(error)
    try:
        return _nested(_LISTS[kind], data, rank)
    except TensorError:
        raise TensorError(f"data: {problem}") from None


def with_words(body: Buffer) -> bytes | None:
    """The body with NaN and infinities as strings; None when it has none, or is too long to look."""
    if len(body) > _MAX_LENIENT_BYTES:
        return None
    text, count = bytes(body), 0

    def quoted(match: re.Match[bytes]) -> bytes:
        nonlocal count
        if match.group(1) is not None:
            return match.group()
        count += 1
        return b'"' + match.group() + b'"'

    made = _STRING_OR_WORD.sub(quoted, text)
    return made if count else None


def json_problem(header: bytes, error: msgspec.DecodeError) -> str:
    """NaN and Infinity are what numpy users send by mistake: say that, instead of "malformed"."""
    position = str(error).rpartition("(byte ")[2].rstrip(")")
    if position.isdecimal():
        at = int(position)
        for word in ("NaN", "Infinity"):
            if header.startswith(word.encode(), at):
                return f"expected finite numbers in JSON, got {word} at byte {at}; send the tensor as binary data"
    return f"expected JSON, got: {lower(error)}"


def lower(error: Exception) -> str:
    """A message of msgspec as the end of a sentence."""
    text = str(error)[:_MAX_TEXT]
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _nested(kind: type, data: msgspec.Raw, rank: int) -> list[Scalar]:
    try:
        values: list[Scalar | list[Scalar]] = msgspec.json.decode(data, type=list)
        for _ in range(rank - 1):
            if not values or not all(isinstance(each, list) for each in values):
                break
            values = list(chain.from_iterable(each for each in values if isinstance(each, list)))
        flat: list[Scalar] = msgspec.convert(values, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise TensorError(f"data: {lower(error)}") from None
    return flat


def _numbers(values: list[Scalar]) -> list[Scalar]:
    try:
        return [_WORDS[each] if isinstance(each, str) else each for each in values]
    except KeyError as error:
        raise TensorError(f"data: expected `float`, got `str` {error}") from None
