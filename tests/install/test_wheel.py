"""What a device gets: the built wheel with the extra `agent` alone, in a fresh environment."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOT_ON_A_DEVICE = {
    "grpcio",
    "fastapi",
    "sqlalchemy",
    "pydantic",
    "scikit-learn",
    "onnx",
    "pandas",
    "scipy",
    "jinja2",
    "uvicorn",
}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, checkout)
    (built,) = folder.glob("edgeward-*.whl")
    return built


def fresh_environment(folder: Path, requirement: str, checkout: Path) -> Path:
    _run(sys.executable, "-m", "venv", folder)
    pip = (folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, "-c", checkout / "constraints.txt", requirement)
    return folder / "bin"


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    return fresh_environment(tmp_path_factory.mktemp("device") / "venv", f"{wheel}[agent]", checkout)


def test_the_wheel_brings_what_the_fleet_writes_for_its_broker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"edgeward_fleet/link/{name}" for name in ("mosquitto.conf", "mosquitto.service.conf")} <= names


def test_a_device_carries_nothing_of_a_servers(device: Path) -> None:
    listed = json.loads(_run(device / "python", "-m", "pip", "list", "--format=json"))
    assert not {package["name"].lower() for package in listed} & NOT_ON_A_DEVICE


def test_the_agent_alone_serves_a_model(device: Path, checkout: Path) -> None:
    with serving(device, checkout / "models/wdbc-risk/releases/2/model.onnx") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        tensor = {"name": "features", "shape": [1, 30], "datatype": "FP32", "data": [1.0] * 30}
        connection.request("POST", "/v2/models/wdbc-risk/infer", json.dumps({"inputs": [tensor]}))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
    assert response.status == 200
    assert {output["name"] for output in answer["outputs"]} >= {"risk"}


def test_grpc_is_an_extra_and_the_agent_says_so(device: Path, checkout: Path) -> None:
    model = checkout / "models/wdbc-risk/releases/2/model.onnx"
    command: list[str | Path] = [device / "edgeward-agent", "serve", model, "--grpc", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "pip install 'edgeward[agent,grpc]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_base_install_needs_numpy_alone_and_says_which_extra_is_missing(
    wheel: Path, tmp_path: Path, checkout: Path
) -> None:
    base = fresh_environment(tmp_path / "venv", str(wheel), checkout)
    listed = json.loads(_run(base / "python", "-m", "pip", "list", "--format=json"))
    assert {package["name"].lower() for package in listed} <= {"edgeward", "numpy", "pip", "setuptools"}
    _run(base / "python", "-c", "import edgeward_contract.manifest, edgeward_agent.client")
    for command, extra in (("edgeward", "tools"), ("edgeward-agent", "agent"), ("edgeward-fleet", "fleet")):
        done = subprocess.run([base / command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"pip install 'edgeward[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr


@contextmanager
def serving(device: Path, model: Path) -> Iterator[int]:
    """Run `edgeward-agent serve` on a free port; give the port once it answers."""
    command: list[str | Path] = [device / "edgeward-agent", "serve", model, "--http", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _announced_port(process)
        finally:
            process.terminate()


def _announced_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    deadline = time.monotonic() + 20
    seen = []
    while time.monotonic() < deadline and (line := process.stdout.readline()):
        seen.append(line)
        if found := re.search(r"127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError(f"expected a line with the address, got {seen}")


def _run(*command: str | Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout
