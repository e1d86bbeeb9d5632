"""The real probe: a child process in its box, over real ONNX files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeward_agent.ports import ProbeReason, ProbeVerdict
from edgeward_agent.priority import step_back
from edgeward_agent.update.child import ChildEnd, run_child
from edgeward_agent.update.confinement import Limits
from edgeward_agent.update.probe import ChildProbe, examine, read_verdict
from edgeward_contract.manifest import Budget, Datatype, Manifest, TensorSpec
from edgeward_contract.serving_options import Batching, ServingOptions
from support.models import wdbc_release
from support.onnx_files import WEIGHTS, risk_model, save
from support.update_onnx import RISK, golden, release, write_manifest


@pytest.mark.parametrize("version", [1, 2, 4])
def test_the_good_versions_pass(version: int) -> None:
    verdict = examine(wdbc_release(version))
    assert (verdict.ok, verdict.cases) == (True, 24)
    assert 0 < verdict.p50_us <= verdict.p99_us
    assert 0 < verdict.peak_memory_bytes < 200 << 20


@pytest.mark.parametrize(
    ("version", "reason", "words"),
    [
        (3, ProbeReason.GOLDEN_MISMATCH, "golden case 1 of 24: risk"),
        (5, ProbeReason.TOO_SLOW, "expected a median of at most 10000 µs of processor time"),
    ],
)
def test_the_bad_versions_are_refused(version: int, reason: ProbeReason, words: str) -> None:
    verdict = examine(wdbc_release(version))
    assert (verdict.reason, words in verdict.detail) == (reason, True), verdict.detail


def test_a_small_release_passes(tmp_path: Path) -> None:
    assert examine(release(tmp_path / "r")).reason is ProbeReason.OK


def test_one_wrong_case_is_enough(tmp_path: Path) -> None:
    arrays = golden()
    arrays["output:risk"] = np.array(arrays["output:risk"])
    arrays["output:risk"][4, 0] += np.float32(0.01)
    verdict = examine(release(tmp_path / "r", arrays=arrays))
    assert verdict.reason is ProbeReason.GOLDEN_MISMATCH
    assert verdict.detail.startswith("golden case 4 of 5: risk[0, 0]: expected ")


def _neighbourly_model(path: Path) -> bytes:
    """Right for a batch of one; among others every row moves by the mean of all."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            helper.make_node("ReduceMean", ["sum"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Add", ["sum", "sum"], ["twice"]),
            helper.make_node("Sub", ["twice", "mean"], ["moved"]),
            helper.make_node("Sigmoid", ["moved"], ["risk"]),
        ],
        "risk",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    return save(path, graph).read_bytes()


def test_rows_that_depend_on_each_other_are_found_before_they_are_joined(tmp_path: Path) -> None:
    model = _neighbourly_model(tmp_path / "m.onnx")
    joined = ServingOptions(batching=Batching(max_rows=4))
    assert examine(release(tmp_path / "alone", model=model)).ok
    assert examine(release(tmp_path / "good", serving=joined)).ok
    verdict = examine(release(tmp_path / "bad", model=model, serving=joined))
    assert verdict.reason is ProbeReason.GOLDEN_MISMATCH
    assert verdict.detail.startswith("golden case 0 joined with 3 others: risk[0, 0]: expected")


def test_rows_that_nobody_could_tell_apart_are_not_joined(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(risk_model(tmp_path / "m.onnx").read_bytes())
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "K"
    joined = ServingOptions(batching=Batching(max_rows=4))
    verdict = examine(release(tmp_path / "r", model=model.SerializeToString(), serving=joined))
    assert verdict.reason is ProbeReason.MANIFEST_MISMATCH
    assert verdict.detail.startswith("serving.batching: expected one name for the first axis of every tensor")
    assert examine(release(tmp_path / "alone", model=model.SerializeToString())).ok


def test_a_model_that_answers_nan(tmp_path: Path) -> None:
    weights = np.array([[np.nan], [0.0], [0.0]], dtype=np.float32)
    model = risk_model(tmp_path / "nan.onnx", weights=weights).read_bytes()
    verdict = examine(release(tmp_path / "r", model=model, tolerance=1e30))
    assert (verdict.reason, "got nan" in verdict.detail) == (ProbeReason.GOLDEN_MISMATCH, True)


def test_a_model_that_fails_on_a_golden_case(tmp_path: Path) -> None:
    """Gather with an index out of range: fine to load, fails when it runs."""
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["at"], value_ints=[7]),
            helper.make_node("Gather", ["features", "at"], ["risk"], axis=1),
        ],
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["N", 1])],
    )
    verdict = examine(release(tmp_path / "r", model=save(tmp_path / "m.onnx", graph).read_bytes()))
    assert (verdict.reason, "the model failed" in verdict.detail) == (ProbeReason.GOLDEN_MISMATCH, True), verdict


def test_a_model_that_takes_its_process_down(tmp_path: Path) -> None:
    """The smallest INT64 divided by -1: the runtime does not look, and an x86 processor ends the process."""
    integers = [helper.make_tensor("least", TensorProto.INT64, [1], [-(2**63)])]
    integers.append(helper.make_tensor("minus_one", TensorProto.INT64, [1], [-1]))
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["least", "minus_one"], ["quotient"]),
            helper.make_node("Cast", ["quotient"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["features", "number"], ["risk"]),
        ],
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["N", 3])],
        integers,
    )
    outputs = (replace(RISK, shape=(-1, 3)),)
    verdict = examine(release(tmp_path / "r", model=save(tmp_path / "m.onnx", graph).read_bytes(), outputs=outputs))
    if platform.machine() in ("x86_64", "AMD64"):
        assert (verdict.reason, verdict.detail) == (ProbeReason.CRASHED, "expected an answer, the probe died of SIGFPE")
    else:
        assert verdict.reason is ProbeReason.GOLDEN_MISMATCH


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    verdict = examine(release(tmp_path / "r", model=b"this is no model at all"))
    assert (verdict.reason, verdict.detail[:30]) == (ProbeReason.POLICY, "expected an ONNX file, got byt")


def test_a_model_that_does_not_load(tmp_path: Path) -> None:
    model = onnx.load(risk_model(tmp_path / "m.onnx"))
    model.graph.node[0].op_type = "NoSuchOperator"
    verdict = examine(release(tmp_path / "r", model=model.SerializeToString()))
    assert verdict.reason is ProbeReason.LOAD_FAILED
    assert verdict.detail.startswith("model.onnx: expected an ONNX model that loads, got: ")


def test_a_model_that_points_outside(tmp_path: Path) -> None:
    model = onnx.load(risk_model(tmp_path / "m.onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    verdict = examine(release(tmp_path / "r", model=model.SerializeToString()))
    assert (verdict.reason, "external data" in verdict.detail) == (ProbeReason.POLICY, True)


def test_a_manifest_of_another_file(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    weights = np.zeros((3, 1), np.float32)
    risk_model(folder / "model.onnx", weights=weights)
    verdict = examine(folder)
    assert verdict.reason is ProbeReason.MANIFEST_MISMATCH
    assert verdict.detail.startswith("model.onnx: expected the file that its manifest names (sha256 ")


def test_another_golden_set(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    (folder / "golden.npz").write_bytes(b"")
    verdict = examine(folder)
    assert (verdict.reason, verdict.detail[:28]) == (
        ProbeReason.MANIFEST_MISMATCH,
        "golden.npz: expected sha256 ",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "characteristics"}, "expected inputs ['characteristics'] as the manifest says, got ['features']"),
        ({"datatype": Datatype.FP64}, "input features: expected FP64, got FP32"),
        ({"shape": (-1, 4)}, "input features: expected shape [-1, 4], got [-1, 3]"),
    ],
)
def test_a_manifest_that_disagrees_with_the_model(
    tmp_path: Path, changes: dict[str, str | Datatype | tuple[int, ...]], words: str
) -> None:
    folder = release(tmp_path / "r")
    manifest = Manifest.parse((folder / "manifest.json").read_bytes())
    spec = manifest.inputs[0]
    values = {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape, **changes}
    changed = TensorSpec(**values)  # type: ignore[arg-type]  # the keys of the parameters are the fields
    write_manifest(folder, replace(manifest, inputs=(changed,)))
    verdict = examine(folder)
    assert (verdict.reason, words in verdict.detail) == (ProbeReason.MANIFEST_MISMATCH, True), verdict.detail


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz"])
def test_a_folder_with_a_part_missing(tmp_path: Path, name: str) -> None:
    folder = release(tmp_path / "r")
    (folder / name).unlink()
    verdict = examine(folder)
    assert (verdict.reason, verdict.detail.startswith(f"{name}: expected ")) == (ProbeReason.MANIFEST_MISMATCH, True)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert examine(tmp_path / "nothing").reason is ProbeReason.MANIFEST_MISMATCH


def test_more_memory_than_the_budget(tmp_path: Path) -> None:
    verdict = examine(release(tmp_path / "r", budget=Budget(memory_bytes=1)))
    assert verdict.reason is ProbeReason.TOO_LARGE
    assert verdict.detail.startswith("expected at most 1 bytes of memory, got ")


def test_more_memory_than_the_box(tmp_path: Path) -> None:
    """A constant of 2 GiB, written as a few bytes: only running it shows what it takes."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 14, 1 << 15])
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["large"]),
            helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["features"], ["small"], keepdims=1),
            helper.make_node("Add", ["small", "sum"], ["risk"]),
        ],
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["N", 1])],
        [shape],
    )
    folder = release(tmp_path / "r", model=save(tmp_path / "m.onnx", graph).read_bytes())
    verdict = examine(folder, ChildProbe(limits=Limits(memory_bytes=512 << 20)))
    assert verdict.reason in (ProbeReason.TOO_LARGE, ProbeReason.GOLDEN_MISMATCH), verdict
    assert "alloc" in verdict.detail or "memory" in verdict.detail


def test_no_verdict_in_time(tmp_path: Path) -> None:
    verdict = examine(release(tmp_path / "r"), ChildProbe(timeout_s=0.01))
    assert (verdict.reason, verdict.detail) == (ProbeReason.TIMEOUT, "expected a verdict within 0.01 s, got none")


def test_no_verdict_within_the_processor_time() -> None:
    verdict = examine(wdbc_release(5), ChildProbe(limits=Limits(cpu_s=1)))
    assert (verdict.reason, "processor time" in verdict.detail) == (ProbeReason.TIMEOUT, True)


@pytest.mark.parametrize(
    ("status", "said", "complained", "reason", "words"),
    [
        (-signal.SIGSEGV, b"", b"", ProbeReason.CRASHED, "SIGSEGV"),
        (-signal.SIGSEGV, b'{"reason":"ok"}', b"", ProbeReason.CRASHED, "SIGSEGV"),
        (-signal.SIGABRT, b"", b"", ProbeReason.CRASHED, "SIGABRT"),
        (-signal.SIGKILL, b"", b"", ProbeReason.TIMEOUT, "ended from outside by SIGKILL"),  # retried, a few times
        (-signal.SIGTERM, b"", b"", ProbeReason.TIMEOUT, "ended from outside by SIGTERM"),
        (-64, b"", b"", ProbeReason.CRASHED, "SIGRTMAX"),
        (1, b'{"reason":"ok"}', b"Traceback\nValueError: no", ProbeReason.LOAD_FAILED, "ValueError: no"),
        (0, b"hello", b"", ProbeReason.LOAD_FAILED, "exit status 0 and no verdict"),
        (0, b'{"reason":"splendid"}', b"", ProbeReason.LOAD_FAILED, "no verdict"),
        (0, b"", b"", ProbeReason.LOAD_FAILED, "no verdict"),
    ],
)
def test_whatever_a_child_says_or_does_is_a_verdict(
    status: int, said: bytes, complained: bytes, reason: ProbeReason, words: str
) -> None:
    verdict = read_verdict(ChildEnd(status, said, complained))
    assert (verdict.reason, words in verdict.detail) == (reason, True), verdict.detail


def test_a_cancelled_probe_leaves_no_child() -> None:
    async def cancelled() -> ProbeVerdict | None:
        task = asyncio.create_task(ChildProbe().examine(wdbc_release(5)))
        deadline = time.monotonic() + 20
        while not children(os.getpid()) and time.monotonic() < deadline:  # noqa: ASYNC110  # the system tells no one
            await asyncio.sleep(0.01)
        assert children(os.getpid())
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError)
        return None

    asyncio.run(cancelled())
    assert children(os.getpid()) == []


TELL = """
import os, time
from edgeward_agent.serving.cores import usable_cores
deadline = time.monotonic() + 20
while os.sched_getscheduler(0) != os.SCHED_IDLE and time.monotonic() < deadline:
    time.sleep(0.01)
print(os.sched_getscheduler(0) == os.SCHED_IDLE, len(os.sched_getaffinity(0)), usable_cores())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are those of Linux")
def test_a_child_goes_last_and_counts_on_all_cores_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must find a model of two threads as quick as the serving process will, which has more cores than itself."""
    (tmp_path / "tell.py").write_text(TELL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def ask() -> ChildEnd:
        step_back()
        return asyncio.run(run_child("tell", {}, tmp_path, timeout_s=60))

    with ThreadPoolExecutor(1) as aside:
        end = aside.submit(ask).result()
    cores = len(os.sched_getaffinity(0))
    assert (end.status, end.said.decode().split()) == (0, ["True", str(max(1, cores - 1)), str(cores)])


def test_a_probe_dies_with_its_agent() -> None:
    program = (
        "import sys; from pathlib import Path; from edgeward_agent.update.probe import examine; "
        "examine(Path(sys.argv[1]))"
    )
    agent = subprocess.Popen([sys.executable, "-c", program, str(wdbc_release(5))])
    probe = 0
    try:
        wait_for(lambda: any(tied(pid) for pid in children(agent.pid)), "the probe did not start")
        probe = next(pid for pid in children(agent.pid) if tied(pid))
        os.kill(probe, signal.SIGSTOP)  # so that it cannot come to its own end
        agent.kill()
        agent.wait()
        wait_for(lambda: not running(probe), "the probe outlived its agent")
    finally:
        agent.kill()
        agent.wait()
        if probe and running(probe):
            os.kill(probe, signal.SIGKILL)


def wait_for(reached: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def tied(pid: int) -> bool:
    """Whether a probe is in its box: being nice (field 19 of proc(5)) is the last thing that it gives itself."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16] == "19"
    return False


def running(pid: int) -> bool:
    """A process that nobody waits for any more stays as a zombie where there is no init."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
