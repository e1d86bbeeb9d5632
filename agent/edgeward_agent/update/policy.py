"""Which ONNX files a device takes at all, decided before the runtime sees them.

Neither `onnx.checker` nor ONNX Runtime alone stops a hostile model: the runtime follows external data out of the
release folder, the checker passes custom operator domains. So the device walks the file itself, without the onnx
package, and refuses what it does not need: tensors that lie in other files, operators that do not come with
the runtime, and shapes of files that only an attack has.

It is a walk over protobuf's wire format (protobuf.dev/programming-guides/encoding), with field numbers from onnx.proto
(IR version 13). It decides about the few fields named below and reads past all others; whether the rest of the file
makes sense is for the runtime to say, in a process that may die of it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeward_agent.errors import UpdateError

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""The last one ships inside ONNX Runtime; its quantisation tools write it."""
FORBIDDEN_OPERATORS: Final = frozenset({"EPContext"})  # names a compiled blob in another file
MAX_GRAPH_DEPTH: Final = 16
MAX_NODES: Final = 200_000
MAX_FIELDS: Final = 4_000_000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_EXTERNAL: Final = 1


class PolicyRefusal(UpdateError):
    """The file is not one that this device runs."""

    reason = "policy"
    hint = "Export the model as one self-contained ONNX file with standard operators."


@dataclass(slots=True)
class Walk:
    """What has been seen of one file. `budget` bounds the work that a small hostile file can ask for."""

    used: set[tuple[str, str]] = field(default_factory=set)
    defined: set[tuple[str, str]] = field(default_factory=set)
    nodes: int = 0
    budget: int = field(default_factory=lambda: MAX_FIELDS)

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """(number, value, bytes) of each field: bytes for length-delimited ones, the value for varints."""
        at = 0
        while at < len(message):
            self.budget -= 1
            if self.budget < 0:
                raise PolicyRefusal(f"expected at most {MAX_FIELDS} fields in the file, got more")
            key, at = _varint(message, at)
            value, start, at = _payload(message, at, key & 7)
            yield key >> 3, value, message[start:at] if key & 7 == _LENGTH else message[:0]


def check_model(path: Path, *, max_bytes: int) -> None:
    """Refuse a file that the policy forbids.

    Raises:
        PolicyRefusal: says what was expected and what is there.
        OSError: as `open` does.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise PolicyRefusal(f"expected a model of at most {max_bytes} bytes, got {size}")
    walk = Walk()
    _model(walk, mapped(path))
    custom = {domain for domain, operator in walk.used - walk.defined if domain not in STANDARD_DOMAINS}
    if custom:
        raise PolicyRefusal(f"expected operators of the runtime itself, got the domains {sorted(custom)}")
    forbidden = {operator for _, operator in walk.used} & FORBIDDEN_OPERATORS
    if forbidden:
        raise PolicyRefusal(f"expected a self-contained model, got the operators {sorted(forbidden)}")


def mapped(path: Path) -> memoryview:
    """The file without a copy of it; unmapped with the last slice."""
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:  # an empty file cannot be mapped
            return memoryview(b"")


def _model(walk: Walk, message: memoryview) -> None:
    """ModelProto: 7 graph, 20 training_info (1 and 2 are graphs), 25 functions."""
    graphs = 0
    for number, _, data in walk.fields(message):
        if number == 7:
            graphs += 1
            _graph(walk, data, 1)
        elif number == 20:
            for inner, _, graph in walk.fields(data):
                if inner in (1, 2):
                    _graph(walk, graph, 1)
        elif number == 25:
            _function(walk, data)
    if graphs != 1:
        raise PolicyRefusal(f"expected an ONNX model with one graph, got {graphs}")


def _graph(walk: Walk, message: memoryview, depth: int) -> None:
    """GraphProto: 1 node, 5 initializer, 15 sparse_initializer."""
    if depth > MAX_GRAPH_DEPTH:
        raise PolicyRefusal(f"expected graphs nested at most {MAX_GRAPH_DEPTH} deep, got more")
    for number, _, data in walk.fields(message):
        if number == 1:
            _node(walk, data, depth)
        elif number == 5:
            _tensor(walk, data)
        elif number == 15:
            _sparse_tensor(walk, data)


def _function(walk: Walk, message: memoryview) -> None:
    """FunctionProto: 1 name, 7 node, 10 domain, 11 attribute_proto. Its operator is defined by the file itself."""
    name = domain = ""
    for number, _, data in walk.fields(message):
        if number == 1:
            name = _text(data)
        elif number == 7:
            _node(walk, data, 1)
        elif number == 10:
            domain = _text(data)
        elif number == 11:
            _attribute(walk, data, 1)
    walk.defined.add((domain, name))


def _node(walk: Walk, message: memoryview, depth: int) -> None:
    """NodeProto: 4 op_type, 5 attribute, 7 domain."""
    walk.nodes += 1
    if walk.nodes > MAX_NODES:
        raise PolicyRefusal(f"expected at most {MAX_NODES} nodes, got more")
    operator = domain = ""
    for number, _, data in walk.fields(message):
        if number == 4:
            operator = _text(data)
        elif number == 5:
            _attribute(walk, data, depth)
        elif number == 7:
            domain = _text(data)
    walk.used.add((domain, operator))


def _attribute(walk: Walk, message: memoryview, depth: int) -> None:
    """AttributeProto: 5 t, 6 g, 10 tensors, 11 graphs, 22 sparse_tensor, 23 sparse_tensors."""
    for number, _, data in walk.fields(message):
        if number in (5, 10):
            _tensor(walk, data)
        elif number in (6, 11):
            _graph(walk, data, depth + 1)
        elif number in (22, 23):
            _sparse_tensor(walk, data)


def _sparse_tensor(walk: Walk, message: memoryview) -> None:
    """SparseTensorProto: 1 values, 2 indices."""
    for number, _, data in walk.fields(message):
        if number in (1, 2):
            _tensor(walk, data)


def _tensor(walk: Walk, message: memoryview) -> None:
    """TensorProto: 8 name, 13 external_data, 14 data_location."""
    name, external = "", False
    for number, value, data in walk.fields(message):
        if number == 8:
            name = _text(data)
        external = external or number == 13 or (number == 14 and value == _EXTERNAL)
    if external:
        raise PolicyRefusal(f"expected all data inside the file, got tensor {name[:80]!r} with external data")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise PolicyRefusal("expected an ONNX file, got bytes that are no protobuf message (a cut or overlong number)")


def _payload(message: memoryview, at: int, kind: int) -> tuple[int, int, int]:
    """(value, start, end) of the field's content; groups, which ONNX has none of, are refused."""
    if kind == _VARINT:
        value, end = _varint(message, at)
        return value, at, end
    if kind not in (_FIXED64, _LENGTH, _FIXED32):
        raise PolicyRefusal(f"expected an ONNX file, got bytes that are no protobuf message (wire type {kind})")
    length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
    if kind == _LENGTH:
        length, at = _varint(message, at)
    if at + length > len(message):
        raise PolicyRefusal("expected an ONNX file, got one that is cut short")
    return 0, at, at + length


def _text(data: memoryview) -> str:
    return bytes(data[:256]).decode(errors="replace")
