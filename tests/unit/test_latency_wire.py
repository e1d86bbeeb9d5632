"""Requests of the latency benchmark are what a server reads, and its answers are read as what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks.latency import wire
from benchmarks.latency.wire import Endpoint, Form, WrongAnswer

INPUTS = {"features": np.array([[0.1, 2.5]], np.float32)}


def _parts(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body


def _answer(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *headers, f"Content-Length: {len(body)}", "", "")).encode() + body


@pytest.mark.parametrize("form", list(Form))
def test_a_request_says_its_own_length(form: Form) -> None:
    headers, body = _parts(wire.request(wire.v2("toy", form), INPUTS))
    assert int(headers["content-length"]) == len(body)


def test_binary_requests_carry_the_bytes_of_the_tensor() -> None:
    headers, body = _parts(wire.request(wire.v2("toy", Form.V2_BINARY), INPUTS))
    length = int(headers["inference-header-content-length"])
    (described,) = json.loads(body[:length])["inputs"]
    assert described == {
        "name": "features",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 8},
    }
    assert body[length:] == INPUTS["features"].tobytes()


def test_json_requests_carry_the_shortest_decimals_of_a_float32() -> None:
    _, body = _parts(wire.request(wire.v2("toy", Form.V2_JSON), INPUTS))
    assert json.loads(body)["inputs"][0]["data"] == [0.1, 2.5]


def test_a_users_own_json_is_nested_and_may_rename_the_input() -> None:
    _, body = _parts(wire.request(Endpoint(path="/predict", form=Form.OWN_JSON, argument="x"), INPUTS))
    assert json.loads(body) == {"x": [[0.1, 2.5]]}


def test_binary_answers_are_read_in_their_order() -> None:
    risk, label = np.array([[0.5]], np.float32), np.array([1], np.int64)
    outputs = [
        {"name": "risk", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
        {"name": "label", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}},
    ]
    header = json.dumps({"outputs": outputs}).encode()
    body = header + risk.tobytes() + label.tobytes()
    found = wire.outputs(
        wire.v2("toy", Form.V2_BINARY), _answer(body, f"Inference-Header-Content-Length: {len(header)}")
    )
    assert wire.difference({"risk": risk, "label": label}, found) == 0.0


@pytest.mark.parametrize(
    ("form", "document"),
    [
        (Form.V2_JSON, {"outputs": [{"name": "risk", "shape": [1, 1], "datatype": "FP32", "data": [0.75]}]}),
        (Form.OWN_JSON, {"risk": [[0.75]]}),
    ],
)
def test_json_answers_are_compared_by_value(form: Form, document: object) -> None:
    found = wire.outputs(wire.v2("toy", form), _answer(json.dumps(document).encode()))
    assert wire.difference({"risk": np.array([[0.5]], np.float32)}, found) == 0.25


@pytest.mark.parametrize("body", [b"", b"oops", b'{"error": "no"}', b'{"outputs": [{"name": "risk"}]}'])
def test_what_is_no_answer_is_no_answer(body: bytes) -> None:
    with pytest.raises(WrongAnswer, match="expected the outputs of a model, got"):
        wire.outputs(wire.v2("toy", Form.V2_JSON), _answer(body))


def test_a_missing_or_short_output_is_a_wrong_answer() -> None:
    expected = {"risk": np.zeros((1, 2), np.float32)}
    for found in ({}, {"risk": np.zeros(1, np.float32)}):
        with pytest.raises(WrongAnswer, match="expected risk of 2 elements"):
            wire.difference(expected, found)
