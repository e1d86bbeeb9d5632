"""Command lines and servers of which `bench` makes nothing: each is a line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeward_agent.cli.app import app
from support.bench import answer, metadata, pretending
from support.bench_command import bench
from support.onnx_files import risk_model
from support.serving import slow_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return risk_model(tmp_path_factory.mktemp("bench") / "risk.onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "10"], "'--budget': expected TIME@QUANTILE such as 10ms@p99"),
        (["--through", "grpc"], "'--through': expected some of process,unix,tcp, got 'grpc'"),
        (["--shape", "image"], "'--shape': expected NAME=SIZES such as image=1,3,224,224"),
        *(
            (["--shape", f"features={sizes}"], f"expected NAME=SIZES such as image=1,3,224,224, got 'features={sizes}'")
            for sizes in ("1,,3", "1,x", "1,3,", "")
        ),
        (["--shape", f"features={'9' * 5000},4"], "got 'features=99999999999999999999999999999999999999999999999999…'"),
        (["--sweep", f"batch={'9' * 5000}"], "batch: expected numbers such as 1:2:4, got '9999999999"),
        (["--budget", f"{'9' * 400}us"], "'--budget': expected a time above 0, at most 500h, and a quantile"),
        (
            ["--duration", f"{'9' * 400}s"],
            "'--duration': expected a length of time such as 10s, 10m or 1h, at most 500h",
        ),
        (["--timeout", "501h"], "'--timeout': expected a length of time such as 10s, 10m or 1h, at most 500h"),
        (["--rate", "nan"], "'--rate': expected requests a second, got nan"),
        (["--shape", "x=1,3", "--shape", "x=2,3"], "'--shape': expected NAME=SIZES once for each input, got x again"),
        (["--sweep", "cores"], "'--sweep': expected some of threads, ep, batch"),
        (["--sweep", "ep=tpu"], "'--sweep': ep: expected an execution provider of "),
        (["--sweep", "batch=0"], "'--sweep': batch: expected numbers such as 1:2:4"),
        (["--soak", "soon"], "'--soak': expected a length of time"),
        (["--header", "token"], "'--header': expected 'NAME: VALUE'"),
        (["--header", "Autho rization: x"], "'--header': expected 'NAME: VALUE', got one without a name"),
        (["--header", "Authorization: …"], "'--header': expected 'NAME: VALUE', got Authorization with …"),
        (["--header", "X: \u0142"], "'--header': expected 'NAME: VALUE', got X with characters that no header"),
        (["--rate", "0"], "'--rate': 0.0 is not in the range"),
        (["--soak", "1m", "--quantize"], "--quantize and --soak are two measurements"),
        (["--url", "http://127.0.0.1:1", "--quantize"], "--quantize is for a model at hand"),
        (["--output", "x.onnx"], "--output goes with --quantize"),
        (["--requests", "9", "--duration", "2s"], "--requests and --duration both say how long"),
        (["--requests", "9", "--duration", "2s", "--rate", "5"], "give one of them"),
        (["--header", "X-Site: north"], "--header goes with --url"),
        (["--name", "toy"], "--name goes with --url"),
        (["--name", ""], "'--name': expected something, got ''"),
        (["--url", ""], "'--url': expected something, got ''"),
        (["--arrivals", "poisson"], "--arrivals goes with --rate"),
        (["--sweep", "threads", "--through", "tcp"], "--sweep asks in this process: leave --through out"),
        (["--sweep", "threads", "--clients", "2"], "leave --clients out"),
        (["--through", ""], "'--through': expected some of process,unix,tcp, got ''"),
        (["--through", " ,"], "'--through': expected some of process,unix,tcp, got ' ,'"),
        (["--soak", "1m", "--requests", "9"], "--soak and --requests both say how long"),
        (["--soak", "1m", "--duration", "9s"], "--soak and --duration both say how long"),
        (["--sweep", "threads", "--rate", "5"], "--sweep asks as fast as it can"),
        (["--sweep", "threads", "--timeout", "5s"], "--timeout is for answers of a server"),
        (["--through", "process", "--timeout", "5s"], "--timeout is for answers of a server"),
        *(
            ([*mode, "--through", paths, "--clients", "4"], "--through process has one caller: leave --clients out, or")
            for paths in ("process", "process,tcp")
            for mode in ([], ["--rate", "50"], ["--soak", "1m"], ["--compare", "x.onnx"], ["--quantize"])
        ),
        (["--shape", "features=1,30", "--input", "x.npz"], "--shape is for random input, and --input gives it"),
    ],
)
def test_a_command_line_that_makes_no_sense(model: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["bench", str(model), *arguments])
    assert done.exit_code == 2 and words in done.stderr and len(done.stderr) < 600


@pytest.mark.parametrize("header", ["Bearer-hush", "A B: hush", "A: hush\n", "A: hush\u0142"])
def test_a_header_that_is_refused_is_not_repeated(header: str) -> None:
    done = CliRunner().invoke(app, ["bench", "toy", "--url", "http://127.0.0.1:1", "--header", header])
    assert done.exit_code in (2, 3) and "hush" not in done.stderr


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "HOST", "Connection"])
def test_a_header_that_frames_the_request_is_refused(name: str) -> None:
    done = CliRunner().invoke(app, ["bench", "toy", "--url", "http://127.0.0.1:1", "--header", f"{name}: 3"])
    assert done.exit_code == 2 and f"expected a header of your own, got {name}, which belongs to" in done.stderr


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://me:hush@127.0.0.1:1", "got a user in that of …@127.0.0.1:1"),
        ("http://127.0.0.1:1/v2?token=hush", "got a query in that of http://127.0.0.1:1/v2"),
        ("http://me:hu#sh@127.0.0.1:1", "got '…@127.0.0.1:1'"),
        ("me:hush@127.0.0.1:1?token=hush", "got '…@127.0.0.1:1'"),
    ],
)
def test_an_address_carries_no_secret(url: str, found: str) -> None:
    done = bench("toy", "--url", url)
    assert done.code == 2 and found in done.err and "hush" not in done.err and len(done.err.splitlines()) == 2
    assert "--header 'Authorization: Bearer …'" in done.err or "Give the address before /v2" in done.err


def test_no_model_at_all_is_a_wrong_command_and_not_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk_model(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "", "--requests", "9"])
    assert done.exit_code == 2 and "'MODEL': expected something, got ''" in done.stderr


def test_a_server_that_is_not_there_or_has_no_such_model() -> None:
    done = bench("toy", "--url", "http://127.0.0.1:1")
    assert done.code == 3
    assert "expected a V2 server (Open Inference Protocol) at http://127.0.0.1:1, got: connection refused" in done.err

    def behave(at: int, _: object) -> bytes:
        if server.asked[at].startswith(b"GET /v2 "):
            return answer(b'{"name":"toy server","version":"1","extensions":[]}')
        return answer(b'{"error":"unknown model: toy"}', "404 Not Found")

    with pretending(behave) as server:
        done = bench("toy", "--url", server.place)
    assert done.code == 2 and "expected a model 'toy', got status 404: unknown model: toy" in done.err
    assert "--name" in done.err


@pytest.mark.parametrize(
    ("reply", "code", "found"),
    [
        (answer(b"<html>no such page</html>", "404 Not Found"), 2, "got status 404 for /v2/models/toy"),
        (answer(b"<html>a page for everything</html>"), 2, "got an answer that is no JSON: '<html>a page"),
        (answer(b'{"hello":"world"}'), 2, "got JSON without the inputs of a model"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 2, "got an answer that is no HTTP: 'SSH-2.0-OpenSSH_9.2'"),
        (b"\0\0\x12\x04\0\0\0\0\0\n", 2, "got an answer that is no HTTP: '\\x00\\x00\\x12\\x04"),
        (None, 3, "got: the connection was closed without an answer"),
    ],
)
def test_what_is_no_server_of_the_protocol_is_said(reply: bytes | None, code: int, found: str) -> None:
    def behave(at: int, _: object) -> bytes | None:
        if server.asked[at].startswith(b"GET /v2/models") or not (reply or b"").startswith(b"HTTP/1.1 404"):
            return reply
        return answer(b"<html>", "200 OK")  # a page for every other address does not make it one

    with pretending(behave) as server:
        done = bench("toy", "--url", server.place)
    wanted = f"error: expected a V2 server (Open Inference Protocol) at {server.place}, {found}"
    first, second = done.err.splitlines()
    assert done.code == code and first.startswith(wanted) and second.startswith("  Check the address"), done.err


@pytest.mark.parametrize("body", [b'{"error":"not loaded"}', b"<html>login</html>", b"", b'{"outputs":[]}'])
def test_a_server_that_says_200_to_everything_is_not_measured(body: bytes) -> None:
    def behave(at: int, _: object) -> bytes:
        return metadata() if server.asked[at].startswith(b"GET ") else answer(body)

    with pretending(behave) as server:
        done = bench("toy", "--url", server.place, "--requests", "400")
    first, second = done.err.splitlines()
    wanted = f"error: {server.place}: expected an answer of the model 'toy', got status 200 and "
    assert done.code == 2 and done.out == "" and first.startswith(wanted), done.err
    assert second.startswith("  Check the address, and that the model is loaded")


def test_a_model_slower_than_the_time_out_is_no_wrong_input(tmp_path: Path) -> None:
    slow = slow_model(tmp_path / "slow.onnx", rounds=60)
    large = ("--shape", "in=512,512")  # a few tenths of a second, and more where the machine is busy
    done = bench(slow, *large, "--through", "tcp", "--timeout", "30ms", "--requests", "20")
    first, second = done.err.splitlines()
    assert done.code == 3 and first == "error: TCP: expected an answer within 0.03 s, got none to 3 requests"
    assert second.startswith("  Give a longer --timeout")


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    rude = b'{"error":"\\u001b[2J\\u0007\\u202e gone"}'

    def behave(at: int, _: object) -> bytes:
        asked = server.asked[at]
        if asked.startswith(b"GET /v2/models/other"):
            return answer(rude, "404 Not Found")
        return metadata() if asked.startswith(b"GET ") else answer(rude, "500 No")

    with pretending(behave) as server:
        for model in ("toy", "other"):
            done = bench(model, "--url", server.place)
            assert done.code == (3 if model == "toy" else 2) and "\\x1b[2J\\x07\\u202e gone" in done.err
            assert not set("\x1b\x07\x00\u202e") & set(done.out + done.err)
