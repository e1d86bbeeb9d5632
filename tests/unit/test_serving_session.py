"""How a session is made: execution providers and their fallbacks, pinned dimensions, prepared graphs, the arena."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.errors import ModelError
from edgeward_agent.ort import onnxruntime as ort
from edgeward_agent.serving import graphs
from edgeward_agent.serving.graphs import PreparedGraph, can_be_prepared, find_graph, graph_key, prepared_graph
from edgeward_agent.serving.local import load_file
from edgeward_agent.serving.memory import give_back, serving_environment, with_huge_pages
from edgeward_agent.serving.opening import RUNTIME, plan_session, prepare
from edgeward_agent.serving.providers import (
    RUNTIME_NAMES,
    ProviderPlan,
    plan_providers,
    report_providers,
    runtime_providers,
)
from edgeward_agent.serving.release import Loading, load_release
from edgeward_agent.serving.rerun import Rerun
from edgeward_agent.serving.session import RunFailed, Session
from edgeward_agent.wire.tensors import Array
from edgeward_contract.artifact import Sha256, sha256_of_file
from edgeward_contract.serving_options import PROVIDERS, ServingOptions
from support.serving import (
    FEATURES,
    Release,
    constant_model,
    constant_release,
    failing_model,
    filling_model,
    identity_model,
    passing_model,
    random_model,
    slow_model,
)

HERE = ("CUDAExecutionProvider", "CPUExecutionProvider")
DIGEST = Sha256("a" * 64)

# -- execution providers


def test_the_contract_and_the_runtime_know_the_same_providers() -> None:
    assert set(RUNTIME_NAMES) == set(PROVIDERS)


def test_without_a_wish_it_is_the_cpu_and_nobody_speaks_of_a_fallback() -> None:
    plan = plan_providers((), HERE)
    assert plan == ProviderPlan(chosen=("cpu",))
    report = report_providers(plan, ["CPUExecutionProvider"])
    assert (report.active, report.fallback) == (("cpu",), "")


@pytest.mark.parametrize(
    ("wanted", "running", "active", "fallback"),
    [
        (("cuda",), HERE, ("cuda", "cpu"), ""),
        (
            ("openvino", "cpu"),
            HERE[1:],
            ("cpu",),
            "expected openvino, runs on cpu (openvino: is not in the installed onnxruntime, which has cpu, cuda)",
        ),
        (("newer",), HERE[1:], ("cpu",), "expected newer, runs on cpu (newer: is not known to this agent)"),
        (("cuda",), HERE[1:], ("cpu",), "expected cuda, runs on cpu (cuda: the runtime could not load it)"),
        (
            ("tensorrt", "cuda"),
            HERE,
            ("cuda", "cpu"),
            "expected tensorrt, cuda, runs on cuda"
            " (tensorrt: is not in the installed onnxruntime, which has cpu, cuda)",
        ),
        (
            ("cpu", "cuda"),
            HERE[1:],
            ("cpu",),
            "expected cuda, runs on cpu (cuda: comes after cpu, which leaves nothing to it)",
        ),
    ],
)
def test_every_fallback_is_a_sentence(
    wanted: tuple[str, ...], running: tuple[str, ...], active: tuple[str, ...], fallback: str
) -> None:
    report = report_providers(plan_providers(wanted, HERE), running)
    assert (report.active, report.fallback) == (active, fallback)


def test_a_provider_that_refuses_is_left_out_with_its_reason() -> None:
    plan = plan_providers(("cuda",), HERE).without("cuda", "no device")
    assert plan == ProviderPlan(chosen=("cpu",), problems=("cuda: no device",))
    assert report_providers(plan, HERE[1:]).fallback == "expected cuda, runs on cpu (cuda: no device)"


def test_the_provider_that_refuses_is_blamed_and_not_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other provider can be had where this runs, so the runtime's part is played."""
    there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    real = ort.InferenceSession

    class Played:
        def __init__(self, path: str, options: object, *, providers: list[tuple[str, object]], **_: object) -> None:
            if "CUDAExecutionProvider" in dict(providers):
                raise RuntimeError("no device")
            self._real = real(path, options, providers=["CPUExecutionProvider"])
            self._names = [name for name, _ in providers]

        def get_providers(self) -> list[str]:
            return self._names

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    monkeypatch.setattr(ort, "InferenceSession", Played)
    session = Session(constant_model(tmp_path / "m.onnx", 3.0), ServingOptions(providers=("tensorrt", "cuda")))
    assert session.providers.active == ("tensorrt", "cpu")
    assert session.providers.fallback == "expected cuda, tensorrt, runs on tensorrt (cuda: no device)"


@given(st.lists(st.sampled_from(PROVIDERS), unique=True), st.sets(st.sampled_from(sorted(RUNTIME_NAMES.values()))))
def test_the_cpu_is_always_there_and_nothing_is_lost_in_silence(wanted: list[str], available: set[str]) -> None:
    plan = plan_providers(tuple(wanted), available)
    assert "cpu" in plan.chosen
    lost = set(wanted) - set(plan.chosen)
    assert lost == {each.partition(":")[0] for each in plan.problems}
    assert [each for each in wanted if each in plan.chosen] == [each for each in plan.chosen if each in wanted]


def test_a_provider_with_threads_of_its_own_gets_as_many() -> None:
    plan = ProviderPlan(chosen=("openvino", "cpu"))
    assert runtime_providers(plan, 1) == [
        ("OpenVINOExecutionProvider", {"num_of_threads": "1"}),
        ("CPUExecutionProvider", {}),
    ]


def test_a_session_says_what_it_runs_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = constant_model(tmp_path / "m.onnx", 3.0)
    session = Session(path, ServingOptions(providers=("tensorrt", "cuda", "cpu")))
    assert session.providers.active == ("cpu",)
    assert session.providers.fallback.startswith(
        "expected tensorrt, cuda, runs on cpu (tensorrt: is not in the installed"
    )
    assert session.run(["score"], {"features": np.zeros((1, FEATURES), np.float32)})[0].tolist() == [[3.0]]
    assert capfd.readouterr() == ("", "")  # the runtime's own fallback would have printed


# -- dimensions and the arena


def test_a_pinned_dimension_is_part_of_the_interface(tmp_path: Path) -> None:
    path = constant_model(tmp_path / "m.onnx", 3.0)
    session = Session(path, ServingOptions(dimensions={"n": 2}))
    assert session.interface.inputs["features"].shape == (2, FEATURES)
    session.warm()
    assert session.run(["score"], {"features": np.zeros((2, FEATURES), np.float32)})[0].shape == (2, 1)


def test_a_denotation_pins_as_well(tmp_path: Path) -> None:
    path = constant_model(tmp_path / "m.onnx", 3.0)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    onnx.save(model, path)
    session = Session(path, ServingOptions(denotations={"DATA_BATCH": 4}))
    assert session.interface.inputs["features"].shape == (4, FEATURES)


def test_the_arena_can_be_given_back(tmp_path: Path) -> None:
    session = Session(slow_model(tmp_path / "m.onnx", 3), ServingOptions(shrink_arena=True))
    for rows in (1, 64, 1):  # the second is large enough to shrink afterwards
        assert session.run(["out"], {"in": np.ones((rows, 512), np.float32)})[0].shape == (rows, 512)
    session.shrink()
    assert session.run(["out"], {"in": np.ones((1, 512), np.float32)})[0].shape == (1, 512)


def test_a_model_that_refuses_zeros_cannot_shrink_on_command(tmp_path: Path) -> None:
    path = failing_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].dims[:] = [0]
    onnx.save(model, path)
    with pytest.raises(RunFailed, match="expected a model that runs on zeros, got: "):
        Session(path).shrink()


def test_freed_memory_can_be_given_back_where_the_c_library_can() -> None:
    assert give_back() == hasattr(ctypes.CDLL(None), "malloc_trim")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.tcache_count=0", "glibc.malloc.tcache_count=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_huge_pages_are_asked_for_unless_somebody_has_said_otherwise(before: str | None, after: str) -> None:
    given = {"PATH": "/bin"} | ({} if before is None else {"GLIBC_TUNABLES": before})
    assert with_huge_pages(given) == {"PATH": "/bin", "GLIBC_TUNABLES": after}


def test_numpy_starts_no_threads_for_algebra_in_a_serving_process_unless_somebody_wants_them() -> None:
    ours = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    count = "import numpy, os; print(len(os.listdir('/proc/self/task')))"
    command = [sys.executable, "-c", count]
    assert subprocess.run(command, env=serving_environment(ours), check=True, capture_output=True).stdout == b"1\n"
    assert serving_environment({"OPENBLAS_NUM_THREADS": "2"})["OPENBLAS_NUM_THREADS"] == "2"


# -- prepared graphs


def _prepare(root: Path, release: Release, options: ServingOptions | None = None) -> PreparedGraph:
    """As the control process does, without its child."""
    wanted = options or ServingOptions()
    key = graph_key(RUNTIME, plan_session(wanted).chosen, wanted)
    graph = prepared_graph(root, release.sha256, key)
    graph.model.parent.mkdir(parents=True)
    prepare(release.folder / "model.onnx", wanted, graph.model)
    graph.digest.write_text(sha256_of_file(graph.model))
    return graph


def _note(release: Release, root: Path) -> str:
    loaded = load_release(release.name, release.sha256, release.version, release.folder, Loading(graphs=root))
    assert loaded.session.run(["score"], {"features": np.zeros((1, FEATURES), np.float32)})[0].tolist() == [[7.0]]
    return loaded.graph_note


def test_a_prepared_graph_is_loaded_and_answers_alike(tmp_path: Path) -> None:
    release = constant_release(tmp_path, 7.0)
    assert _note(release, tmp_path / "graphs") == "missing"
    _prepare(tmp_path / "graphs", release)
    assert _note(release, tmp_path / "graphs") == ""
    assert load_file(release.folder).graph_note == "none"


def _flip(graph: PreparedGraph) -> None:
    data = bytearray(graph.model.read_bytes())
    data[len(data) // 2] ^= 1
    graph.model.write_bytes(data)


def _vouch_for_nonsense(graph: PreparedGraph) -> None:
    graph.model.write_text("nonsense")
    graph.digest.write_text(sha256_of_file(graph.model))


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (_flip, "damaged"),
        (lambda graph: graph.digest.write_bytes(b"\xff\x00"), "missing"),
        (lambda graph: graph.digest.unlink(), "missing"),
        (lambda graph: graph.model.unlink(), "missing"),
        (_vouch_for_nonsense, "refused"),
    ],
)
def test_a_bad_cache_never_stops_serving(
    tmp_path: Path, damage: Callable[[PreparedGraph], object], note: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = constant_release(tmp_path, 7.0)
    damage(_prepare(tmp_path / "graphs", release))
    assert _note(release, tmp_path / "graphs") == note
    assert ("prepared graph" in caplog.text) == (note != "missing")


def test_a_damaged_release_is_noticed_when_its_own_file_is_needed(tmp_path: Path) -> None:
    release = constant_release(tmp_path, 7.0)
    (release.folder / "model.onnx").write_text("gone")
    with pytest.raises(ModelError, match="expected the file that its manifest names"):
        load_release(release.name, release.sha256, 1, release.folder, Loading(graphs=tmp_path / "graphs"))


def test_another_runtime_processor_or_dimension_is_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(runtime: str = "1", providers: tuple[str, ...] = ("cpu",), **pinned: int) -> str:
        return graph_key(runtime, providers, ServingOptions(dimensions=pinned))

    keys = {key(), key("2"), key(providers=("cuda", "cpu")), key(n=1)}
    monkeypatch.setattr(graphs, "processor", lambda: "another")
    keys.add(key())
    assert len(keys) == 5
    assert key() == graph_key("1", ("cpu",), ServingOptions(threads=2, shrink_arena=True))


def test_only_the_cpus_graph_can_be_written_down() -> None:
    assert can_be_prepared(("cpu",))
    assert not can_be_prepared(("openvino", "cpu"))
    assert find_graph(None, Path("m.onnx")).note == "none"


def test_what_does_not_load_cannot_be_prepared(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(ModelError, match="expected an ONNX model that loads"):
        prepare(tmp_path / "m.onnx", ServingOptions(), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_who_is_bound_to_a_session_does_not_keep_it(tmp_path: Path) -> None:
    """A client that is quiet for hours has been bound to a version that is long gone."""
    session = Session(constant_model(tmp_path / "model.onnx", 3.0))
    session.warm()
    feeds = {"features": np.ones((1, FEATURES), np.float32)}
    names = list(session.interface.outputs)
    rerun = Rerun(feeds, names, limit_bytes=1 << 20)
    unbound = rerun.run(session)
    bound = rerun.run(session)
    assert bound is rerun.results and bound is not unbound
    gone = weakref.ref(session._session._sess)
    session.close()
    assert gone() is None
    fresh = Session(constant_model(tmp_path / "again.onnx", 4.0))
    assert rerun.run(fresh)[0] == 4.0 and unbound[0] == 3.0


@pytest.mark.parametrize("outputs", [["in"], ["risk", "in"], ["in", "risk"]])
def test_an_output_that_nothing_computes_is_never_what_lay_in_memory(tmp_path: Path, outputs: list[str]) -> None:
    """The runtime does not write an input that is an output too where it was told to, and says that all went well."""
    session = Session(passing_model(tmp_path / "model.onnx"))
    session.warm()
    feeds = {"in": np.empty((2, 4), np.float32)}
    rerun = Rerun(feeds, outputs, limit_bytes=1 << 20)
    for number in range(6):
        feeds["in"][...] = number
        for result in rerun.run(session):
            assert result.tolist() == [[number] * 4] * 2


@pytest.mark.parametrize("build", [random_model, passing_model])
def test_what_was_not_seen_to_come_out_alike_is_not_bound(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    session = Session(build(tmp_path / "model.onnx"))
    feeds: dict[str, Array] = {"in": np.ones((1, 4), np.float32)}
    like = dict(zip(session.interface.outputs, session.run(list(session.interface.outputs), feeds), strict=True))
    session.warm()
    assert session.bind(feeds, like) is None


def test_only_a_session_that_is_warm_is_bound(tmp_path: Path) -> None:
    session = Session(constant_model(tmp_path / "model.onnx", 3.0))
    feeds = {"features": np.ones((1, FEATURES), np.float32)}
    like = {"score": np.ones((1, 1), np.float32)}
    assert session.bind(feeds, like) is None
    session.warm()
    assert session.bind(feeds, like) is not None


GROWN = """
import sys
from pathlib import Path
import numpy as np
from edgeward_agent.serving.session import RunFailed, Session

def address_space_mib():
    (line,) = [each for each in open("/proc/self/status") if each.startswith("VmSize:")]
    return int(line.split()[1]) >> 10

session = Session(Path(sys.argv[1]))
session.warm()
try:
    session.run(["out"], {"n": np.array([10**11])})
except RunFailed as error:
    assert "allocate" in str(error), error
before = address_space_mib()
session.run(["out"], {"n": np.array([9_000_000])})
print(address_space_mib() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_could_not_be_had_is_not_taken_later(tmp_path: Path) -> None:
    """The arena doubles what it asks for, refused or not: the next small request took 24 GB of address space."""
    model = filling_model(tmp_path / "model.onnx")
    done = subprocess.run([sys.executable, "-c", GROWN, model], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 1000


@pytest.mark.parametrize("shape", [[1, 1 << 60], [1, 1 << 31, 1 << 31], [1, 1 << 62]])
def test_a_model_whose_inputs_fit_in_no_memory_is_refused_by_name(tmp_path: Path, shape: list[int]) -> None:
    path = identity_model(tmp_path / "huge.onnx", onnx.TensorProto.FLOAT, shape)
    with pytest.raises(ModelError, match=r"huge\.onnx: expected inputs that fit in memory, got: "):
        Session(path).warm()
    with pytest.raises(ModelError, match="expected inputs that fit in memory"):
        Session(path, ServingOptions(shrink_arena=True))
    with pytest.raises(RunFailed, match="expected a model that runs on zeros"):
        Session(path).shrink()
