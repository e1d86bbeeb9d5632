"""A release on disk becomes a version in memory: digests, manifest and model must agree. Runs off the loop's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.errors import ModelError
from edgeward_agent.serving.graphs import (
    FoundGraph,
    PreparedGraph,
    can_be_prepared,
    find_graph,
    graph_key,
    prepared_graph,
)
from edgeward_agent.serving.interface import Interface, response_head
from edgeward_agent.serving.line import NEVER_NS
from edgeward_agent.serving.opening import RUNTIME, plan_session
from edgeward_agent.serving.pace import Pace
from edgeward_agent.serving.plans import Plans
from edgeward_agent.serving.session import Session
from edgeward_agent.serving.statistics import Statistics
from edgeward_agent.serving.traffic import TrafficMeter
from edgeward_contract.artifact import ModelName, Sha256, sha256_of, sha256_of_file
from edgeward_contract.manifest import CapturePolicy, Manifest, TensorSpec
from edgeward_contract.schema import ContractError
from edgeward_contract.serving_options import ServingOptions

_log: Final = logging.getLogger(__name__)

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """How this process loads: where graphs lie that were prepared for it, and whether budgets are deadlines."""

    graphs: Path | None = None
    deadlines: bool = True


class Version(msgspec.Struct, kw_only=True, eq=False):
    """A version in memory. `in_flight` counts requests that began with it and must end with it; `retired`: no more."""

    name: ModelName
    version: int
    sha256: Sha256
    session: Session
    interface: Interface
    capture: CapturePolicy
    options: ServingOptions = msgspec.field(default_factory=ServingOptions)
    graph_note: str = "none"  # why the graph was not prepared; empty: it was
    budget_ns: int = NEVER_NS  # the deadline of a request that brings none
    head: bytes = b""
    pace: Pace = msgspec.field(default_factory=Pace)
    plans: Plans = msgspec.field(default_factory=Plans)
    traffic: TrafficMeter = msgspec.field(default_factory=TrafficMeter)
    statistics: Statistics = msgspec.field(default_factory=Statistics)
    in_flight: int = 0
    retired: bool = False
    _idle: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.head = response_head(self.name, self.version)

    def begin(self) -> None:
        self.in_flight += 1

    def end(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until nothing runs on this version. Nothing new may begin meanwhile."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()


def load_release(
    name: ModelName, sha256: Sha256, version: int, folder: Path, loading: Loading | None = None
) -> Version:
    """Load a release folder and warm it.

    Raises:
        ModelError: the folder is not the release that was named, or its model does not load or fit its manifest.
    """
    manifest, found = read_manifest(folder / MANIFEST)
    if (manifest.name, manifest.version, found) != (name, version, sha256):
        raise ModelError(
            f"{folder}: expected release {name}@{version} ({sha256[:12]}…), got {manifest.release} ({found[:12]}…)"
        )
    return load_model(folder / MODEL, manifest, found, loading)


def load_model(path: Path, manifest: Manifest, sha256: Sha256, loading: Loading | None = None) -> Version:
    """Load the model that a manifest (of digest `sha256`) describes, and warm it.

    Raises:
        ModelError: the file is another one, does not load, or takes or gives other tensors than the manifest says.
    """
    how = loading or Loading()
    session, note = _open(path, manifest, sha256, how)
    check_interface(path, session.interface, manifest)
    session.warm()
    version = Version(
        name=manifest.name,
        version=manifest.version,
        sha256=sha256,
        session=session,
        interface=Interface.of(manifest.inputs, manifest.outputs),
        capture=manifest.capture,
        options=_allowed(session, manifest),
        graph_note=note,
        budget_ns=manifest.budget.latency_us * 1000 if how.deadlines else NEVER_NS,
    )
    _announce(version)
    return version


def _open(path: Path, manifest: Manifest, sha256: Sha256, how: Loading) -> tuple[Session, str]:
    """The session, of the prepared graph if there is a good one, and why not."""
    options = manifest.serving
    graph = find_graph(_prepared(sha256, options, how), path)
    if graph.prepared:
        try:
            return Session(graph.path, options, prepared=True), ""
        except ModelError as error:
            _log.warning("%s: the prepared graph does not load: %s", manifest.release, error)
            graph = FoundGraph(path=path, note="refused")
    check_digest(path, manifest)
    return Session(path, options), graph.note


def _allowed(session: Session, manifest: Manifest) -> ServingOptions:
    """What the manifest wants, without joined runs where one request's rows could become another's."""
    if manifest.serving.batching is None or session.joinable:
        return manifest.serving
    _log.warning("%s: requests are not joined: the first axis has not one name in all tensors", manifest.release)
    return replace(manifest.serving, batching=None)


def _prepared(sha256: Sha256, options: ServingOptions, how: Loading) -> PreparedGraph | None:
    chosen = plan_session(options).chosen
    if how.graphs is None or not can_be_prepared(chosen):
        return None
    return prepared_graph(how.graphs, sha256, graph_key(RUNTIME, chosen, options))


def _announce(version: Version) -> None:
    """A fallback is never silent."""
    where = f"{version.name}@{version.version}"
    report = version.session.providers
    graph = f"original graph ({version.graph_note})" if version.graph_note else "prepared graph"
    _log.info("loaded %s on %s, %s", where, ", ".join(report.active), graph)
    if report.fallback:
        _log.warning("%s: %s", where, report.fallback)
    if version.graph_note == "damaged":
        _log.warning("%s: the prepared graph is damaged, the release's own file was loaded", where)


def load_plain(path: Path) -> Version:
    """Load an ONNX file that has no manifest; it is called as its file is.

    Raises:
        ModelError: it does not load.
    """
    session = Session(path)
    session.warm()
    return Version(
        name=ModelName(path.stem),
        version=1,
        sha256=sha256_of_file(path),
        session=session,
        interface=session.interface,
        capture=CapturePolicy(),
    )


def read_manifest(path: Path) -> tuple[Manifest, Sha256]:
    """A manifest and the digest of its bytes, which names the release.

    Raises:
        ModelError: there is none, or it does not say what the contract asks for.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: expected a manifest, got: {error.strerror}") from None
    try:
        return Manifest.parse(data), sha256_of(data)
    except ContractError as error:
        raise ModelError(f"{path}: {error}") from None


def check_digest(path: Path, manifest: Manifest) -> None:
    """A flipped bit on disk must be a model that does not load, never one that answers wrongly."""
    try:
        found = sha256_of_file(path)
    except OSError as error:
        raise ModelError(f"{path}: expected an ONNX file, got: {error.strerror}") from None
    if found != manifest.file.sha256:
        raise ModelError(
            f"{path}: expected the file that its manifest names (sha256 {manifest.file.sha256[:12]}…),"
            f" got {found[:12]}…"
        )


def check_interface(path: Path, model: Interface, manifest: Manifest) -> None:
    """Hold a manifest to its model.

    Raises:
        ModelError: names the first tensor that differs, and how.
    """
    _check_tensors(path, "input", model.inputs, manifest.inputs)
    _check_tensors(path, "output", model.outputs, manifest.outputs)


def _check_tensors(path: Path, side: str, model: Mapping[str, TensorSpec], promised: Sequence[TensorSpec]) -> None:
    names = sorted(each.name for each in promised)
    if names != sorted(model):
        raise ModelError(f"{path}: expected {side}s {names} as the manifest says, got {sorted(model)}")
    for spec in promised:
        found = model[spec.name]
        if found.datatype is not spec.datatype:
            raise ModelError(f"{path}: {side} {spec.name}: expected {spec.datatype}, got {found.datatype}")
        if not _shapes_agree(side, spec.shape, found.shape):
            raise ModelError(f"{path}: {side} {spec.name}: expected shape {list(spec.shape)}, got {list(found.shape)}")


def _shapes_agree(side: str, promised: Sequence[int], found: Sequence[int]) -> bool:
    """An input may promise less freedom than the model has, never more; an output may leave open what is fixed."""
    if not found:  # the model does not say
        return True
    if len(promised) != len(found):
        return False
    opened = -1 if side == "output" else None
    return all(had in (-1, said) or said == opened for said, had in zip(promised, found, strict=True))
