"""Records as rows of numbers: read again they say what the record written by itself would have said."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeward_agent.outbox.receiver import MAX_FRAME_BYTES, read_frames
from edgeward_agent.series import ROW_HEAD, Series
from edgeward_agent.serving.records import InferenceRecord, series_of
from edgeward_agent.wire.tensors import DATATYPE, Array
from edgeward_contract.artifact import Sha256
from edgeward_contract.schema import ContractError, canonical_json

RELEASE = Sha256("a" * 64)
NUMBERS = [dtype for dtype in DATATYPE if not dtype.hasobject]


def _series(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Series | None:
    return series_of("toy", 3, RELEASE, inputs, outputs)


def _row(wall_us: int, latency_us: int, *arrays: Array) -> bytes:
    return ROW_HEAD.pack(wall_us, latency_us) + b"".join(each.tobytes() for each in arrays)


def _alone(wall_us: int, latency_us: int, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Any:
    record = InferenceRecord(
        wall_us=wall_us,
        latency_us=latency_us,
        model="toy",
        version=3,
        release_sha256=RELEASE,
        request_id="",
        inputs=inputs,
        outputs=outputs,
    )
    return next(read_frames(record.frame(7, durable=False))).draft


SHAPES = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    st.sampled_from([(256,), (257,), (2, 300)]),  # told as bytes from 257 on
)
arrays = st.builds(np.resize, hnp.arrays(st.sampled_from(NUMBERS), st.just((5,))), SHAPES)
sides = st.dictionaries(st.text(max_size=5).filter(lambda name: name.isprintable()), arrays, max_size=3)


@given(sides, sides, st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1))
def test_a_row_says_what_a_record_by_itself_says(
    inputs: dict[str, Array], outputs: dict[str, Array], wall_us: int, latency_us: int
) -> None:
    series = _series(inputs, outputs)
    assert series is not None
    row = _row(wall_us, latency_us, *inputs.values(), *outputs.values())
    assert len(row) == series.row_bytes
    frame = next(read_frames(series.frame([row])))
    assert (frame.durable, frame.draft.wall_us) == (False, wall_us)
    alone = _alone(wall_us, latency_us, inputs, outputs)
    assert canonical_json(frame.draft.body) == canonical_json(alone.body)
    assert (frame.draft.kind, frame.draft.record_class) == (alone.kind, alone.record_class)


def test_rows_keep_their_order() -> None:
    score = np.zeros((1, 1), np.float32)
    series = _series({}, {"score": score})
    assert series is not None
    rows = [_row(1_000 + number, number, score + number) for number in range(5)]
    found = [each.draft for each in read_frames(series.frame(rows))]
    assert [each.wall_us for each in found] == [1_000, 1_001, 1_002, 1_003, 1_004]
    assert [each.body["latency_us"] for each in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "array",
    [np.zeros((1 << 14) + 1, np.float32), np.array(["text"], object), np.zeros(1, np.complex64)],
    ids=["large", "text", "no datatype"],
)
def test_what_is_no_row_of_numbers_has_records_of_its_own(array: Array) -> None:
    assert _series({}, {"y": array}) is None
    assert _series({"x": array}, {}) is None


def test_many_tensors_are_large_together() -> None:
    assert _series({}, {f"y{index}": np.zeros(256) for index in range(12)}) is not None
    assert _series({}, {f"y{index}": np.zeros(256) for index in range(13)}) is None


def _document(**other: Any) -> dict[str, Any]:
    series = _series({}, {"y": np.zeros(2, np.int16)})
    assert series is not None
    return {**json.loads(series.frame([_row(1, 2, np.zeros(2, np.int16))])), **other}


def _column(**other: Any) -> list[dict[str, Any]]:
    return [{**_document()["columns"][0], **other}]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (_document(series=base64.b64encode(b"x" * 17).decode()), "series"),
        (_document(series="no base64!"), "series"),
        (_document(columns=_column(datatype="BYTES")), "columns[0]"),
        (_document(columns=_column(datatype="FP31")), "columns[0].datatype"),
        (_document(columns=_column(side="neither")), "columns[0]"),
        (_document(columns=_column(shape=[-1])), "columns[0].shape[0]"),
        (_document(columns=_column(shape=[1 << 40, 1 << 40])), "columns[0]"),
        (_document(columns=[{}] * 2000), "columns"),
        (_document(body=None), "body"),
    ],
)
def test_what_is_no_series_is_said(document: dict[str, Any], path: str) -> None:
    with pytest.raises(ContractError) as caught:
        list(read_frames(json.dumps(document).encode()))
    assert caught.value.path == path


def test_a_time_before_1970_is_none_of_ours() -> None:
    series = _series({}, {})
    assert series is not None
    with pytest.raises(ContractError, match="Unix time"):
        list(read_frames(series.frame([_row(-1, 0)])))


def test_a_frame_too_large_is_refused() -> None:
    with pytest.raises(ContractError):
        list(read_frames(json.dumps(_document(series="A" * MAX_FRAME_BYTES)).encode()))
