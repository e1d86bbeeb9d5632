"""Who may ask, with real processes: the token over TCP, the owner and the mode of sockets for another user."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient import http as triton_http  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from edgeward_agent.client import AsyncClient, Client, NotAllowed
from edgeward_agent.listening import listen_frames, listen_unix
from edgeward_agent.token_file import read_token, write_token
from support.agent import edgeward_agent
from support.serving import FEATURES, Device, ask, constant_release, device, features_request, wait_until
from support.triton import tensor, triton

ZEROS = np.zeros((1, FEATURES), np.float32)
INFER = "/v2/models/toy/infer"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Device]:
    with device(tmp_path / "d") as made:
        made.commit(constant_release(tmp_path, 1.0))
        write_token(tmp_path / "token")
        made.start("--token-file", str(tmp_path / "token"))
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        yield made


@pytest.fixture
def token(served: Device, tmp_path: Path) -> str:
    return read_token(tmp_path / "token").decode()


def test_over_tcp_the_token_is_wanted_and_the_unix_socket_wants_none(served: Device, token: str) -> None:
    address = f"http://127.0.0.1:{served.port}"
    refused = ask(served.port, INFER, features_request())
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert refused.error == "expected the header `Authorization: Bearer TOKEN`, got none or another"
    for wrong in (None, "x" * 43):
        with Client(address, token=wrong) as client, pytest.raises(NotAllowed, match="Authorization: Bearer") as caught:
            client.infer("toy", {"features": ZEROS})
        assert "token" in caught.value.hint
    with Client(address, token=token) as client:
        assert client.ready()
        for _ in range(3):
            assert client.infer("toy", {"features": ZEROS})["score"].tolist() == [[1.0]]
    with Client(f"unix:{served.unix_path}") as client:
        assert client.infer("toy", {"features": ZEROS})["score"].tolist() == [[1.0]]


def test_the_asynchronous_client_shows_it_too(served: Device, token: str) -> None:
    async def main() -> None:
        async with AsyncClient(f"http://127.0.0.1:{served.port}", token=token) as client:
            answers = await asyncio.gather(*(client.infer("toy", {"features": ZEROS}) for _ in range(8)))
            assert [each["score"].tolist() for each in answers] == [[[1.0]]] * 8
        async with AsyncClient(f"http://127.0.0.1:{served.port}") as client:
            with pytest.raises(NotAllowed):
                await client.model("toy")

    asyncio.run(main())


def test_tritons_client_shows_it_in_a_header(served: Device, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with triton(served) as client:
        assert client.is_server_live() and client.is_server_ready()  # a probe needs none
        with pytest.raises(InferenceServerException, match="Authorization: Bearer TOKEN"):
            client.infer("toy", [tensor("features", ZEROS, "FP32")])
        answer: triton_http.InferResult = client.infer("toy", [tensor("features", ZEROS, "FP32")], headers=headers)
        assert answer.as_numpy("score").tolist() == [[1.0]]
        assert client.get_model_metadata("toy", headers=headers)["name"] == "toy"


def test_a_process_without_a_usable_token_does_not_start(tmp_path: Path) -> None:
    write_token(tmp_path / "token")
    (tmp_path / "token").chmod(0o644)
    with device(tmp_path / "d") as made:
        made.commit()
        process = made.start("--token-file", str(tmp_path / "token"))
        assert process.wait(20) == 1
        line = made.log.read_text()
        assert "expected a file that its owner alone may open, got mode 0644. chmod 600" in line
        assert line.count("\n") == 1


def test_the_command_refuses_what_is_unsafe(tmp_path: Path) -> None:
    model = constant_release(tmp_path, 1.0).folder / "model.onnx"
    before = model.read_bytes()
    for option in ("--unix", "--frames"):
        done = edgeward_agent("serve", model, option, model)
        assert done.returncode == 2
        assert f"{model}: expected a free path or an old socket, found something else there" in done.stderr
        assert model.read_bytes() == before
        done = edgeward_agent("serve", model, option, tmp_path / "mistyped" / "s.sock")
        assert done.returncode == 2
        assert f"expected the folder {tmp_path}/mistyped to be there, found none" in done.stderr
        assert not (tmp_path / "mistyped").exists()
    done = edgeward_agent("serve", model, "--http", "0.0.0.0:0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: serving on 0.0.0.0:0: expected a token, since other machines reach it")
    write_token(tmp_path / "token")
    (tmp_path / "token").chmod(0o660)
    done = edgeward_agent("serve", model, "--token-file", tmp_path / "token")
    assert done.returncode == 2
    assert f"error: {tmp_path}/token: expected a file that its owner alone may open, got mode 0660" in done.stderr


def test_the_command_serves_with_a_token_and_infer_shows_it(tmp_path: Path) -> None:
    model = constant_release(tmp_path, 1.0).folder / "model.onnx"
    write_token(tmp_path / "token")
    command = [sys.executable, "-m", "edgeward_agent", "serve", str(model), "--http", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--token-file", str(tmp_path / "token")], stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            address = next(line for line in run.stdout if line.startswith("serving on")).split()[2].rstrip(";")
            zeros = "features=" + ",".join(["0"] * FEATURES)
            asking = ("infer", "toy", "-i", zeros, "--address", address)
            refused = edgeward_agent(*asking)
            assert refused.returncode != 0 and "Authorization: Bearer TOKEN" in refused.stderr
            done = edgeward_agent(*asking, "--token-file", tmp_path / "token")
            assert done.returncode == 0 and '"data": [1.0]' in done.stdout
        finally:
            run.terminate()


# -- the unix sockets

OTHER, MEMBER, WARD = 54321, 54322, 54323
_CONNECT = """
import os, socket, sys
path, kind, uid, gid, *groups = sys.argv[1], *map(int, sys.argv[2:])
os.setgroups(groups); os.setgid(gid); os.setuid(uid)
with socket.socket(socket.AF_UNIX, kind) as asking:
    try:
        asking.connect(path)
    except PermissionError:
        sys.exit(13)
"""


def _may_connect(path: Path, kind: int, uid: int, *groups: int) -> bool:
    command = [sys.executable, "-S", "-c", _CONNECT, str(path), *map(str, (kind, uid, uid, *groups))]
    code = subprocess.run(command, check=False, timeout=20).returncode
    assert code in (0, 13)
    return code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "who"), [(0o600, set()), (0o660, {MEMBER}), (0o666, {MEMBER, OTHER})])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_the_mode_of_a_socket_says_which_users_may_connect(
    tmp_path_factory: pytest.TempPathFactory, mode: int, who: set[int], kind: int
) -> None:
    folder = tmp_path_factory.mktemp("sockets")
    base = tmp_path_factory.getbasetemp().parent.parent  # above those of this run and, in parallel, of this worker
    for each in (folder, *folder.parents):
        if each.is_relative_to(base) and "pytest" in str(each):
            each.chmod(0o711)  # pytest's own are for one user
    path = folder / "below" / "s.sock"
    with (listen_unix if kind == socket.SOCK_STREAM else listen_frames)(path, mode=mode):
        os.chown(path, -1, WARD)
        assert path.stat().st_mode & 0o7777 == mode
        allowed = {uid for uid, groups in ((OTHER, ()), (MEMBER, (WARD,))) if _may_connect(path, kind, uid, *groups)}
    assert allowed == who


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_the_command_and_leaves_no_socket(tmp_path: Path, *, ignored: bool) -> None:
    model, path = constant_release(tmp_path, 1.0).folder / "model.onnx", tmp_path / "s.sock"
    command: list[str | Path] = [sys.executable, "-m", "edgeward_agent", "serve", model, "--http", "127.0.0.1:0"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = subprocess.Popen([*command, "--unix", path], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        try:
            assert process.stdout is not None
            while "serving on" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGHUP)
            if ignored:
                with Client(f"unix:{path}") as client:
                    assert client.ready()
                process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert not path.exists()
