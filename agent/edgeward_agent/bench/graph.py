"""What an ONNX file says of itself and the runtime does not tell. Field numbers are from onnx.proto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeward_agent.errors import UpdateError
from edgeward_agent.update.policy import Walk, mapped

_WORTH_IT: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_DONE: Final = frozenset({"DequantizeLinear", "DynamicQuantizeLinear"})


def quantizable(file: Path) -> bool:
    """Whether `--quantize` may make it quicker: it has sums of products, and is not quantised already."""
    try:
        operators = frozenset(_operators(file))
    except UpdateError:  # of another form than ONNX, which the runtime may know
        return False
    return bool(operators & _WORTH_IT) and not operators & _DONE


def axis_names(file: Path) -> dict[str, tuple[str, ...]]:
    """What the axes of each input are called; an axis without a name is empty."""
    try:
        return dict(_named_axes(file))
    except UpdateError:
        return {}


def _named_axes(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """GraphProto: 11 input. ValueInfoProto: 1 name, 2 type. TypeProto: 1 tensor_type, in it 2 shape, in it 1 dim."""
    walk = Walk()
    for value in _inside(walk, _graph(walk, file), 11):
        dims = [value]
        for number in (2, 1, 2, 1):
            dims = [inner for each in dims for inner in _inside(walk, each, number)]
        yield _text(walk, value, 1), tuple(_text(walk, each, 2) for each in dims)  # Dimension: 2 dim_param


def _operators(file: Path) -> Iterator[str]:
    """GraphProto: 1 node. NodeProto: 4 op_type. Inner graphs are left out, as the tools leave them alone."""
    walk = Walk()
    for node in _inside(walk, _graph(walk, file), 1):
        yield _text(walk, node, 4)


def _graph(walk: Walk, file: Path) -> memoryview:
    """ModelProto: 7 graph."""
    return next(_inside(walk, mapped(file), 7), memoryview(b""))


def _inside(walk: Walk, message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (data for number, _, data in walk.fields(message) if number == wanted)


def _text(walk: Walk, message: memoryview, wanted: int) -> str:
    return bytes(next(_inside(walk, message, wanted), b"")).decode(errors="replace")
