"""NVIDIA's own client, unmodified, on what lies beyond plain inference: classes, configuration, statistics, the index,
compression, asyncio. Shared memory has a module of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto
from tritonclient import http  # type: ignore[import-untyped]
from tritonclient.http import aio  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from edgeward_contract.manifest import Datatype, TensorSpec
from support.serving import (
    Device,
    Release,
    Reply,
    ask,
    device,
    failing_model,
    identity_model,
    manifest_for,
    sum_model,
    write_release,
)
from support.triton import TIMEOUT_S, AnyArray, tensor, triton

SCORES = np.array([[0.25, 0.5, 0.125], [0.5, 0.0, 0.5]], np.float32)
LABELS = ("benign", "malignant", "unclear")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("triton")
    releases = []
    for name, kind in (("fp32", TensorProto.FLOAT), ("bf16", TensorProto.BFLOAT16), ("bytes", TensorProto.STRING)):
        model = identity_model(folder / name / "model.onnx", kind, ["n", "m"])
        releases.append(write_release(model.parent, manifest_for(model, name)))
    releases.append(_labelled(folder / "scores", ["n", 3], (-1, 3)))
    releases.append(_labelled(folder / "whole", [3], (3,)))
    for name, make in (("sum", sum_model), ("failing", failing_model)):
        model = make(folder / name / "model.onnx")
        releases.append(write_release(model.parent, manifest_for(model, name, 2)))
    with device(folder / "d") as made:
        made.commit(*releases)
        made.start("--deadlines", "off")
        yield made


def _labelled(folder: Path, shape: Sequence[int | str], promised: tuple[int, ...]) -> Release:
    model = identity_model(folder / "model.onnx", TensorProto.FLOAT, shape)
    wanted = TensorSpec(name="out", datatype=Datatype.FP32, shape=promised, labels=LABELS)
    return write_release(folder, manifest_for(model, folder.name, outputs=[wanted]))


@pytest.fixture
def client(served: Device) -> Iterator[http.InferenceServerClient]:
    with triton(served) as made:
        yield made


# -- classification


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_the_best_classes_of_each_row(client: http.InferenceServerClient, binary: bool) -> None:
    wanted = [http.InferRequestedOutput("out", binary_data=binary, class_count=2)]
    result = client.infer("scores", [tensor("in", SCORES, "FP32")], outputs=wanted)
    assert result.get_output("out")["datatype"] == "BYTES"
    found = [[_text(each) for each in row] for row in result.as_numpy("out")]
    assert found == [["0.500000:1:malignant", "0.250000:0:benign"], ["0.500000:0:benign", "0.500000:2:unclear"]]


def test_a_model_without_a_batch_is_ranked_as_a_whole(client: http.InferenceServerClient) -> None:
    wanted = [http.InferRequestedOutput("out", class_count=9)]
    found = client.infer("whole", [tensor("in", SCORES[0], "FP32")], outputs=wanted).as_numpy("out")
    assert [_text(each) for each in found] == ["0.500000:1:malignant", "0.250000:0:benign", "0.125000:2:unclear"]


def test_text_has_no_classes(client: http.InferenceServerClient) -> None:
    wanted = [http.InferRequestedOutput("out", class_count=1)]
    with pytest.raises(InferenceServerException, match="expected numbers to classify, got type BYTES"):
        client.infer("bytes", [tensor("in", np.array([["a"]], object), "BYTES")], outputs=wanted)


# -- BF16


def test_bf16_comes_back_as_it_went(client: http.InferenceServerClient) -> None:
    array = np.array([[1.0, -2.5, np.inf], [0.0, np.nan, 3e38]], ml_dtypes.bfloat16)
    found = client.infer("bf16", [tensor("in", array, "BF16")]).as_numpy("out")
    assert found.dtype == ml_dtypes.bfloat16
    assert found.tobytes() == array.tobytes()
    empty = np.zeros((0, 2), ml_dtypes.bfloat16)
    assert client.infer("bf16", [tensor("in", empty, "BF16")]).as_numpy("out").shape == (0, 2)
    with pytest.raises(InferenceServerException, match="expected binary_data for BF16, which JSON cannot carry"):
        wanted = [http.InferRequestedOutput("out", binary_data=False)]
        client.infer("bf16", [tensor("in", array, "BF16")], outputs=wanted)


# -- JSON


def test_nan_and_infinities_come_back_in_the_json_that_the_client_writes(client: http.InferenceServerClient) -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)
    wanted = [http.InferRequestedOutput("out", binary_data=False)]
    found = client.infer("fp32", [tensor("in", array, "FP32", binary=False)], outputs=wanted).as_numpy("out")
    assert found.tolist()[0][1:] == [np.inf, -np.inf, 1]
    assert np.isnan(found[0, 0])


def test_others_get_json_that_is_json(served: Device) -> None:
    header = json.dumps(
        {"inputs": [{"name": "in", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}
    ).encode()
    body = header + np.array([np.nan, np.inf], np.float32).tobytes()
    length = {"Inference-Header-Content-Length": str(len(header))}
    reply = ask(served.port, "/v2/models/fp32/infer", body, headers=length)
    assert reply.body.endswith(b'"data":[null,null]}]}')


def test_json_has_a_limit_of_its_own(served: Device) -> None:
    rows = 300_000
    document = {"inputs": [{"name": "in", "datatype": "FP32", "shape": [rows, 2], "data": [0.123456789] * rows * 2}]}
    reply = ask(served.port, "/v2/models/fp32/infer", document)
    assert reply.status == 413
    assert "expected at most 1048576 bytes of JSON, got" in reply.error
    assert "send tensors as binary data" in reply.error
    with triton(served) as client:
        large = np.zeros((rows, 2), np.float32)
        assert client.infer("fp32", [tensor("in", large, "FP32")]).as_numpy("out").shape == (rows, 2)
        with pytest.raises(InferenceServerException, match="at most 65536 values in JSON, got one of 600000"):
            wanted = [http.InferRequestedOutput("out", binary_data=False)]
            client.infer("fp32", [tensor("in", large, "FP32")], outputs=wanted)


# -- documents


def test_the_configuration(client: http.InferenceServerClient) -> None:
    config = client.get_model_config("sum")
    assert config == client.get_model_config("sum", "2")
    assert (config["name"], config["platform"], config["backend"]) == ("sum", "onnxruntime_onnx", "onnxruntime")
    assert config["max_batch_size"] == (64 << 20) // 32
    inputs = [(each["name"], each["data_type"], each["dims"]) for each in config["input"]]
    assert inputs == [("a", "TYPE_INT32", [4]), ("b", "TYPE_INT32", [4])]
    assert [each["name"] for each in config["output"]] == ["sum", "difference"]
    whole = client.get_model_config("whole")
    assert (whole["max_batch_size"], whole["input"][0]["dims"]) == (0, [3])
    assert client.get_model_config("bytes")["input"][0]["data_type"] == "TYPE_STRING"
    for wrong in (("nope", ""), ("sum", "9")):
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            client.get_model_config(*wrong)


def test_statistics(client: http.InferenceServerClient) -> None:
    before = client.get_inference_statistics("failing", "2")["model_stats"]
    assert before == client.get_inference_statistics("failing")["model_stats"]
    good = [tensor("index", np.array([0, 1, 2], np.int64), "INT64")]
    for _ in range(3):
        client.infer("failing", good)
    client.infer("failing", [tensor("index", np.array([0], np.int64), "INT64")])
    with pytest.raises(InferenceServerException, match="the model failed"):
        client.infer("failing", [tensor("index", np.array([7], np.int64), "INT64")])
    (stats,) = client.get_inference_statistics("failing")["model_stats"]
    assert (stats["name"], stats["version"]) == ("failing", "2")
    assert (stats["inference_count"], stats["execution_count"]) == (10, 4)
    assert stats["last_inference"] > 1_700_000_000_000
    spent = stats["inference_stats"]
    assert (spent["success"]["count"], spent["fail"]["count"]) == (4, 1)
    parts = sum(spent[each]["ns"] for each in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert parts == spent["success"]["ns"] > 0
    assert all(spent[each]["ns"] > 0 for each in ("queue", "compute_input", "compute_infer", "compute_output", "fail"))
    sizes = {each["batch_size"]: each["compute_infer"]["count"] for each in stats["batch_stats"]}
    assert sizes == {1: 1, 3: 3}
    everything = client.get_inference_statistics()["model_stats"]
    assert {each["name"] for each in everything} == {"fp32", "bf16", "bytes", "scores", "whole", "sum", "failing"}
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
        client.get_inference_statistics("nope")


def test_the_index(served: Device, client: http.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert {"name": "sum", "version": "2", "state": "READY", "reason": ""} in index
    assert len(index) == 7
    assert ask(served.port, "/v2/repository/index", {"ready": True}).json == index
    assert "expected `bool`, got `int`" in ask(served.port, "/v2/repository/index", {"ready": 1}).error
    assert ask(served.port, "/v2/repository/index").status == 405


def test_models_are_loaded_elsewhere(client: http.InferenceServerClient) -> None:
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="by the agent alone, on its private socket") as caught:
            call("sum")
        assert caught.value.status() == "501"
    assert client.is_model_ready("sum")


def test_what_a_device_has_not(client: http.InferenceServerClient) -> None:
    for call in (client.get_trace_settings, client.get_log_settings):
        with pytest.raises(InferenceServerException, match="the server does not support"):
            call()
    with pytest.raises(InferenceServerException, match="the server does not support tracing"):
        client.update_trace_settings("sum", {"trace_level": ["OFF"]})
    with pytest.raises(InferenceServerException, match="expected no sequence"):
        client.infer("fp32", [tensor("in", SCORES, "FP32")], sequence_id=7, sequence_start=True)
    found = client.infer("fp32", [tensor("in", SCORES, "FP32")], parameters={"anything": "at all"})
    assert found.as_numpy("out").tolist() == SCORES.tolist()


# -- compression

MIDDLE = np.tile(np.arange(1000, dtype=np.float32), (100, 1))
LARGE = np.tile(np.arange(1000, dtype=np.float32), (300, 1))


@pytest.mark.parametrize("out", ["gzip", "deflate", None])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", None])
@pytest.mark.parametrize("array", [SCORES, LARGE], ids=["small", "large"])
def test_compression_both_ways(
    client: http.InferenceServerClient, array: AnyArray, encoding: str | None, out: str | None
) -> None:
    for binary in (True, False) if array is SCORES else (True,):
        found = client.infer(
            "fp32",
            [tensor("in", array, "FP32", binary=binary)],
            outputs=[http.InferRequestedOutput("out", binary_data=binary)],
            request_compression_algorithm=encoding,
            response_compression_algorithm=out,
        )
        assert (found.as_numpy("out") == array).all()


def _packed(body: bytes, encoding: str = "gzip") -> bytes:
    return gzip.compress(body) if encoding == "gzip" else zlib.compress(body)


def _infer(served: Device, body: bytes, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(served.port, "/v2/models/fp32/infer", body, headers=named)


def test_a_compressed_answer_says_so(served: Device) -> None:
    header, body = http.InferenceServerClient.generate_request_body([tensor("in", LARGE, "FP32")])[::-1]
    plain = {"Inference_Header_Content_Length": str(header)}
    reply = _infer(served, body, Accept_Encoding="gzip", **plain)
    assert reply.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(reply.body)[int(reply.headers["Inference-Header-Content-Length"]) :] == LARGE.tobytes()
    listed = _infer(served, body, Accept_Encoding="gzip, deflate, br", **plain)
    assert "Content-Encoding" not in listed.headers


@pytest.mark.parametrize(
    ("body", "encoding", "status", "words"),
    [
        (b"{}", "gzip", 400, "expected a body in gzip, got another thing"),
        (gzip.compress(b"{}")[:-4], "gzip", 400, "got one that is cut off"),
        (gzip.compress(b"{}") * 2, "gzip", 400, "got more behind its end"),
        (gzip.compress(b"{}"), "deflate", 400, "expected a body in deflate, got another thing"),
        (gzip.compress(b"{}"), "br", 415, "expected Content-Encoding gzip or deflate, got 'br'"),
        (gzip.compress(b"{}"), "gzip, gzip", 415, "expected Content-Encoding gzip or deflate"),
        (gzip.compress(bytes(80 << 20)), "gzip", 413, "at most 67108864 bytes when decompressed"),
        (zlib.compress(bytes(80 << 20)), "deflate", 413, "at most 67108864 bytes when decompressed"),
        (gzip.compress(b" " * (5 << 20) + b"{}"), "gzip", 413, "expected at most 1048576 bytes of JSON"),
        (gzip.compress(b"{}"), "gzip", 400, "missing required field `inputs`"),
        (b"", "gzip", 400, "expected JSON"),
    ],
    ids=["none", "cut", "twice", "other", "br", "nested", "bomb", "deflate bomb", "json bomb", "json", "empty"],
)
def test_what_is_wrong_in_a_compressed_body(
    served: Device, body: bytes, encoding: str, status: int, words: str
) -> None:
    reply = _infer(served, body, Content_Encoding=encoding)
    assert (reply.status, words in reply.error) == (status, True), reply
    assert ask(served.port, "/v2/health/live").status == 200


def test_a_header_length_counts_in_what_comes_out(served: Device) -> None:
    body, header = http.InferenceServerClient.generate_request_body([tensor("in", SCORES, "FP32")])
    good = _infer(served, _packed(body), Content_Encoding="gzip", Inference_Header_Content_Length=str(header))
    assert good.status == 200
    beyond = str(len(body) + 1)
    wrong = _infer(served, _packed(body), Content_Encoding="gzip", Inference_Header_Content_Length=beyond)
    assert f"Inference-Header-Content-Length up to the body's {len(body)} bytes, got {beyond}" in wrong.error


# -- asyncio


def test_the_asyncio_client(served: Device) -> None:
    async def main() -> None:
        address = f"127.0.0.1:{served.port}"
        async with aio.InferenceServerClient(address, conn_timeout=TIMEOUT_S) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("sum", "2")
            assert (await client.get_model_config("sum"))["name"] == "sum"
            assert (await client.get_inference_statistics("sum"))["model_stats"]
            assert len(await client.get_model_repository_index()) == 7
            for encoding in (None, "gzip", "deflate"):
                found = await client.infer(
                    "fp32",
                    [aio_tensor(MIDDLE)],
                    request_compression_algorithm=encoding,
                    response_compression_algorithm=encoding,
                    timeout=5_000_000,
                    priority=1,
                    request_id="a",
                )
                assert (found.as_numpy("out") == MIDDLE).all()
                assert found.get_response()["id"] == "a"
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nope", [aio_tensor(MIDDLE)])
            await asyncio.gather(*(client.infer("fp32", [aio_tensor(SCORES)]) for _ in range(50)))

    def aio_tensor(array: AnyArray) -> aio.InferInput:
        made = aio.InferInput("in", list(array.shape), "FP32")
        made.set_data_from_numpy(array)
        return made

    asyncio.run(main())


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
