"""Whatever tensor goes in, every way to ask gives the same answer: shapes and types by the hundred, one real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto

from edgeward_agent.wire.tensors import Array
from support.clients import WAYS, Asks, opened
from support.serving import ask, device, identity_model, manifest_for, wait_until, write_release

EXAMPLES = 1000 if os.environ.get("EDGEWARD_SOAK") else 60
MODELS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
TEXT = "text"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Asks]]:
    folder = tmp_path_factory.mktemp("ways")
    releases = []
    for name, kind in {**MODELS, TEXT: TensorProto.STRING}.items():
        model = identity_model(folder / name / "model.onnx", kind, ["a", "b"])
        releases.append(write_release(model.parent, manifest_for(model, name)))
    with device(folder / "d", with_frames=True) as made, ExitStack() as stack:
        made.commit(*releases)
        made.start("--deadlines", "off")
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        yield opened(stack, made, releases)


def _numbers() -> st.SearchStrategy[Array]:
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40)
    kinds: list[st.SearchStrategy[Array]] = [arrays(dtype=np.dtype(name), shape=shapes) for name in MODELS]
    return st.one_of(kinds)


def _text() -> st.SearchStrategy[Array]:
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    return st.lists(words, min_size=1, max_size=6).map(lambda each: np.array([each], object))


@settings(max_examples=EXAMPLES, deadline=None)
@given(array=_numbers() | _text(), turned=st.booleans())
def test_every_way_gives_the_same_answer(ways: dict[str, Asks], array: Array, turned: bool) -> None:
    asked = array.T if turned else array  # not contiguous
    model = TEXT if asked.dtype.hasobject else asked.dtype.name
    for name in WAYS:
        back = ways[name].infer(model, {"in": asked})["out"]
        assert (back.dtype, back.shape) == (asked.dtype, asked.shape), name
        assert back.tobytes() == asked.tobytes() if model != TEXT else back.tolist() == asked.tolist(), name
