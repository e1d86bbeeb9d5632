"""How every document on the wire is read and written, and when two versions understand each other.

The wire version rule: each document carries `schema`, a whole number. A reader takes the numbers that it
knows and ignores keys that it does not know, so an optional key may be added without a new number; a key
that changes its meaning, or a new key that a reader must not ignore, needs a new number.

Documents are read by hand-written code over `Fields` rather than by a library, because this package may
have no dependency: the base install of a bedside application carries it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

MAX_DOCUMENT_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 32
_MAX_INT: Final = (1 << 63) - 1
_SHOWN: Final = 60  # characters of what somebody else wrote


class ContractError(ValueError):
    """A document does not say what the contract asks for. `path` names the place, as in `inputs[0].shape`."""

    hint = "Compare the document with docs/spec; the writer and the reader may be of different versions."

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'document'}: {problem}")
        self.path = path
        self.problem = problem


def canonical_json(document: Mapping[str, JsonValue]) -> bytes:
    """One document, one byte string: sorted keys, no spaces, UTF-8, no NaN. What digests are made of."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def parse_json(data: bytes, *, limit_bytes: int = MAX_DOCUMENT_BYTES) -> Fields:
    """Read one JSON object.

    Raises:
        ContractError: too large, not UTF-8, not JSON, not an object, a key twice, too deep, or a value that could not
            be written again: NaN, Infinity, a number beyond a double, half a surrogate pair.
    """
    if len(data) > limit_bytes:
        raise ContractError("", f"expected at most {limit_bytes} bytes, got {len(data)}")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ContractError("", f"expected at most {_MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise ContractError("", f"expected UTF-8, got byte {data[error.start]:#04x} at {error.start}") from None
    except ContractError:
        raise
    except ValueError as error:  # also a whole number of thousands of digits
        raise ContractError("", f"expected JSON, got: {error}") from None
    _check(value, 0)
    return Fields.of(value, "")


def check_schema(fields: Fields, known: int) -> None:
    """Refuse a document of a number that this reader does not know."""
    found = fields.integer("schema", minimum=1)
    if found > known:
        raise ContractError(fields.at("schema"), f"expected at most {known}, got {found}: update this side first")


class Fields:
    """A JSON object whose members are taken out by name and checked; every complaint names the path."""

    __slots__ = ("_members", "path")

    def __init__(self, members: Mapping[str, JsonValue], path: str) -> None:
        self._members = members
        self.path = path

    @classmethod
    def of(cls, value: object, path: str) -> Fields:
        if not isinstance(value, dict):
            raise ContractError(path, f"expected an object, got {_kind(value)}")
        return cls(value, path)

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return self._members.get(key) is not None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def text(self, key: str, *, default: str | None = None, max_length: int = 900) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            self._fail(key, "a string", value)
        if len(value) > max_length:
            raise ContractError(self.at(key), f"expected at most {max_length} characters, got {len(value)}")
        if "\0" in value:  # PostgreSQL has no column for it: one record would hold up all behind it
            raise ContractError(self.at(key), f"expected text without NUL, got {_kind(value)}")
        return value

    def integer(
        self, key: str, *, default: int | None = None, minimum: int = -_MAX_INT - 1, maximum: int = _MAX_INT
    ) -> int:
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self._fail(key, "a whole number", value)
        if not minimum <= value <= maximum:
            raise ContractError(self.at(key), f"expected {minimum} to {maximum}, got {value}")
        return value

    def number(self, key: str, *, default: float | None = None, minimum: float = -math.inf) -> float:
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            self._fail(key, "a finite number", value)
        if value < minimum:
            raise ContractError(self.at(key), f"expected at least {minimum}, got {value}")
        return float(value)

    def boolean(self, key: str, *, default: bool | None = None) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            self._fail(key, "true or false", value)
        return value

    def choice(self, key: str, kind: type[E], *, default: E | None = None) -> E:
        value = self._get(key, default)
        try:
            return kind(str(value))
        except ValueError:
            self._fail(key, "one of " + ", ".join(member.value for member in kind), value)

    def object(self, key: str) -> Fields:
        return Fields.of(self._get(key, None), self.at(key))

    def objects(self, key: str, *, max_items: int = 100_000) -> tuple[Fields, ...]:
        items = self._list(key, max_items)
        return tuple(Fields.of(item, f"{self.at(key)}[{index}]") for index, item in enumerate(items))

    def texts(self, key: str, *, max_items: int = 10_000) -> tuple[str, ...]:
        items = self._list(key, max_items) if self.has(key) else []
        for index, item in enumerate(items):
            if not isinstance(item, str):
                raise ContractError(f"{self.at(key)}[{index}]", f"expected a string, got {_kind(item)}")
        return tuple(str(item) for item in items)

    def integers(self, key: str, *, minimum: int, max_items: int = 64) -> tuple[int, ...]:
        items = self._list(key, max_items)
        for index, item in enumerate(items):
            if not isinstance(item, int) or isinstance(item, bool) or not minimum <= item <= _MAX_INT:
                raise ContractError(f"{self.at(key)}[{index}]", f"expected a whole number ≥ {minimum}, got {item!r}")
        return tuple(int(item) for item in items if isinstance(item, int))

    def mapping(self, key: str, read: Callable[[Fields], T]) -> dict[str, T]:
        """An object whose keys are names and whose values are objects that `read` understands."""
        inner = self.object(key)
        return {name: read(inner.object(name)) for name in inner.names}

    def raw(self, key: str) -> JsonValue:
        return self._members.get(key)

    def members(self) -> dict[str, JsonValue]:
        return dict(self._members)

    def _get(self, key: str, default: JsonValue) -> JsonValue:
        value = self._members.get(key)
        if value is None:
            if default is None:
                raise ContractError(self.at(key), "expected a value, got nothing")
            return default
        return value

    def _list(self, key: str, max_items: int) -> list[JsonValue]:
        value = self._get(key, None)
        if not isinstance(value, list):
            self._fail(key, "a list", value)
        if len(value) > max_items:
            raise ContractError(self.at(key), f"expected at most {max_items} items, got {len(value)}")
        return value

    def _fail(self, key: str, expected: str, value: JsonValue) -> NoReturn:
        raise ContractError(self.at(key), f"expected {expected}, got {_kind(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        _check_text(twice)  # it stands in the complaint, which has to be written, too
        raise ContractError(twice[:_SHOWN], "expected each key once, got it twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ContractError("", f"expected JSON numbers, got {name}")


def _check(value: JsonValue, depth: int) -> None:
    """What is read can be written again: digests are made of documents that somebody else sent."""
    if depth > _MAX_DEPTH:
        raise ContractError("", f"expected at most {_MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= sys.float_info.max:  # of NaN it is false, too
        raise ContractError("", "expected numbers that fit a double, got one beyond 1.8e308")


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"\\u{ord(text[error.start]):04x}"
        raise ContractError("", f"expected whole characters, got half a surrogate pair: {found}") from None
