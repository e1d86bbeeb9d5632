"""`edgeward-agent bench` on real models, with real serving processes, as a person types it."""

from __future__ import annotations

import json
import re
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeward_agent.bench import inlining
from edgeward_agent.bench import machine as looking
from edgeward_agent.bench.cases import Cases
from edgeward_agent.bench.comparing import Pair, in_process, starts
from edgeward_agent.bench.daemon import daemon
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.paths import Opened
from edgeward_agent.bench.preparing import prepare
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.schedule import Load, Wishes
from edgeward_agent.bench.subject import Subject, load
from edgeward_agent.bench.targets import InProcess
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving.session import Session
from edgeward_contract.manifest import Budget
from edgeward_contract.serving_options import ServingOptions
from support.bench import answer, metadata, pretending
from support.bench_command import NOISY, QUICK, WIDE_BUDGET, Done, bench, save_arrays
from support.onnx_files import risk_model, save
from support.serving import identity_model, manifest_for, slow_model, write_release


def _until_quiet(*arguments: str | Path) -> Iterator[Done]:
    """Again while the rounds differ so much that nothing can be said: other tests run beside this one."""
    for _ in range(5):
        yield bench(*arguments)


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


def test_the_outermost_path_is_judged_in_whatever_order_they_are_typed(model: Path) -> None:
    found = bench(model, "--through", "tcp,process", "--requests", "60", "--force", "--json").json
    assert [path["name"] for path in found["paths"]] == ["in process", "TCP"] and found["verdict"]["path"] == "TCP"
    told = " ".join(bench("--help").out.split())
    assert "Some of process,unix,tcp; the last in that order is judged." in told


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


def test_as_many_requests_are_asked_as_were_asked_for(model: Path) -> None:
    found = bench(model, "--requests", "301", *WIDE_BUDGET, "--json").json
    assert [path["n"] for path in found["paths"]] == [301, 301, 301]


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
    assert found["settings"]["clients"] == 1


@pytest.mark.parametrize(
    ("mode", "clients", "paths"),
    [
        (["--clients", "4"], 4, ["unix socket", "TCP"]),
        (["--clients", "4", "--compare"], 4, ["TCP", "TCP, again.onnx"]),
        (["--rate", "50", "--through", "process,tcp"], 1, ["in process", "TCP"]),
    ],
)
def test_the_session_has_one_caller_and_is_never_held_beside_several(
    model: Path, tmp_path: Path, mode: list[str], clients: int, paths: list[str]
) -> None:
    other = [risk_model(tmp_path / "again.onnx")] if "--compare" in mode else []
    found = bench(model, *mode, *other, "--duration", "0.6s", *WIDE_BUDGET, "--json").json
    assert found["settings"]["clients"] == clients and [path["name"] for path in found["paths"]] == paths
    assert all(each["over"].partition(",")[0] in paths for each in found["added"])


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


def test_a_model_whose_weights_lie_beside_it_is_quantised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_model(tmp_path / "whole.onnx", rounds=1)
    parts = tmp_path / "parts.onnx"
    onnx.save(onnx.load(tmp_path / "whole.onnx"), parts, save_as_external_data=True, location="w.data")
    common = (parts, "--quantize", "--through", "process", *QUICK, *WIDE_BUDGET)
    done = bench(*common)
    assert done.code in (0, NOISY) and "not kept: --output FILE does" in " ".join(done.out.split()), done.err
    monkeypatch.setattr(inlining, "MOST_BYTES", 500_000)
    done = bench(*common)
    told = done.err.replace("\xa0", " ")
    assert done.code == 2 and "expected a model of at most 488 KiB, weights included, got 1.0 MiB" in told
    assert "hold it beside this one with --compare" in told


def test_a_sweep_tries_every_combination_and_marks_the_best(model: Path) -> None:
    tried = _until_quiet(model, "--sweep", "threads=1:2,batch=1:4", *QUICK, *WIDE_BUDGET, "--json")
    found = next(each for each in tried if each.code != NOISY).json
    assert [(row["threads"], row["batch"]) for row in found["sweep"]] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    marks = [row["marks"] for row in found["sweep"] if row["marks"]]
    assert sum("fastest" in each for each in marks) == 1  # and one that also does the most says that it is the fastest
    assert {mark for each in marks for mark in each} <= {"fastest", "most"}
    assert found["verdict"]["outcome"] == "pass" and found["exit_code"] == 0


def test_a_batch_that_cannot_be_swept_is_said(tmp_path: Path) -> None:
    free = risk_model(tmp_path / "free.onnx")
    nothing = helper.make_node("Constant", [], ["y"], value_floats=[1.0])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    none = save(tmp_path / "none.onnx", helper.make_graph([nothing], "none", [], [out]))
    for path, shape, expected, got in (
        (none, (), "a model with inputs", "one without any"),
        (risk_model(tmp_path / "fixed.onnx", batch=8), (), "a model whose first axis is free", "one that fixes it"),
        (free, ("--shape", "features=8,3"), "requests of one case each", "requests with 8 in their first axis"),
    ):
        refused = bench(path, "--sweep", "batch=1:2", *shape)
        assert refused.code == 2 and f"--sweep batch: expected {expected}, got {got}" in refused.err
        found = bench(path, "--sweep", "batch", *shape, *QUICK, *WIDE_BUDGET, "--json").json
        assert [row["batch"] for row in found["sweep"]] == [1]
        assert f"the batch was not swept: that needs {expected}, and this is {got}" in found["notes"]


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


@pytest.mark.parametrize("through", ["process", "tcp"])
def test_a_soak_at_a_low_rate_keeps_its_time_and_has_empty_windows(model: Path, through: str) -> None:
    slow = ("--rate", "2.5", "--through", through, "--force", *WIDE_BUDGET, "--json")
    found = bench(model, "--soak", "3s", *slow).json
    windows = found["soak"]["windows"]
    assert 3 <= found["soak"]["seconds"] < 6 and len(windows) == 8
    assert any(each["n"] == 0 and each["p99_us"] is None for each in windows)
    assert sum(each["n"] for each in windows) == found["paths"][0]["n"] > 0


def test_a_rate_that_brings_nothing_is_refused_with_the_time_that_would_do(model: Path) -> None:
    for mode in ("--soak", "--duration"):
        done = bench(model, "--rate", "0.2", mode, "8s")
        assert done.code == 2 and "expected at least 5 to be due on each path, got 1.6 in 8 s" in done.err
        assert done.err.splitlines()[-1] == f"  Ask for more: {mode} 25s, or a higher rate."
    done = bench(model, "--rate", "2.5", "--duration", "2s", "--seed", "101")
    assert done.code == 2 and "expected requests that are due, got none by chance" in done.err


def test_a_server_elsewhere_is_measured_by_the_name_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy" / "1").mkdir(parents=True)  # as a repository of Triton has it
    risk_model(tmp_path / "toy" / "1" / "model.onnx")
    monkeypatch.chdir(tmp_path)

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
    assert codes == ["0", "1", "2", "3", "70", "130", "143"]
    assert all(len(line) <= 80 for line in lines)
