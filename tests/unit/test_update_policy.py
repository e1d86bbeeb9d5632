"""The walk over an ONNX file that decides whether the runtime may see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from edgeward_agent.update.policy import MAX_GRAPH_DEPTH, PolicyRefusal, check_model
from support.models import wdbc_release
from support.onnx_files import risk_model

LIMIT = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> ModelProto:
    return onnx.load(risk_model(tmp_path / "good.onnx"))


def refusal(tmp_path: Path, model: ModelProto | bytes, *, max_bytes: int = LIMIT) -> str:
    """What the policy says; empty when it lets the model pass."""
    path = tmp_path / "candidate.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    try:
        check_model(path, max_bytes=max_bytes)
    except PolicyRefusal as error:
        return str(error)
    return ""


def external(name: str = "weights") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros((3, 1), np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../identity/device.key")
    return tensor


@pytest.mark.parametrize("version", range(1, 6))
def test_the_reference_models_pass(version: int) -> None:
    check_model(wdbc_release(version) / "model.onnx", max_bytes=LIMIT)


def test_external_data_of_an_initializer(tmp_path: Path, model: ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(external())
    assert refusal(tmp_path, model) == ("expected all data inside the file, got tensor 'weights' with external data")


def test_external_data_that_does_not_say_so(tmp_path: Path, model: ModelProto) -> None:
    """The location alone is refused too: a reader that ignores the flag would follow it."""
    model.graph.initializer[0].external_data.add(key="location", value="other")
    assert "external data" in refusal(tmp_path, model)


def _constant(tensor: TensorProto) -> AttributeProto:
    return helper.make_attribute("value", tensor)


def test_external_data_in_every_place_that_holds_a_tensor(tmp_path: Path, model: ModelProto) -> None:
    def in_attribute(copy: ModelProto) -> None:
        copy.graph.node.add(op_type="Constant", output=["c"]).attribute.append(_constant(external()))

    def in_list(copy: ModelProto) -> None:
        attribute = copy.graph.node.add(op_type="X").attribute.add(name="many", type=AttributeProto.TENSORS)
        attribute.tensors.append(external())

    def in_subgraph(copy: ModelProto) -> None:
        attribute = copy.graph.node.add(op_type="If").attribute.add(name="then_branch", type=AttributeProto.GRAPH)
        attribute.g.initializer.append(external())

    def in_sparse(copy: ModelProto) -> None:
        copy.graph.sparse_initializer.add().values.CopyFrom(external())

    def in_function(copy: ModelProto) -> None:
        node = copy.functions.add(name="F", domain="mine").node.add(op_type="Constant")
        node.attribute.append(_constant(external()))

    def in_training(copy: ModelProto) -> None:
        copy.training_info.add().algorithm.initializer.append(external())

    for hide in (in_attribute, in_list, in_subgraph, in_sparse, in_function, in_training):
        copy = ModelProto()
        copy.CopyFrom(model)
        hide(copy)
        assert "external data" in refusal(tmp_path, copy), hide.__name__


def test_custom_operators(tmp_path: Path, model: ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"
    assert refusal(tmp_path, model) == "expected operators of the runtime itself, got the domains ['com.evil']"


def test_operators_that_the_file_defines_itself(tmp_path: Path, model: ModelProto) -> None:
    model.graph.node[0].domain = "mine"
    model.functions.add(name=model.graph.node[0].op_type, domain="mine")
    assert refusal(tmp_path, model) == ""


def test_operators_that_ship_with_the_runtime(tmp_path: Path, model: ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"
    assert refusal(tmp_path, model) == ""
    model.graph.node[0].op_type = "EPContext"
    assert "expected a self-contained model" in refusal(tmp_path, model)


def test_graphs_in_graphs(tmp_path: Path, model: ModelProto) -> None:
    def nested(depth: int) -> GraphProto:
        graph = GraphProto()
        if depth:
            graph.node.add(op_type="If").attribute.add(name="b", type=AttributeProto.GRAPH).g.CopyFrom(
                nested(depth - 1)
            )
        return graph

    model.graph.CopyFrom(nested(MAX_GRAPH_DEPTH - 1))
    assert refusal(tmp_path, model) == ""
    model.graph.CopyFrom(nested(MAX_GRAPH_DEPTH))
    assert "nested at most" in refusal(tmp_path, model)


def test_too_many_nodes_and_fields(tmp_path: Path, model: ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeward_agent.update.policy.MAX_NODES", 1)
    assert refusal(tmp_path, model) == "expected at most 1 nodes, got more"
    monkeypatch.setattr("edgeward_agent.update.policy.MAX_FIELDS", 9)
    assert refusal(tmp_path, b"\x08\x01" * 10) == "expected at most 9 fields in the file, got more"


def test_the_size_is_looked_at_first(tmp_path: Path, model: ModelProto) -> None:
    assert refusal(tmp_path, model, max_bytes=10).startswith("expected a model of at most 10 bytes, got ")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is no model",
        b"\x80\x04\x95pickle",
        b"PK\x03\x04",
        b"\xff" * 50,
        b"\x3a\xff\xff\xff\x7f",
        b"\x3b\x3c",
    ],
)
def test_what_is_no_onnx_file(tmp_path: Path, data: bytes) -> None:
    assert refusal(tmp_path, data).startswith("expected an ONNX")


def test_a_file_that_is_cut_short(tmp_path: Path, model: ModelProto) -> None:
    data = model.SerializeToString()
    assert "cut short" in refusal(tmp_path, data[: len(data) - 3])


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_refusal_or_pass_and_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    refusal(tmp_path_factory.mktemp("any"), data)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_never_hides_external_data(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    """Whatever the runtime's own parser still finds external must be refused."""
    folder = tmp_path_factory.mktemp("mutated")
    model = onnx.load(risk_model(folder / "good.onnx"))
    model.graph.initializer[0].CopyFrom(external())
    data = bytearray(model.SerializeToString())
    data[position % len(data)] = byte
    try:
        parsed = ModelProto.FromString(bytes(data))
    except Exception:  # protobuf's own error has no public base
        return
    if any(each.data_location == TensorProto.EXTERNAL for each in parsed.graph.initializer):
        assert refusal(folder, bytes(data)) != ""
