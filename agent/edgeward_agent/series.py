"""Records that differ in their time and their numbers alone, on the way between the two processes of a device.

To write each as a document took the serving process longer than the model that it was about. So it packs numbers, and
the control process, where nobody waits, makes the documents. Needs no numpy: the control process has none.

A row is, little-endian: Unix time in µs (8 bytes), latency in µs (4), then the elements of each tensor.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from edgeward_contract.manifest import Datatype
from edgeward_contract.record import RecordClass
from edgeward_contract.schema import ContractError, Fields, JsonValue

LISTED_ELEMENTS: Final = 256
"""A longer tensor is told as base64 of its bytes."""
READS_SERIES: Final = "series"
"""What a control process says first that reads them. One that is older says nothing, and gets each record by itself."""
ROW_HEAD: Final = struct.Struct("<qI")
MAX_LATENCY_US: Final = (1 << 32) - 1
SIDES: Final = ("inputs", "outputs")
_KIND: Final = {"kind": "inference", "class": RecordClass.RESULT.value}
_MAX_ELEMENTS: Final = 1 << 20
_MAX_COLUMNS: Final = 1024
_CODES: Final = {
    Datatype.BOOL: "?",
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
    Datatype.FP16: "e",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}
_SIZES: Final = {datatype: struct.calcsize(f"<{code}") for datatype, code in _CODES.items()}
DATATYPES: Final = frozenset(_CODES)
"""Whose elements are as many bytes each time."""


class Column(msgspec.Struct, frozen=True):
    """One tensor of every row; `side` is one of SIDES."""

    side: str
    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def listed(self) -> bool:
        return self.count <= LISTED_ELEMENTS

    @property
    def code(self) -> str:
        """Of the elements of a list, or of all bytes as one."""
        return f"{self.count}{_CODES[self.datatype]}" if self.listed else f"{self.count * _SIZES[self.datatype]}s"

    def tell(self, elements: Sequence[bool | float | bytes]) -> dict[str, JsonValue]:
        """The tensor as a record has it, of what `code` unpacks."""
        shape: list[JsonValue] = list(self.shape)
        told: dict[str, JsonValue] = {"datatype": self.datatype.value, "shape": shape}
        if self.listed:
            numbers = cast("Sequence[float]", elements)
            told["data"] = [None if _unsayable(each) else each for each in numbers]
        else:
            told["raw"] = base64.b64encode(b"".join(cast("Sequence[bytes]", elements))).decode()
        return told

    def document(self) -> dict[str, JsonValue]:
        shape: list[JsonValue] = list(self.shape)
        return {"side": self.side, "name": self.name, "datatype": self.datatype.value, "shape": shape}

    @classmethod
    def parse(cls, fields: Fields) -> Column:
        column = cls(
            side=fields.text("side"),
            name=fields.text("name", max_length=1 << 16),
            datatype=fields.choice("datatype", Datatype),
            shape=fields.integers("shape", minimum=0),
        )
        if column.side not in SIDES or column.datatype not in DATATYPES or column.count > _MAX_ELEMENTS:
            raise ContractError(fields.path, f"expected a tensor of numbers on one side, got {column}")
        return column


class Series:
    """What records have in common: `body` is that of each but for its latency and its tensors."""

    __slots__ = ("_head", "_row", "body", "columns")

    def __init__(self, body: Mapping[str, JsonValue], columns: Sequence[Column]) -> None:
        self.body = body
        self.columns = tuple(columns)
        self._row = struct.Struct(ROW_HEAD.format + "".join(each.code for each in columns))
        common: dict[str, JsonValue] = {
            **_KIND,
            "body": dict(body),
            "columns": [each.document() for each in columns],
        }
        self._head = json.dumps(common, separators=(",", ":")).encode()[:-1] + b',"series":"'

    @property
    def row_bytes(self) -> int:
        return self._row.size

    def frame(self, rows: Sequence[bytes]) -> bytes:
        """The frame for the control process, without its length."""
        return b'%b%b"}' % (self._head, base64.b64encode(b"".join(rows)))

    @classmethod
    def parse(cls, fields: Fields) -> Series:
        """Raises ContractError, which names the key."""
        columns = fields.objects("columns", max_items=_MAX_COLUMNS)
        return cls(fields.object("body").members(), [Column.parse(each) for each in columns])

    def alone(self, row: bytes) -> bytes:
        """The frame of one record by itself, for a control process that does not read series."""
        wall_us, body = next(self._records(row))
        said = {"id": 0, "durable": False, **_KIND, "wall_us": wall_us, "body": body}
        return json.dumps(said, separators=(",", ":")).encode()

    def records(self, data: str) -> Iterator[tuple[int, dict[str, JsonValue]]]:
        """Time and body of each record in the text of `frame`.

        Raises:
            ContractError: it is not whole rows.
        """
        try:
            return self._records(base64.b64decode(data, validate=True))
        except (ValueError, struct.error) as error:
            raise ContractError("series", f"expected rows of {self.row_bytes} bytes in base64, got: {error}") from None

    def _records(self, rows: bytes) -> Iterator[tuple[int, dict[str, JsonValue]]]:
        return map(self._record, self._row.iter_unpack(rows))

    def _record(self, row: tuple[Any, ...]) -> tuple[int, dict[str, JsonValue]]:
        wall_us, latency_us, *elements = row
        if wall_us < 0:
            raise ContractError("series", f"expected Unix time, got {wall_us} µs")
        return wall_us, {**self.body, "latency_us": latency_us, **self._tensors(elements)}

    def _tensors(self, elements: Sequence[bool | float | bytes]) -> dict[str, JsonValue]:
        sides: dict[str, dict[str, JsonValue]] = {}
        at = 0
        for each in self.columns:
            end = at + (each.count if each.listed else 1)
            sides.setdefault(each.side, {})[each.name] = each.tell(elements[at:end])
            at = end
        return dict(sides)


def _unsayable(value: object) -> bool:
    """JSON has no NaN and no infinity."""
    return isinstance(value, float) and not math.isfinite(value)
