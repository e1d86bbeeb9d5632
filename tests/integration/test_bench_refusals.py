"""What `edgeward-agent bench` refuses: one line that says what is wrong, with the way out."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.report import Report
from edgeward_agent.errors import ModelError
from edgeward_contract.serving_options import ServingOptions
from support.bench_command import NOISY, QUICK, WIDE_BUDGET, bench, save_arrays
from support.onnx_files import risk_model, save
from support.serving import identity_model, manifest_for, slow_model, sum_model, write_release


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return risk_model(tmp_path_factory.mktemp("bench") / "risk.onnx")


def broken(folder: Path, name: str, **more: Any) -> Path:
    """A model that does not load."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    node = helper.make_node(more.get("operator", "Relu"), ["x"], ["y"])
    opset = helper.make_opsetid("", more.get("opset", 17))
    made = helper.make_model(helper.make_graph([node], "g", [value], [out]), opset_imports=[opset], ir_version=9)
    (folder / name).write_bytes(made.SerializeToString())
    return folder / name


def external(folder: Path) -> Path:
    """A model whose weights lie in a file that is gone."""
    risk_model(folder / "whole.onnx")
    path = folder / "parts.onnx"
    onnx.save(onnx.load(folder / "whole.onnx"), path, save_as_external_data=True, location="w.data", size_threshold=0)
    (folder / "w.data").unlink()
    return path


def test_a_model_that_cannot_be_measured_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "note.onnx").write_text("hello, I am no model")
    open_shape = identity_model(tmp_path / "open.onnx", TensorProto.FLOAT, ["n", 3, "h", "w"])
    for path, words, hint in (
        (tmp_path / "gone.onnx", "expected an ONNX file, found none", "Give the path of an ONNX file"),
        (tmp_path / "note.onnx", "got: Protobuf parsing failed", "exported as ONNX"),
        (broken(tmp_path, "op.onnx", operator="Frobnicate"), "No Op registered for Frobnicate", "export with"),
        (broken(tmp_path, "new.onnx", opset=999), "got: Opset 999", "older opset"),
        (external(tmp_path), "External data path does not exist", "Put the data file back beside the model"),
        (open_shape, "expected a size for each free axis of in [n, 3, h, w], got none", "--shape in=1,3,224,224"),
    ):
        done = bench(path)
        first, second = done.err.splitlines()
        assert done.code == 2 and first.startswith("error: ") and words in first and hint in second, done.err
        assert done.out == "" and len(first) < 400


def test_all_axes_whose_size_is_open_are_named_at_once_and_what_is_advised_can_be_typed(tmp_path: Path) -> None:
    free: dict[str, tuple[str | int | None, ...]] = {
        "left": ("n", "time"),
        "my side": ("n", None, 2),
        "fixed": ("n", 4),
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in free.items()]
    outputs = [helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, shape) for name, shape in free.items()]
    nodes = [helper.make_node("Relu", [name], [f"{name} out"]) for name in free]
    several = save(tmp_path / "several.onnx", helper.make_graph(nodes, "several", inputs, outputs))
    done = bench(several)
    first, second = done.err.splitlines()
    assert done.code == 2
    assert first.endswith("expected a size for each free axis of left [n, time] and my side [n, ?, 2], got none")
    assert second == "  Say it: --shape left=1,224 --shape 'my side=1,224,2' with the sizes that you mean."
    typed = shlex.split(second.removeprefix("  Say it: ").partition(" with ")[0])
    assert bench(several, *typed, "--through", "process", *QUICK, *WIDE_BUDGET).code in (0, NOISY)
    assert "free axis of my side [n, ?, 2], got none" in bench(several, *typed[:2]).err


def test_a_name_that_is_no_utf_8_is_said_in_one_line(model: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"bad\xff.onnx")
    odd.write_bytes(model.read_bytes())
    for arguments in ((odd,), (model, "--compare", odd), (model, "--output", odd), ("toy", "--url=x", f"--name={odd}")):
        first, second = bench(*arguments, "--json").err.splitlines()
        assert first.endswith("bad\\udcff.onnx: expected a name in UTF-8, got bytes that are none")
        assert second == "  Rename it, or bench a copy of the file."
    assert "hush" not in bench("toy", "--url", "http://127.0.0.1:1", "--header", "X: hush\udcff").err


def test_a_model_that_may_not_be_read_is_said_in_words(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed everything."""
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == model:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    done = bench(model)
    assert done.code == 2 and f"{model}: expected a file that can be read, got: permission denied" in done.err
    assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "features=1,2"], "expected 3 elements for shape [1, 3], got 2"),
        (["--input", "gone.npz"], "gone.npz: expected an .npz of plain arrays, got: No such file"),
        (["-i", "features=1,2,3", "-i", "features=4,5,6"], "--input features: expected once, got it again: 'features"),
        (["--input", "nothing=1"], "expected NAME=VALUE with a name of features"),
        (["--shape", "other=1,3"], "--shape other: expected an input of the model (features)"),
        (["--shape", "features=1,4"], "input features: expected shape [?, 3], got [1, 4]"),
        (["--compare", "gone.onnx"], "gone.onnx: expected an ONNX file, found none"),
        (["--quantize", "--calibration", "gone.npz"], "gone.npz: expected an .npz"),
    ],
)
def test_inputs_that_do_not_fit_are_named(model: Path, arguments: list[str], words: str) -> None:
    done = bench(model, *arguments)
    assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 2, done.err


def test_where_nothing_can_be_written_is_said_before_anything_is_measured(model: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--html", tmp_path / "gone" / "x.html"), f"got no folder {tmp_path / 'gone'}"),
        (("--html", tmp_path), "got a folder"),
        (("--html", "-"), "--html -: expected the path of a file, got the sign for standard output"),
        (("--quantize", "--output", "-"), "--output -: expected the path of a file"),
        (("--quantize", "--output", tmp_path / "gone" / "x.onnx"), f"got no folder {tmp_path / 'gone'}"),
    ):
        done = bench(model, *arguments, "--duration", "1h")
        assert done.code == 2 and done.out == "" and words in done.err and len(done.err.splitlines()) == 2, done.err


def test_what_is_read_is_never_written_over(tmp_path: Path) -> None:
    model, other = risk_model(tmp_path / "m.onnx"), risk_model(tmp_path / "other.onnx")
    (tmp_path / "link.html").symlink_to(model)
    (tmp_path / "hard.html").hardlink_to(model)
    folder = tmp_path / "release"
    folder.mkdir()
    write_release(folder, manifest_for(risk_model(folder / "model.onnx"), "toy"))
    (tmp_path / "in.npz").write_bytes(b"")
    (tmp_path / "m.onnx.data").write_bytes(b"\0" * 64)
    page = tmp_path / "page.html"
    for arguments, words in (
        ((model, "--html", model), "got the model, which it would overwrite"),
        ((model, "--html", tmp_path / "release" / ".." / "m.onnx"), "got the model"),
        ((model, "--html", tmp_path / "link.html"), "got the model"),
        ((model, "--html", tmp_path / "hard.html"), "got the model"),
        ((folder, "--quantize", "--output", folder / "model.onnx"), "got the model"),
        ((folder, "--html", folder / "manifest.json"), "got the model"),
        ((folder, "--html", folder / "golden.npz"), "got the model"),
        ((folder / "model.onnx", "--html", folder / "manifest.json"), "got the model"),
        ((model, "--compare", other, "--html", other), "got the model of --compare"),
        ((model, "--quantize", "--calibration", tmp_path / "in.npz", "--html", tmp_path / "in.npz"), "--calibration"),
        ((model, "--input", tmp_path / "in.npz", "--html", tmp_path / "in.npz"), "got a file of --input"),
        ((model, "--input", f"features=@{tmp_path}/in.npz", "--html", tmp_path / "in.npz"), "got a file of --input"),
        ((model, "--quantize", "--output", page, "--html", page), "got the file of --output"),
        ((model, "--html", tmp_path / "m.onnx.data"), "got a file of another kind"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        done = bench(*arguments, "--duration", "1h")
        assert done.code == 2 and done.out == "" and words in done.err and len(done.err.splitlines()) == 2, done.err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_disk_that_is_full_is_said_before_anything_is_measured(model: Path) -> None:
    done = bench(model, "--html", "/dev/full", "--duration", "1h")
    assert done.code == 2 and done.out == "" and "/dev/full: expected a place that can be written" in done.err
    assert "got: no space left on device" in done.err


def test_what_is_there_stays_until_there_is_something_to_write(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html>before")
    assert bench(model, "--html", page, "--shape", "other=1").code == 2
    assert page.read_text() == "<!DOCTYPE html>before"
    assert bench(model, "--html", tmp_path / "new.html", "--shape", "other=1").code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def _full(*_: object, **__: object) -> int:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_by_the_end_costs_the_page_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_text", _full)
    page = tmp_path / "page.html"
    done = bench(model, *QUICK, "--through", "process", "--html", page, "--json")
    assert done.code == done.json["exit_code"] != 2
    assert f"--html {page}: the page was not written: no space left on device" in done.err


def test_a_disk_that_is_full_by_the_end_costs_the_quantised_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeward_agent.bench.quantizing.shutil.copyfile", _full)
    big = slow_model(tmp_path / "big.onnx", rounds=4)
    kept = tmp_path / "int8.onnx"
    done = bench(big, "--quantize", "--through", "process", *QUICK, *WIDE_BUDGET, "--output", kept, "--json")
    compared = done.json["compared"]
    assert done.code == done.json["exit_code"] != 2
    assert compared["written"] == "" and f"{kept} was not written: no space left on device" in compared["warnings"]


@pytest.mark.parametrize("sizes", ["100000000,3", "99999999999999999999,3"])
def test_random_input_of_any_size_is_refused_in_one_line(model: Path, sizes: str) -> None:
    done = bench(model, "--shape", f"features={sizes}")
    assert done.code == 2 and "random input: expected at most 64 MiB for one request, got " in done.err
    assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError("a bug"), 70, "Traceback"),
        (MemoryError("no room for 1 GiB"), 2, "error: no room for 1 GiB"),
        (PermissionError(13, "Permission denied", "m.onnx"), 2, "error: m.onnx: permission denied"),
        (ModelError("m: no"), 2, "error: m: no"),
    ],
)
def test_no_error_looks_like_a_verdict(
    model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    def fail(*_: object) -> Report:
        raise error

    monkeypatch.setattr("edgeward_agent.cli.bench.measure", fail)
    done = bench(model)
    assert done.code == code and done.err.startswith(words) and done.out == ""


def test_what_nobody_foresaw_in_an_option_is_a_bug_and_no_verdict(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> Budget:
        raise RuntimeError("a bug")

    monkeypatch.setattr("edgeward_agent.cli.bench_options.parse_budget", fail)
    done = bench(model, "--budget", "5ms")
    assert done.code == 70 and done.err.startswith("Traceback") and done.out == ""


def test_arrays_of_another_type_are_named(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "words.npz", features=np.array([["a", "b", "c"]]))
    done = bench(model, "--input", tmp_path / "words.npz")
    assert done.code == 2 and "input features: expected FP32, got <U1" in done.err and "array.astype" in done.err


def test_numbers_beyond_what_the_model_can_hold_are_named(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1e300, 1, 2]]))
    np.savez(tmp_path / "x.npz", features=np.array([[1e300, 1, 2]]))
    save_arrays(tmp_path / "in.npz", {"in": np.array([[300]], np.int64)})
    save_arrays(tmp_path / "bf16.npz", {"in": np.array([[1e300]])})
    small = identity_model(tmp_path / "small.onnx", TensorProto.INT8, ["n", 1])
    half = identity_model(tmp_path / "half.onnx", TensorProto.BFLOAT16, ["n", 1])
    for asked, given, words in (
        (
            model,
            f"features=@{tmp_path}/x.npy",
            "--input features: expected numbers within the range of FP32, got 1e+300",
        ),
        (model, tmp_path / "x.npz", "input features: expected numbers within the range of FP32, got 1e+300"),
        (small, tmp_path / "in.npz", "input in: expected numbers within the range of INT8, got 300"),
        (half, tmp_path / "bf16.npz", "input in: expected numbers within the range of FP32, got 1e+300"),
    ):
        done = bench(asked, "--input", given)
        assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 2, done.err


def test_text_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    made = identity_model(tmp_path / "text.onnx", TensorProto.STRING, ["n"])
    save_arrays(tmp_path / "text.npz", {"in": np.array([b"\xff\xfe", b"b"])})
    done = bench(made, "--input", tmp_path / "text.npz")
    assert done.code == 2 and "input in: expected text in UTF-8, got b'\\xff'" in done.err


def test_a_fallback_is_not_silent(tmp_path: Path) -> None:
    model = risk_model(tmp_path / "model.onnx")
    write_release(tmp_path, manifest_for(model, "risk", serving=ServingOptions(providers=("cuda", "cpu"))))
    asked = (tmp_path, *QUICK, *WIDE_BUDGET, "--through", "process")
    assert "risk@1: expected cuda, runs on cpu" in " ".join(bench(*asked).out.split())
    notes = bench(*asked, "--compare", tmp_path / "model.onnx", "--json").json["notes"]
    assert sum(note.startswith("risk@1: expected cuda") for note in notes) == 1, notes


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_standard_stream_does_not_cost_the_verdict(model: Path, closed: str) -> None:
    words = [sys.executable, "-m", "edgeward_agent", "bench", model, *QUICK, *WIDE_BUDGET, "--through", "process"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, NOISY) and "Traceback" not in done.stdout + done.stderr, done
    assert ("risk.onnx" in done.stdout) == (closed == "2")


def test_a_narrow_terminal_is_laid_out_for_what_it_is(model: Path) -> None:
    words = [sys.executable, "-m", "edgeward_agent", "bench", str(model), "--compare", str(model), *QUICK]
    words += ["--through", "process"]
    master, terminal = pty.openpty()
    with (
        os.fdopen(master, "rb", buffering=0) as screen,
        subprocess.Popen(words, stdout=terminal, env=os.environ | {"COLUMNS": "40"}),
    ):
        os.close(terminal)
        shown = b"".join(iter(lambda: _read(screen), b"")).decode()
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    assert max(len(line) for line in lines if not line.startswith("Next")) in range(34, 41), shown
    assert sum("in process " in line for line in lines) >= 4  # each row goes on below


def _read(screen: IO[bytes]) -> bytes:
    """Empty where a terminal has ended, which Linux says with an error."""
    try:
        return screen.read(4096)
    except OSError:
        return b""


def test_cases_that_are_not_as_many_of_each_input_are_refused(tmp_path: Path) -> None:
    summed = sum_model(tmp_path / "sum.onnx")
    names = [each.name for each in onnx.load(summed).graph.input]
    uneven = {f"input:{name}": np.ones((count, 2), np.int32) for name, count in zip(names, (50, 7), strict=True)}
    save_arrays(tmp_path / "uneven.npz", uneven)
    done = bench(summed, "--input", tmp_path / "uneven.npz")
    assert done.code == 2 and f"expected as many cases of each input, got 50 of {names[0]}, 7 of" in done.err


def test_a_calibration_that_calibrates_nothing_is_refused_or_told(model: Path, tmp_path: Path) -> None:
    quantize = (model, "--quantize", "--through", "process", *QUICK, "--calibration", tmp_path / "c.npz")
    for values, words in (
        (np.full((40, 3), np.nan, np.float32), "expected finite numbers for calibration, got NaN or infinity"),
        (np.zeros((0, 3), np.float32), "expected at least one case, got none"),
    ):
        save_arrays(tmp_path / "c.npz", {"features": values})
        done = bench(*quantize)
        assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 2, done.err
    save_arrays(tmp_path / "c.npz", {"features": np.zeros((40, 3), np.float32)})
    done = bench(*quantize)
    assert "Warning: calibrated with zeros alone" in done.out and done.err == ""


@pytest.mark.parametrize(("path", "code"), [("process", 2), ("tcp", 3)])  # a server may fail for reasons of its own
def test_what_fails_in_the_model_is_said_without_the_places_in_the_runtime(
    tmp_path: Path, path: str, code: int
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    s = helper.make_tensor_value_info("s", TensorProto.INT64, [2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [x, s], [out])
    model = save(tmp_path / "reshape.onnx", graph)
    done = bench(model, "--through", path, "-i", "x=1,2,3,4", "-i", "s=3,3", *QUICK)
    assert (
        done.code == code and "Status Message: The input tensor cannot be reshaped to the requested shape." in done.err
    )
    assert "/onnxruntime" not in done.err and "::" not in done.err


def test_models_of_other_inputs_are_not_compared(model: Path, tmp_path: Path) -> None:
    done = bench(model, "--compare", sum_model(tmp_path / "sum.onnx"))
    assert done.code == 2 and "expected inputs features FP32 rank 2" in done.err


def test_without_the_package_onnx_quantising_says_how_to_get_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    done = bench(model, "--quantize")
    assert done.code == 2 and done.err.splitlines()[1] == "  pip install 'edgeward[tools]'"
