"""`edgeward-agent bench` on real models, with real serving processes, as a person types it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from edgeward_agent.bench import machine as looking
from edgeward_agent.bench.cases import Cases
from edgeward_agent.bench.comparing import Pair, in_process, starts
from edgeward_agent.bench.daemon import Daemon, daemon
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.paths import Opened
from edgeward_agent.bench.preparing import prepare
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.report import Report
from edgeward_agent.bench.schedule import Load, Wishes
from edgeward_agent.bench.subject import Subject, load
from edgeward_agent.bench.targets import InProcess
from edgeward_agent.cli.app import app
from edgeward_agent.errors import ModelError
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving.session import Session
from edgeward_contract.manifest import Budget
from edgeward_contract.serving_options import ServingOptions
from support.bench import answer, metadata, pretending
from support.onnx_files import risk_model, save
from support.serving import Json, identity_model, manifest_for, slow_model, sum_model, wait_until, write_release

QUICK = ("--duration", "0.4s", "--force")
NOISY = 3
WIDE_BUDGET = ("--budget", "5s@p90")  # a loaded machine must not decide what is not about it


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        return json.loads(self.out)


def bench(*arguments: object) -> Done:
    done = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)
    return Done(done.exit_code, done.stdout, done.stderr)


def _until_quiet(*arguments: str | Path) -> Iterator[Done]:
    """Again while the rounds differ so much that nothing can be said: other tests run beside this one."""
    for _ in range(5):
        yield bench(*arguments)


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Under names that are no words of Python."""
    np.savez(path, **arrays)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return risk_model(tmp_path_factory.mktemp("bench") / "risk.onnx")


@pytest.fixture(scope="module")
def release(checkout: Path) -> Path:
    return checkout / "models/wdbc-risk/releases/2"


def test_a_model_is_measured_on_every_path_and_passes(model: Path) -> None:
    done = next(each for each in _until_quiet(model, *QUICK, *WIDE_BUDGET) if each.code != NOISY)
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[0] == "PASS  risk.onnx makes its budget of 5 s at p90"
    assert lines[3].startswith(f"Next  edgeward-agent bench {model} --force --budget 5s@p90 --rate ")
    for path in ("in process", "unix socket", "TCP"):
        assert any(line.startswith(f"  {path} ") for line in lines), path
    assert done.out.isascii() and done.err == ""


def test_what_cannot_be_met_is_over(model: Path) -> None:
    done = bench(model, *QUICK, "--budget", "1us@p50")
    assert done.code == 1
    assert done.out.startswith("OVER  risk.onnx misses its budget of 1 us at p50")
    assert "--quantize" in done.out


def test_only_what_can_be_quantised_is_advised_to_be(tmp_path: Path) -> None:
    over = ("--through", "process", *QUICK, "--budget", "1us@p50")
    plain = identity_model(tmp_path / "plain.onnx", TensorProto.FLOAT, ["n", 4])
    assert "--quantize" not in bench(plain, *over).out
    big, made = slow_model(tmp_path / "big.onnx", rounds=4), tmp_path / "int8.onnx"
    bench(big, "--quantize", "--through", "process", *QUICK, "--output", made)
    assert "--quantize" in bench(big, *over).out and "--quantize" not in bench(made, *over).out


def test_too_few_requests_decide_nothing(model: Path) -> None:
    done = bench(model, "--requests", "60", "--budget", "5s@p99")
    assert done.code == 3
    assert done.out.startswith("UNSURE  60 requests are too few to hold risk.onnx to 5 s at p99")
    assert re.search(r"--requests [3-9]\d\d|--requests \d{4}", done.out)


def test_a_release_brings_its_budget_and_its_cases(release: Path) -> None:
    found = bench(release, *QUICK, "--json").json
    assert found["verdict"]["budget"] == {"latency_us": 10_000.0, "share": 0.99, "said": "the manifest"}
    assert found["settings"]["cases"] == "24 golden cases" and found["model"]["title"] == "wdbc-risk@2"
    by_name = {path["name"]: path for path in found["paths"]}
    assert list(by_name) == ["in process", "unix socket", "TCP"]
    assert by_name["in process"]["latency"]["p50_us"] < by_name["TCP"]["latency"]["p50_us"]
    assert found["added"][-1]["difference"]["median_us"] > 0
    assert found["server"]["ready_s"] > 0 and found["server"]["resident_bytes"] > 1 << 20


def test_what_a_device_would_refuse_for_being_late_is_measured_being_late(tmp_path: Path) -> None:
    """The daemon refuses at once what cannot make its release's budget: no latency would come of it."""
    slow = slow_model(tmp_path / "model.onnx", rounds=20)
    write_release(tmp_path, replace(manifest_for(slow, "slow"), budget=Budget(latency_us=1)))
    found = bench(tmp_path, "--duration", "0.6s", "--force", "--json").json
    assert found["exit_code"] == 1 and [path["failed"] for path in found["paths"]] == [0, 0, 0]


def test_an_open_loop_counts_from_the_intended_start(model: Path) -> None:
    found = bench(model, "--rate", "50", "--duration", "1s", "--arrivals", "constant", *WIDE_BUDGET, "--json").json
    (path,) = found["paths"]
    assert path["name"] == "TCP" and path["n"] == 50
    assert path["latency"]["p50_us"] >= path["from_sending"]["p50_us"]
    assert found["settings"]["rate"] == 50 and found["settings"]["clients"] == 16


def test_an_open_loop_in_this_process_too(model: Path) -> None:
    found = bench(model, "--rate", "50", "--duration", "1s", "--through", "process", *WIDE_BUDGET, "--json").json
    assert [path["name"] for path in found["paths"]] == ["in process"] and found["server"] is None


@pytest.mark.parametrize("through", ["process", "tcp"])
def test_more_than_a_model_can_carry_keeps_the_duration_and_leaves_nothing_out(tmp_path: Path, through: str) -> None:
    slow = slow_model(tmp_path / "slow.onnx", rounds=60)
    began = time.monotonic()
    done = bench(slow, "--rate", "20000", "--duration", "1s", "--arrivals", "constant", "--through", through, "--json")
    assert time.monotonic() - began < 15
    found = done.json
    (path,) = found["paths"]
    assert path["n"] == 20_000 and path["failed"] > 10_000 and "still waiting to be sent" in path["failure"]
    assert found["verdict"]["outcome"] == "over" or found["noise"]["reasons"]
    assert found["settings"]["duration_s"] < 5
    if found["exit_code"] == 1:
        rate = float(found["next"][0]["command"].rpartition("--rate ")[2])
        assert 0 < rate < path["per_second"]


def test_two_models_side_by_side(checkout: Path, release: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = bench(release, "--compare", checkout / "models/wdbc-risk/releases/3", *QUICK, "--html", page)
    assert "Golden cases within tolerance: 24 of 24, wdbc-risk@3" in done.out
    assert "In process" in done.out and "Over TCP" in done.out and f"The page: {page}" in done.out
    assert "wdbc-risk@3" in page.read_text()


def test_the_same_model_twice_shows_no_difference(model: Path, tmp_path: Path) -> None:
    other = risk_model(tmp_path / "again.onnx")
    found = bench(model, "--compare", other, "--through", "process", *QUICK, *WIDE_BUDGET, "--json").json
    (output,) = found["compared"]["outputs"]
    assert output["max_abs"] == 0 and output["equal_share"] == 1
    assert found["compared"]["second"]["title"] == "again.onnx"


def test_answers_without_a_finite_number_are_remarked(model: Path, tmp_path: Path) -> None:
    nothing = risk_model(tmp_path / "nan.onnx", weights=np.full((3, 1), np.nan, np.float32))
    common = ("--through", "process", *QUICK, *WIDE_BUDGET)
    told = "nan.onnx answers the first case without a finite number in risk"
    for arguments in ((nothing,), (model, "--compare", nothing)):
        done = bench(*arguments, *common)
        assert f"Note: {told}" in " ".join(done.out.split())
    assert "no element of risk is finite in both models" in " ".join(done.out.split())
    assert bench(model, *common, "--json").json["notes"] == []


def test_a_duration_that_is_too_short_gives_way_to_six_starts_and_says_so(tmp_path: Path) -> None:
    one, other = (slow_model(tmp_path / name, rounds=60) for name in ("one.onnx", "other.onnx"))
    pair = (one, "--compare", other, "--through", "process", "--force")
    found = bench(*pair, "--duration", "50ms", "--json").json
    (times,) = found["compared"]["times"]
    assert times["difference"]["pairs"] == 6
    (note,) = found["notes"]
    assert note.startswith("--duration 0.05") and note.endswith("an interval needs 6 starts of both models")


class Recorded(InProcess):
    """Writes down when it is reopened."""

    def __init__(self, name: str, subject: Subject, cases: Cases, log: list[str]) -> None:
        super().__init__(name, subject.session, cases.feeds)
        self._log = log

    def reopen(self, session: Callable[[], Session]) -> None:
        super().reopen(session)
        self._log.append(self.name)


def test_two_models_are_opened_anew_in_every_round_each_of_them_first_in_turn(model: Path, tmp_path: Path) -> None:
    prepared = prepare(Options(model=str(model), wishes=Wishes()))
    pair = Pair(
        first=prepared, second=load(risk_model(tmp_path / "b.onnx")), label="b", kind="compare", cases=prepared.cases
    )
    log: list[str] = []
    first, second = (
        Opened(targets=(Recorded(name, subject, prepared.cases, log),))
        for name, subject in (("a", prepared.at_hand), ("b", pair.second))
    )
    sides = in_process((first, second), pair)
    for stay, order in ((1, "baabbaab"), (3, "baab")):
        before = starts(sides, stay)
        log.clear()
        for number in range(4):
            before(number)
        assert "".join(log) == order
    assert not first.targets[0].run(Load(count=1)).failed


def test_an_old_session_stays_until_the_new_one_has_a_place_of_its_own(model: Path) -> None:
    session = load(model).session
    old = weakref.ref(session)
    target = InProcess("a", session, [])
    del session

    def opened() -> Session:
        assert old() is not None
        return load(model).session

    target.reopen(opened)
    assert old() is None


def test_quantising_shows_both_and_keeps_the_file_where_asked(tmp_path: Path) -> None:
    big = slow_model(tmp_path / "big.onnx", rounds=4)
    cases = np.random.default_rng(0).random((40, 512), dtype=np.float32)
    save_arrays(tmp_path / "cases.npz", {"in": cases})
    kept = tmp_path / "int8.onnx"
    common = ("--quantize", "--through", "process", *QUICK, *WIDE_BUDGET)
    done = bench(big, *common, "--calibration", tmp_path / "cases.npz", "--output", kept)
    assert done.code == 0, done.err
    assert "answers to 20 of 40 cases from cases.npz" in done.out and f"written to {kept}" in " ".join(done.out.split())
    assert onnx.load(kept).graph.node and b"DequantizeLinear" in kept.read_bytes()
    assert "Warning: calibrated with random numbers" in bench(big, *common).out


def test_a_sweep_tries_every_combination_and_marks_the_best(model: Path) -> None:
    tried = _until_quiet(model, "--sweep", "threads=1:2,batch=1:4", *QUICK, *WIDE_BUDGET, "--json")
    found = next(each for each in tried if each.code != NOISY).json
    assert [(row["threads"], row["batch"]) for row in found["sweep"]] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    marks = [row["marks"] for row in found["sweep"] if row["marks"]]
    assert sum("fastest" in each for each in marks) == 1  # and one that also does the most says that it is the fastest
    assert {mark for each in marks for mark in each} <= {"fastest", "most"}
    assert found["verdict"]["outcome"] == "pass" and found["exit_code"] == 0


def test_a_sweep_names_the_threads_that_a_session_has_and_nothing_twice(model: Path) -> None:
    wish = f"threads={usable_cores()}:64,batch=1:1"
    (row,) = bench(model, *QUICK, *WIDE_BUDGET, "--sweep", wish, "--json").json["sweep"]
    assert row["threads"] == usable_cores()


def test_a_sweep_keeps_what_the_manifest_says_of_all_that_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = identity_model(tmp_path / "model.onnx", TensorProto.FLOAT, ["n", "width"])
    pinned = ServingOptions(threads=2, dimensions={"width": 7}, shrink_arena=True)
    seen = Session(path, pinned).interface
    made = manifest_for(
        path, "pinned", inputs=[*seen.inputs.values()], outputs=[*seen.outputs.values()], serving=pinned
    )
    write_release(tmp_path, made)
    opened: list[ServingOptions] = []

    def remembering(file: Path, options: ServingOptions) -> Session:
        opened.append(options)
        return Session(file, options)

    monkeypatch.setattr("edgeward_agent.bench.sweeping.Session", remembering)
    for swept, wanted in (("batch=1:2", pinned), ("threads=1", replace(pinned, threads=1))):
        opened.clear()
        rows = bench(tmp_path, *QUICK, *WIDE_BUDGET, "--sweep", swept, "--json").json["sweep"]
        assert opened == [wanted] or usable_cores() == 1
        assert {row["threads"] for row in rows} == {min(wanted.threads, usable_cores())}


def test_a_soak_watches_latency_and_memory(model: Path) -> None:
    found = bench(model, "--soak", "1s", "--force", *WIDE_BUDGET, "--json").json
    soak = found["soak"]
    assert len(soak["windows"]) == 8 and all(window["resident_bytes"] for window in soak["windows"])
    assert {trend["of"] for trend in soak["trends"]} == {"p99", "memory"}
    assert soak["path"] == "TCP" and found["paths"][0]["n"] == sum(window["n"] for window in soak["windows"])


def test_a_server_elsewhere_is_measured_by_the_name_of_its_model() -> None:
    def behave(at: int, _: object) -> bytes:
        return metadata() if server.asked[at].startswith(b"GET ") else answer()

    with pretending(behave) as server:
        found = bench(
            "toy", "--url", str(server.place), "--header", "X-Site: north", *QUICK, *WIDE_BUDGET, "--json"
        ).json
        assert server.asked[0].startswith(b"GET /v2/models/toy HTTP/1.1\r\n")
        assert all(b"X-Site: north\r\n" in head for head in server.asked)
    assert found["verdict"]["outcome"] == "pass" and found["paths"][0]["name"] == str(server.place)
    assert found["model"]["inputs"] == ["features FP32 [?, 3]"]


def test_our_own_server_and_the_file_beside_it(model: Path) -> None:
    with daemon(model) as running:
        address = str(running.tcp)
        found = bench(model, "--url", address, *QUICK, *WIDE_BUDGET, "--json").json
    assert [path["name"] for path in found["paths"]] == ["in process", address]


def test_inputs_of_ones_own(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    save_arrays(tmp_path / "some.npz", {"input:features": np.ones((5, 3), np.float32)})
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    (tmp_path / "asked.json").write_text(json.dumps({"inputs": [tensor]}))
    for given, told in (
        ("features=1,2,3", "one request of your own"),
        (f"features=@{tmp_path / 'one.npy'}", "one request of your own"),
        (str(tmp_path / "some.npz"), "5 cases from some.npz"),
        (str(tmp_path / "asked.json"), "one request from asked.json"),
    ):
        found = bench(model, "--input", given, "--through", "process", "--requests", "60", "--json").json
        assert found["settings"]["cases"] == told


def test_a_model_of_bf16_is_measured_every_way(tmp_path: Path) -> None:
    """Numpy has no such type: the bits travel as uint16."""
    made = identity_model(tmp_path / "bf16.onnx", TensorProto.BFLOAT16, ["n", 4])
    found = bench(made, *QUICK, *WIDE_BUDGET, "--json").json
    assert [(path["name"], path["failed"]) for path in found["paths"]] == [
        ("in process", 0),
        ("unix socket", 0),
        ("TCP", 0),
    ]
    assert bench(made, "--sweep", "threads=1:2", *QUICK, *WIDE_BUDGET, "--json").json["sweep"]
    other = identity_model(tmp_path / "other.onnx", TensorProto.BFLOAT16, ["n", 4])
    (output,) = bench(made, "--compare", other, *QUICK, "--json").json["compared"]["outputs"]
    assert output["max_abs"] == 0 and 0.9 < output["scale"] < 1
    save_arrays(tmp_path / "some.npz", {"input:in": np.ones((5, 4))})
    with daemon(made) as running:
        found = bench("bf16", "--url", running.tcp, "-i", tmp_path / "some.npz", *QUICK, *WIDE_BUDGET, "--json").json
    assert found["paths"][0]["failed"] == 0 and found["settings"]["cases"] == "5 cases from some.npz"


def test_what_cannot_carry_bf16_says_so(tmp_path: Path) -> None:
    made = identity_model(tmp_path / "bf16.onnx", TensorProto.BFLOAT16, ["n", 1])
    asked = {"inputs": [{"name": "in", "datatype": "BF16", "shape": [1, 1], "data": [1]}]}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    save_arrays(tmp_path / "whole.npz", {"in": np.ones((1, 1), np.int32)})
    for given, words in (
        ("in=1", "BF16 has no form as text or JSON; give NAME=@FILE.npy"),
        (str(tmp_path / "asked.json"), "BF16 has no form in JSON"),
        (str(tmp_path / "whole.npz"), "expected floats, or BF16 as its bits (uint16), got int32"),
    ):
        done = bench(made, "--input", given)
        assert done.code == 2 and words in done.err and len(done.err.splitlines()) == 2, done.err


def test_a_file_that_holds_no_arrays_is_named(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 3)))
    (tmp_path / "x.npy").rename(tmp_path / "renamed.npz")
    np.save(tmp_path / "x.npy", np.ones((40, 3)))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "pickled.npz", features=np.array([{}], object))
    np.savez(tmp_path / "good.npz", features=np.ones((40, 4), np.float32))
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:60] + b"\xff" * 60 + whole[120:])
    for name, words in (
        ("renamed.npz", "got: a single array"),
        ("text.npz", "got: a file of another kind"),
        ("pickled.npz", "got: 'features', which is no plain array"),
        ("cut.npz", "got: 'features', which is no plain array"),
        ("good.npz", "input features: expected shape [?, 3], got ["),
        ("x.npy", "got: a single array"),
    ):
        given: list[tuple[object, ...]] = [("--quantize", "--calibration", tmp_path / name)]
        given += [] if name == "x.npy" else [("-i", tmp_path / name)]
        for arguments in given:
            done = bench(model, *arguments)
            assert done.code == 2 and words in done.err and f"{tmp_path / name}: " in done.err, done.err
            assert len(done.err.splitlines()) == 2 and "allow_pickle" not in done.err
    for name, words in (("text.npy", "got objects or a file of another kind"), ("good.npz", "got an .npz")):
        done = bench(model, "-i", f"features=@{tmp_path / name}")
        assert done.code == 2 and words in done.err and "allow_pickle" not in done.err, done.err


def test_a_noisy_machine_decides_nothing_that_noise_could_have_done(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe is the one place where a test may be noisy at will."""

    def noisy(self: looking.Probe, pieces: int) -> Floats:
        return np.where(np.arange(pieces) % 10 == 0, 2e6, 200.0)

    monkeypatch.setattr(looking.Probe, "times", noisy)
    over = ("--budget", "1us@p50", "--through", "process", "--duration", "0.2s")
    done = bench(model, *over)
    assert done.code == 3
    assert done.out.startswith("UNSURE  this machine is too noisy to hold risk.onnx to 1 us at p50")
    assert "Close other programs" in done.out
    assert bench(model, *over, "--force").code == 1


# -- what is wrong is one line, with the way out


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
    (note,) = bench(*asked, "--compare", tmp_path / "model.onnx", "--json").json["notes"]
    assert note.startswith("risk@1: expected cuda")


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


def test_models_of_other_inputs_are_not_compared(model: Path, tmp_path: Path) -> None:
    done = bench(model, "--compare", sum_model(tmp_path / "sum.onnx"))
    assert done.code == 2 and "expected inputs features FP32 rank 2" in done.err


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
        (["--shape", "features=1,30", "--input", "x.npz"], "--shape is for random input, and --input gives it"),
    ],
)
def test_a_command_line_that_makes_no_sense(model: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["bench", str(model), *arguments])
    assert done.exit_code == 2 and words in done.stderr


@pytest.mark.parametrize("header", ["Bearer-hush", "A B: hush", "A: hush\n", "A: hush\u0142"])
def test_a_header_that_is_refused_is_not_repeated(header: str) -> None:
    done = CliRunner().invoke(app, ["bench", "toy", "--url", "http://127.0.0.1:1", "--header", header])
    assert done.exit_code in (2, 3) and "hush" not in done.stderr


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


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    rude = b'{"error":"\\u001b[2J\\u0007\\u0000\\u202e gone"}'

    def behave(at: int, _: object) -> bytes:
        asked = server.asked[at]
        if asked.startswith(b"GET /v2/models/other"):
            return answer(rude, "404 Not Found")
        return metadata() if asked.startswith(b"GET ") else answer(rude, "500 No")

    with pretending(behave) as server:
        for model in ("toy", "other"):
            done = bench(model, "--url", server.place)
            assert done.code == 2 and "\\x1b[2J\\x07\\x00\\u202e gone" in done.err
            assert not set("\x1b\x07\x00\u202e") & set(done.out + done.err)


def test_without_the_package_onnx_quantising_says_how_to_get_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    done = bench(model, "--quantize")
    assert done.code == 2 and done.err.splitlines()[1] == "  pip install 'edgeward[tools]'"


def test_help_is_in_sections_and_ends_with_examples() -> None:
    lines = bench("--help").out.splitlines()
    sections = [line for line in lines if line.endswith(":") and not line.startswith("  ")]
    assert sections == [
        "What it is held to:",
        "How it is asked:",
        "What it is asked:",
        "More than one measurement:",
        "A server elsewhere:",
        "What is shown:",
    ]
    examples = [line for line in lines if line.startswith("    edgeward-agent bench ")]
    assert len(examples) == 8 and lines.index("  Examples:") > lines.index("What is shown:")
    codes = [line.split()[0] for line in lines[lines.index("  Exit codes:") + 1 :]]
    assert codes == ["0", "1", "2", "3", "70", "130"]
    assert all(len(line) <= 80 for line in lines)


# -- a server that goes away


@pytest.mark.parametrize(
    ("mode", "codes", "told"),
    [
        (("--soak", "20s"), {1}, "The server of risk.onnx went away"),
        (("--duration", "20s"), {3}, "The server of risk.onnx went away"),
        (("--rate", "500", "--duration", "20s"), {1, 3}, "The server went away in round "),
    ],
)
def test_a_server_that_dies_leaves_what_was_measured(
    model: Path, tmp_path: Path, mode: tuple[str, ...], codes: set[int], told: str
) -> None:
    page = tmp_path / "page.html"
    with daemon(model) as running:
        threading.Thread(target=_kill_at_work, args=(running,), daemon=True).start()
        done = bench(model, "--url", running.tcp, *mode, *WIDE_BUDGET, "--json", "--html", page)
    found = done.json
    path = found["paths"][-1]
    assert done.code == found["exit_code"] and done.code in codes
    assert 0 < path["failed"] < path["n"] and found["lost"].startswith("no connection could be made")
    assert told in page.read_text()
    assert found["next"][0]["why"].startswith("See the server's own log")


def _kill_at_work(running: Daemon) -> None:
    before = running.cpu_s()
    wait_until(lambda: running.cpu_s() > before + 0.7)  # the warm-up takes half a second
    os.kill(running.pid, signal.SIGKILL)


def test_a_process_that_has_ended_holds_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until(lambda: _ended(process.pid))
        assert looking.resident_bytes(process.pid) is None


# -- Ctrl-C


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_shows_what_it_has_and_leaves_no_server(model: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "edgeward_agent", "bench", str(model), "--duration", "60s", *WIDE_BUDGET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: len(_children(process.pid)) == 1)
            (server,) = _children(process.pid)
            wait_until(lambda: looking.process_cpu_s(server) > 0.5)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert not Path(f"/proc/{server}").exists()
    if number == signal.SIGINT:
        assert "interrupted" in out + err and "Traceback" not in err


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C in the measurement of that number, the warm-up's left out."""
    run, asked = InProcess.run, [0]

    def interrupted(self: InProcess, load: Load) -> Any:
        if load.first or load.count > 500 or load.seconds > 0.3:
            asked[0] += 1
            if asked[0] > number:
                raise KeyboardInterrupt
        return run(self, load)

    monkeypatch.setattr(InProcess, "run", interrupted)


def test_a_sweep_that_is_interrupted_in_its_first_round_shows_what_it_has(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt_at(monkeypatch, 2)
    sweep = ("--sweep", "batch=1:2:3", "--requests", "6000")
    done = bench(model, *sweep, "--duration", "3s", "--json")
    rows = done.json["sweep"]
    assert done.code == 130 and [bool(row["n"]) for row in rows] == [True, True, False]
    assert rows[-1]["failure"] == "interrupted before its turn"


def test_a_sweep_that_is_interrupted_says_so_first(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupt_at(monkeypatch, 2)
    done = bench(model, "--sweep", "batch=1:2:3", "--requests", "6000", "--duration", "3s")
    assert done.out.startswith("interrupted in round 1 of 10, ") and "interrupted before its turn" in done.out


@pytest.mark.parametrize(("number", "shown"), [(2, True), (1, False)])
def test_a_quantised_model_is_kept_and_shown_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, shown: bool
) -> None:
    big = slow_model(tmp_path / "big.onnx", rounds=4)
    kept = tmp_path / "int8.onnx"
    probes = iter(range(1000))
    run = InProcess.run

    def interrupted(self: InProcess, load: Load) -> Any:
        if load.count == 50 and next(probes) >= number:
            raise KeyboardInterrupt
        return run(self, load)

    monkeypatch.setattr(InProcess, "run", interrupted)
    probe = looking.Probe.times

    def times(self: looking.Probe, pieces: int) -> Floats:
        if pieces == 40 and shown:
            raise KeyboardInterrupt  # both were asked, and the round is not over
        return probe(self, pieces)

    monkeypatch.setattr(looking.Probe, "times", times)
    done = bench(big, "--quantize", "--through", "process", "--requests", "1000", "--output", kept)
    assert done.code == 130 and kept.is_file(), done.err
    if shown:
        assert "answers to 16 random cases" in done.out and "written to" in done.out
    else:
        assert f"the quantised model was made, and it is in {kept}" in done.err


@pytest.mark.parametrize("cpu_s", [0.05, 0.3, 0.5], ids=["at its start", "in its start", "at work"])
def test_a_run_that_is_killed_leaves_no_server_and_no_file(model: Path, cpu_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="killed-") as scratch:  # a short path: a socket has to fit into it
        with _bench_beside(model, scratch, "--soak", "60s") as process:
            try:
                wait_until(lambda: len(_children(process.pid)) == 1)
                (server,) = _children(process.pid)
                wait_until(lambda: looking.process_cpu_s(server) > cpu_s)
            finally:
                process.kill()
        wait_until(lambda: _ended(server))
        assert not list(Path(scratch).iterdir())


def test_a_place_for_temporary_files_whose_path_is_too_long_for_a_socket_does(model: Path, tmp_path: Path) -> None:
    scratch = tmp_path / ("x" * 90)
    scratch.mkdir()
    with _bench_beside(model, scratch, "--requests", "50", "--json", "--force", *WIDE_BUDGET) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 3), err
    assert [each["name"] for each in json.loads(out)["paths"]] == ["in process", "unix socket", "TCP"]


def _bench_beside(model: Path, scratch: Path | str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgeward_agent", "bench", str(model), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )


def _ended(pid: int) -> bool:
    """Gone, or a zombie whose new parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
