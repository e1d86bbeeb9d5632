"""Tiny ONNX models, releases made of them, and real serving processes on real sockets."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeward_agent.outbox.receiver import GREETING, read_frames
from edgeward_agent.series import Series
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.records import InferenceRecord
from edgeward_agent.serving.session import Session
from edgeward_contract.artifact import ArtifactRef, ModelName, Sha256, sha256_of_file
from edgeward_contract.manifest import (
    Budget,
    CaptureMode,
    CapturePolicy,
    GoldenSet,
    Manifest,
    TensorSpec,
    Tolerance,
)
from edgeward_contract.serving_options import ServingOptions

FEATURES = 30
_LENGTH = struct.Struct("<I")
Json = Any  # what json.loads gives; tests look into it freely


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Look again and again until `condition` holds; fail loudly after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"expected {condition} within {timeout_s} s")
        time.sleep(0.005)


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """`wait_until` inside a loop."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"expected {condition} within {timeout_s} s"
        await asyncio.sleep(0.005)


# -- models


def _save(path: Path, nodes: Sequence[onnx.NodeProto], inputs: list[Any], outputs: list[Any], **weights: Any) -> Path:
    graph = helper.make_graph(
        list(nodes), "test", inputs, outputs, [numpy_helper.from_array(each, name) for name, each in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _value(name: str, kind: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant_model(path: Path, value: float) -> Path:
    """features [n, 30] → score [n, 1]: the sum of the features times zero, plus `value`. Tells versions apart."""
    return _save(
        path,
        [
            helper.make_node("MatMul", ["features", "zeros"], ["nothing"]),
            helper.make_node("Add", ["nothing", "value"], ["score"]),
        ],
        [_value("features", TensorProto.FLOAT, ["n", FEATURES])],
        [_value("score", TensorProto.FLOAT, ["n", 1])],
        zeros=np.zeros((FEATURES, 1), np.float32),
        value=np.array([value], np.float32),
    )


def identity_model(path: Path, kind: int, shape: Sequence[int | str] | None) -> Path:
    """`in` → `out`, unchanged."""
    return _save(
        path, [helper.make_node("Identity", ["in"], ["out"])], [_value("in", kind, shape)], [_value("out", kind, shape)]
    )


def passing_model(path: Path) -> Path:
    """`in` FP32 [n, 4] → `risk`, its Relu, and `in` itself: an output that nothing computes."""
    sides = [_value(name, TensorProto.FLOAT, ["n", 4]) for name in ("in", "risk")]
    return _save(path, [helper.make_node("Relu", ["in"], ["risk"])], sides[:1], [sides[1], sides[0]])


def filling_model(path: Path) -> Path:
    """`n` INT64 [1] → `out` FP32 [n], zeros: as large an answer as is asked for."""
    node = helper.make_node("ConstantOfShape", ["n"], ["out"])
    return _save(path, [node], [_value("n", TensorProto.INT64, [1])], [_value("out", TensorProto.FLOAT, ["m"])])


def random_model(path: Path) -> Path:
    """`in` FP32 [n, 4] → `out`, as many numbers that nobody foresees."""
    node = helper.make_node("RandomNormalLike", ["in"], ["out"])
    sides = [_value(name, TensorProto.FLOAT, ["n", 4]) for name in ("in", "out")]
    return _save(path, [node], sides[:1], sides[1:])


def negation_model(path: Path) -> Path:
    """BOOL `in` [n] → `out`, each the other."""
    sides = [_value(name, TensorProto.BOOL, ["n"]) for name in ("in", "out")]
    return _save(path, [helper.make_node("Not", ["in"], ["out"])], sides[:1], sides[1:])


def cast_model(path: Path, kind: int) -> Path:
    """FP32 in [n] → out [n] of another type."""
    node = helper.make_node("Cast", ["in"], ["out"], to=kind)
    return _save(path, [node], [_value("in", TensorProto.FLOAT, ["n"])], [_value("out", kind, ["n"])])


def repeating_model(path: Path, times: int) -> Path:
    """in [n, m] → out [n · times, m]: a small request with a large answer."""
    node = helper.make_node("Tile", ["in", "repeats"], ["out"])
    sides = [_value(name, TensorProto.FLOAT, [rows, "m"]) for name, rows in (("in", "n"), ("out", "rows"))]
    return _save(path, [node], sides[:1], sides[1:], repeats=np.array([times, 1], np.int64))


def sum_model(path: Path) -> Path:
    """Two inputs and two outputs: `a` + `b` and `a` - `b`, INT32 [n, 4]."""
    sides = [_value(name, TensorProto.INT32, ["n", 4]) for name in ("a", "b")]
    results = [_value(name, TensorProto.INT32, ["n", 4]) for name in ("sum", "difference")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return _save(path, nodes, sides, results)


def total_model(path: Path) -> Path:
    """`a` and `b`, FP32 [n, 64] → total [n, 1], the sum of `a` - `b`: a large request with a small answer."""
    nodes = [
        helper.make_node("Sub", ["a", "b"], ["apart"]),
        helper.make_node("ReduceSum", ["apart", "axis"], ["total"], keepdims=1),
    ]
    sides = [_value(name, TensorProto.FLOAT, ["n", 64]) for name in ("a", "b")]
    return _save(path, nodes, sides, [_value("total", TensorProto.FLOAT, ["n", 1])], axis=np.array([1], np.int64))


def failing_model(path: Path) -> Path:
    """index [n] → item [n] of a table of three: fails in the runtime for an index beyond."""
    return _save(
        path,
        [helper.make_node("Gather", ["table", "index"], ["item"])],
        [_value("index", TensorProto.INT64, ["n"])],
        [_value("item", TensorProto.FLOAT, ["n"])],
        table=np.array([1, 2, 3], np.float32),
    )


def slow_lookup_model(path: Path, rounds: int = 40) -> Path:
    """in [n, 512], index [n] → item [n] of a table of three, after `rounds` products: slow, and fails beyond."""
    names = ["in", *(f"step{index}" for index in range(rounds))]
    nodes = [helper.make_node("MatMul", [before, "w"], [after]) for before, after in itertools.pairwise(names)]
    nodes += [
        helper.make_node("ReduceSum", [names[-1], "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Gather", ["table", "index"], ["found"]),
        helper.make_node("Add", ["found", "nothing"], ["item"]),
    ]
    return _save(
        path,
        nodes,
        [_value("in", TensorProto.FLOAT, ["n", 512]), _value("index", TensorProto.INT64, ["n"])],
        [_value("item", TensorProto.FLOAT, ["n"])],
        w=np.eye(512, dtype=np.float32),
        axis=np.array([1]),
        zero=np.array(0, np.float32),
        table=np.array([1, 2, 3], np.float32),
    )


def nonzero_model(path: Path) -> Path:
    """in [n] → where [1, k]: as many columns as there are elements other than 0."""
    return _save(
        path,
        [helper.make_node("NonZero", ["in"], ["where"])],
        [_value("in", TensorProto.FLOAT, ["n"])],
        [_value("where", TensorProto.INT64, [1, "k"])],
    )


def findings_model(path: Path) -> Path:
    """`in` FP32 [n, 3] → `hits` FP32 [k], what of it is more than ten: as many as there are."""
    nodes = [
        helper.make_node("Greater", ["in", "ten"], ["is_hit"]),
        helper.make_node("Reshape", ["is_hit", "flat"], ["condition"]),
        helper.make_node("Compress", ["in", "condition"], ["hits"]),
    ]
    sides = [_value("in", TensorProto.FLOAT, ["n", 3]), _value("hits", TensorProto.FLOAT, ["k"])]
    return _save(path, nodes, sides[:1], sides[1:], ten=np.array(10, np.float32), flat=np.array([-1]))


def slow_model(path: Path, rounds: int = 60) -> Path:
    """in [n, 512] → out [n, 512] through `rounds` products with the same matrix: many ms for a batch of 64."""
    names = ["in", *(f"step{index}" for index in range(1, rounds)), "out"]
    nodes = [helper.make_node("MatMul", [before, "w"], [after]) for before, after in itertools.pairwise(names)]
    shape: list[int | str] = ["n", 512]
    return _save(
        path,
        nodes,
        [_value("in", TensorProto.FLOAT, shape)],
        [_value("out", TensorProto.FLOAT, shape)],
        w=np.eye(512, dtype=np.float32),
    )


# -- releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    name: ModelName
    version: int
    sha256: Sha256
    folder: Path

    def boot_entry(self) -> dict[str, str | int]:
        return {"name": self.name, "version": self.version, "sha256": self.sha256, "path": str(self.folder)}


def manifest_for(
    model: Path,
    name: str,
    version: int = 1,
    *,
    inputs: Sequence[TensorSpec] | None = None,
    outputs: Sequence[TensorSpec] | None = None,
    capture: CapturePolicy | None = None,
    serving: ServingOptions | None = None,
    budget: Budget | None = None,
) -> Manifest:
    """A manifest that fits the model, but for what is given."""
    interface = Session(model).interface
    promised = tuple(outputs if outputs is not None else interface.outputs.values())
    file = ArtifactRef(sha256=sha256_of_file(model), size_bytes=model.stat().st_size)
    return Manifest(
        name=ModelName(name),
        version=version,
        summary="",
        intended_use="tests",
        file=file,
        golden=GoldenSet(
            file=file, cases=1, tolerances={each.name: Tolerance(atol=0.0, rtol=0.0) for each in promised}
        ),
        inputs=tuple(inputs if inputs is not None else interface.inputs.values()),
        outputs=promised,
        capture=capture or CapturePolicy(),
        serving=serving or ServingOptions(),
        budget=budget or Budget(),
    )


def write_release(folder: Path, manifest: Manifest) -> Release:
    """Put the manifest beside `model.onnx` in `folder`."""
    (folder / "manifest.json").write_bytes(manifest.canonical())
    return Release(name=manifest.name, version=manifest.version, sha256=manifest.sha256(), folder=folder)


def constant_release(
    parent: Path, value: float, *, name: str = "toy", version: int = 1, capture: CapturePolicy | None = None
) -> Release:
    folder = parent / f"{name}-{version}"
    model = constant_model(folder / "model.onnx", value)
    return write_release(folder, manifest_for(model, name, version, capture=capture))


ASYNC = CapturePolicy(mode=CaptureMode.ASYNC, inputs=True, outputs=True)
DURABLE = CapturePolicy(mode=CaptureMode.DURABLE, inputs=False, outputs=True)


# -- processes


@dataclass(slots=True, kw_only=True)
class Device:
    """A folder with what a serving process needs, and the sockets that outlive the process."""

    folder: Path
    tcp: socket.socket
    unix: socket.socket
    frames: socket.socket
    with_frames: bool = False
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "serving.log"

    @property
    def port(self) -> int:
        port: int = self.tcp.getsockname()[1]
        return port

    @property
    def unix_path(self) -> Path:
        return self.folder / "d.sock"

    @property
    def frames_path(self) -> Path:
        return self.folder / "f.sock"

    @property
    def control_path(self) -> Path:
        return self.folder / "c.sock"

    @property
    def capture_path(self) -> Path:
        return self.folder / "r.sock"

    def commit(self, *releases: Release) -> None:
        boot = {"models": [each.boot_entry() for each in releases]}
        (self.folder / "boot.json").write_text(json.dumps(boot))

    def start(self, *extra: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edgeward_agent.serving", "--boot", str(self.folder / "boot.json")]
        command += ["--control", str(self.control_path), "--capture", str(self.capture_path)]
        inherited = {"http": self.tcp, "unix": self.unix} | ({"frames": self.frames} if self.with_frames else {})
        for name, listener in inherited.items():
            command += [f"--fd-{name}", str(listener.fileno())]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *extra],
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[each.fileno() for each in inherited.values()],
            )
        return self.process

    def kill(self) -> None:
        """As a crash would: no goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 15.0) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def memory_bytes(self) -> int:
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def device(folder: Path, *, with_frames: bool = False) -> Iterator[Device]:
    """Listening sockets as the control process holds them; whatever process runs at the end is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        frames = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        for listener, name in ((unix, "d.sock"), (frames, "f.sock")):
            listener.bind(str(folder / name))
            listener.listen(512)
        made = Device(folder=folder, tcp=tcp, unix=unix, frames=frames, with_frames=with_frames)
        try:
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.kill()


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def ask(
    port: int, path: str, document: object = None, *, method: str | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """One request on a connection of its own. `document` is sent as JSON, or as it is when it is bytes."""
    body = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def features_request(rows: int = 1, **parameters: str) -> dict[str, object]:
    """A request for the constant model."""
    tensor = {"name": "features", "datatype": "FP32", "shape": [rows, FEATURES], "data": [0.5] * (rows * FEATURES)}
    return {"inputs": [tensor], "parameters": parameters}


# -- records


class Kept(NoCapture):
    """Everything is recorded, and kept as the control process would read it."""

    def __init__(self) -> None:
        self.bodies: list[Json] = []

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        return policy

    def offer(self, record: InferenceRecord) -> None:
        self._keep(record.frame(1, durable=False))

    def offer_row(self, series: Series, row: bytes) -> None:
        self._keep(series.frame([row]))

    def commit(self, record: InferenceRecord, done: Callable[[str | None], None]) -> None:
        self._keep(record.frame(1, durable=True))
        asyncio.get_running_loop().call_later(0.02, done, None)

    def _keep(self, frame: bytes) -> None:
        self.bodies += [dict(each.draft.body) for each in read_frames(frame)]


# -- the control process' end of the capture stream


class Sink:
    """Takes records as the control process does. `answer` decides what a durable one is told; None is silence.

    Args:
        greeting: what it says first. One that is older says nothing, and reads no series.
    """

    def __init__(self, path: Path, *, greeting: bytes = GREETING) -> None:
        self._greeting = greeting
        self.lengths: list[int] = []
        self.frames: list[Json] = []
        self.answer: Callable[[Json], Json | None] = lambda frame: {"id": frame["id"], "ok": True}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join()

    def cut(self) -> None:
        """Lose the connection, as when the control process dies."""
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def accepted(self) -> int:
        """How often the serving process has connected."""
        return len(self._connections)

    def bodies(self) -> list[Json]:
        return [frame["body"] for frame in self.frames]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            with connection, suppress(OSError), connection.makefile("rwb") as stream:
                with suppress(OSError):  # who has left already has left what it sent
                    stream.write(self._greeting)
                    stream.flush()
                while length := stream.read(_LENGTH.size):
                    self.lengths += _LENGTH.unpack(length)
                    for frame in _documents(stream.read(self.lengths[-1])):
                        self.frames.append(frame)
                        answer = self.answer(frame) if frame["durable"] else None
                        if answer is not None:
                            data = json.dumps(answer).encode()
                            stream.write(_LENGTH.pack(len(data)) + data)
                            stream.flush()


def _documents(data: bytes) -> Iterator[Json]:
    """The records of a frame, each as if it had come by itself."""
    for frame in read_frames(data):
        yield {
            "id": frame.number,
            "durable": frame.durable,
            "kind": frame.draft.kind,
            "class": frame.draft.record_class.value,
            "wall_us": frame.draft.wall_us,
            "body": dict(frame.draft.body),
        }
