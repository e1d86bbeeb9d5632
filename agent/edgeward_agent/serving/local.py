"""ONNX files served on a laptop, with no fleet, no state folder and no second process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent import listening
from edgeward_agent.errors import ModelError
from edgeward_agent.serving import loop
from edgeward_agent.serving.capture import NoCapture
from edgeward_agent.serving.exchange import MOST_CONNECTIONS, Limits
from edgeward_agent.serving.files import connections, raise_limit
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import MANIFEST, MODEL, Loading, Version, load_model, load_plain, read_manifest
from edgeward_agent.serving.runtime import serving
from edgeward_contract.artifact import NAMES_TAKEN

DEFAULT_HTTP: Final = "127.0.0.1:8500"


class NoModelFile(ModelError):
    """There is nothing at the path that was given."""

    hint = f"Give the path of an ONNX file, or of a release folder that holds {MODEL}."


class NameTaken(ModelError):
    """A model that nobody could ask about."""

    hint = "Give the file another name: without a manifest a model is called as its file is."


class ServedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One model and the file that it came from."""

    name: str
    version: int
    path: Path


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What is served where: `http` and `grpc` are HOST:PORT with the port that was taken, `unix` and `frames` are
    paths; empty is not at all.
    """

    models: tuple[ServedFile, ...]
    http: str
    unix: str
    frames: str
    grpc: str


def serve(
    paths: Sequence[Path],
    *,
    http: str | None,
    unix: Path | None,
    announce: Callable[[Served], None],
    frames: Path | None = None,
    grpc: str | None = None,
    deadlines: bool = True,
    shared_memory: bool = False,
    token: bytes = b"",
    without_token: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM. `announce` is called once, when the first request can be answered.

    Args:
        paths: ONNX files, or release folders. A model is called as its manifest says, else as its file.
        http: HOST:PORT; port 0 takes a free one. Without it, `unix`, `frames` and `grpc`: DEFAULT_HTTP.
        grpc: HOST:PORT for gRPC, which wants the extra `grpc`.
        deadlines: whether the budget of a manifest is the deadline of requests that bring none.
        shared_memory: whether clients may name files under /dev/shm.
        token: what clients must show over TCP; empty is nothing.
        without_token: whether other machines may ask without one.

    Raises:
        ModelError: a file is missing, does not load, does not fit its manifest, or has a name that is taken.
        PortInUse, ConfigError: an address cannot be listened on, or should not.
    """
    for address in (http, grpc):
        listening.check_exposed(address or "", token=bool(token), without_token=without_token)
    named = load_all(paths, Loading(deadlines=deadlines))
    for path, each in named:
        if each.name in NAMES_TAKEN:
            raise NameTaken(f"{path}: expected another name than {each.name!r}: {NAMES_TAKEN[each.name]}")
    models = tuple(ServedFile(name=each.name, version=each.version, path=path) for path, each in named)
    with ExitStack() as stack:
        anywhere = http or unix or frames or grpc
        listeners, http_address = _listen(stack, http if anywhere else DEFAULT_HTTP, unix, frames)
        grpc_address = _reserve(stack, grpc)
        served = Served(
            models=models, http=http_address, unix=str(unix or ""), frames=str(frames or ""), grpc=grpc_address
        )
        limits = Limits(
            connections=connections(MOST_CONNECTIONS, raise_limit()), token=token, shared_memory=shared_memory
        )
        versions = [version for _, version in named]
        loop.run(_serve(versions, listeners, grpc_address, limits, lambda: announce(served)))


async def _serve(
    versions: Sequence[Version],
    listeners: Sequence[socket.socket],
    grpc: str,
    limits: Limits,
    ready: Callable[[], None],
) -> None:
    stop = loop.stop_signals()
    registry = Registry()
    for version in versions:
        registry.adopt(version)
    async with serving(registry, NoCapture(), listeners, grpc=grpc, limits=limits):
        ready()
        await stop.wait()


def load_file(path: Path, loading: Loading | None = None) -> Version:
    """Load an ONNX file or a release folder, with the manifest beside it if there is one.

    Raises:
        ModelError: it is missing, does not load or does not fit its manifest.
    """
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise NoModelFile(f"{file}: expected an ONNX file, found none")
    beside = file.with_name(MANIFEST)
    return load_model(file, *read_manifest(beside), loading) if beside.is_file() else load_plain(file)


def load_all(paths: Sequence[Path], loading: Loading | None = None) -> list[tuple[Path, Version]]:
    """Load each, with the path that it came from. Raises ModelError, also for two models of one name."""
    named: dict[str, tuple[Path, Version]] = {}
    for path in paths:
        version = load_file(path, loading)
        if version.name in named:
            raise ModelError(
                f"expected one model of each name, got {version.name} twice: {named[version.name][0]}, {path}"
            )
        named[version.name] = path, version
    return list(named.values())


def _listen(
    stack: ExitStack, http: str | None, unix: Path | None, frames: Path | None
) -> tuple[list[socket.socket], str]:
    listeners, address = [], ""
    if http:
        listeners.append(stack.enter_context(listening.listen_tcp(http)))
        address = listening.bound_address(listeners[0])
    if unix:
        _check_folder(unix)
        listeners.append(stack.enter_context(listening.listen_unix(unix)))
        stack.callback(unix.unlink, missing_ok=True)
    if frames:
        _check_folder(frames)
        listeners.append(stack.enter_context(listening.listen_frames(frames)))
        stack.callback(frames.unlink, missing_ok=True)
    return listeners, address


def _check_folder(path: Path) -> None:
    """A person has typed it: a folder that is not there is a mistake, and not to be made."""
    if not path.parent.is_dir():
        raise listening.CannotListen(f"{path}: expected the folder {path.parent} to be there, found none")


def _reserve(stack: ExitStack, grpc: str | None) -> str:
    return listening.bound_address(stack.enter_context(listening.reserve_grpc(grpc))) if grpc else ""
