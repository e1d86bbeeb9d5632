"""The command line: help that answers at once, one line for every error, exit codes that mean something."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeward_agent.cli.app import COMMANDS, app
from edgeward_agent.cli.enrol import left_behind
from edgeward_agent.cli.exits import MEANING, exit_code
from edgeward_agent.cli.inputs import read_pairs, read_request
from edgeward_agent.client import InvalidRequest, ModelInfo
from edgeward_agent.errors import AgentError, ConfigError, LinkLost, LinkRefused, ServingUnavailable
from edgeward_agent.identity.enrolment import TokenRefused, WrongFingerprint
from edgeward_agent.listening import listen_tcp
from edgeward_agent.outbox.model import Draft, StoreOptions
from edgeward_agent.outbox.store import open_store
from edgeward_agent.state_dir import StateDir
from edgeward_contract.artifact import DeviceId
from edgeward_contract.manifest import Datatype, TensorSpec
from edgeward_contract.record import RecordClass
from edgeward_contract.version import __version__
from support.agent import edgeward_agent

HEAVY = ("onnxruntime", "numpy", "cryptography", "urllib3", "msgspec", "sqlite3", "asyncio")
MODEL = ModelInfo(
    name="risk",
    versions=("1",),
    inputs=(
        TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 3)),
        TensorSpec(name="n", datatype=Datatype.INT64, shape=(1,)),
        TensorSpec(name="words", datatype=Datatype.BYTES, shape=(2,)),
    ),
    outputs=(),
)


def test_help_names_every_command_and_every_exit_code() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    for command, summary in COMMANDS.items():
        assert command in shown and summary.split(":")[0][:40] in shown
    for code in MEANING:
        assert f"\n  {code}  " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) > 5


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from edgeward_agent.cli.app import app; app(['--help'], standalone_mode=False);"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_the_distributions() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"edgeward-agent {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    done = CliRunner().invoke(app, ["enroll"])
    assert done.exit_code == 2 and "enroll" in done.output


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (["enroll"], "No such command 'enroll'", "`edgeward-agent --help`"),
        (["--nonsense"], "No such option", "`edgeward-agent --help`"),
        (["enrol"], "Missing option", "`edgeward-agent enrol --help`"),
        (
            ["serve", "m.onnx", "--http", "nonsense"],
            "'--http': expected HOST:PORT such as",
            "`edgeward-agent serve --help`",
        ),
        (["serve", "m.onnx", "--http", "127.0.0.1:999999"], "got '127.0.0.1:999999'", "`edgeward-agent serve --help`"),
        (["bench", "m.onnx", "--sweep"], "Option '--sweep' requires an argument", "`edgeward-agent bench --help`"),
        (["run", "--http", "8500"], "'--http': expected HOST:PORT such as", "`edgeward-agent run --help`"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_like_every_error(
    arguments: list[str], words: str, hint: str
) -> None:
    done = edgeward_agent(*arguments)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ") and words in first
    assert second == f"  {hint} shows what it takes."


def test_no_command_at_all_is_answered_with_the_help() -> None:
    done = edgeward_agent()
    assert done.returncode == 2 and done.stderr.startswith("Usage: edgeward-agent ")


def test_a_model_that_is_not_there_is_looked_for_where_it_was_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", str(tmp_path / "risk.onnx")])
    assert done.exit_code == 1
    assert (
        f"{tmp_path / 'risk.onnx'}: expected an ONNX file, found none\n  Give the path of an ONNX file" in done.stderr
    )


def test_an_address_of_another_machine_is_not_looked_for_in_a_file() -> None:
    with pytest.raises(ConfigError, match="192.0.2.1:8500: cannot listen there") as caught:
        listen_tcp("192.0.2.1:8500")
    assert "--http" in caught.value.hint and "Correct the line" not in caught.value.hint


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (LinkLost("x"), 3),
        (ServingUnavailable("x"), 3),
        (LinkRefused("x", status=403), 4),
        (TokenRefused("x", status=409), 4),
        (WrongFingerprint("x"), 1),
        (AgentError("x"), 1),
    ],
)
def test_an_error_has_one_exit_code(error: AgentError, code: int) -> None:
    assert exit_code(error) == code


def test_a_disk_that_says_no_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["run", "--state-dir", str(tmp_path / "file" / "below")])
    assert done.exit_code in (1, 2) and "Traceback" not in done.output
    assert done.stderr.startswith("error: ") and str(tmp_path / "file") in done.stderr


def test_what_is_written_out_of_the_outbox_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Patients' results, opened: every user of the machine could read them."""
    _keep_a_result(tmp_path)
    written = tmp_path / "results.jsonl"
    before = os.umask(0o022)
    try:
        done = CliRunner().invoke(app, ["outbox", "export", "--state-dir", str(tmp_path), "--to", str(written)])
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    assert json.loads(written.read_text())["body"] == {"risk": 0.5}
    assert written.stat().st_mode & 0o777 == 0o600


def test_who_becomes_another_device_is_told_what_stays_behind(tmp_path: Path) -> None:
    """They were put aside as unreadable when the agent started, and nobody had said so."""
    state = StateDir(tmp_path)
    assert left_behind(state, "ward-3") == ""
    _keep_a_result(tmp_path)
    assert left_behind(state, "ward-3") == ""
    words = left_behind(state, "ward-4")
    assert words.startswith("1 result of ward-3 waits here and is not sent as ward-4's")
    assert f"edgeward-agent outbox export --state-dir {tmp_path} --to FILE" in words


def _keep_a_result(folder: Path) -> None:
    async def keep() -> None:
        async with open_store(folder, device=DeviceId("ward-3"), options=StoreOptions(ballast_bytes=0)) as store:
            await store.append([Draft(record_class=RecordClass.RESULT, kind="inference", body={"risk": 0.5})])

    asyncio.run(keep())


def test_a_release_folder_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["probe", str(tmp_path / "nothing")]).exit_code == 2


def test_short_inputs_are_one_case() -> None:
    inputs = read_pairs(["x=1, 2.5,3", "n=7", "words=a,b"], MODEL)
    assert inputs["x"].tolist() == [[1.0, 2.5, 3.0]] and inputs["x"].dtype == "float32"
    assert inputs["n"].tolist() == [7] and inputs["words"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        ("y=1", "--input: expected NAME=VALUE with a name of n, words, x, got 'y=1'"),
        ("x", "--input: expected NAME=VALUE"),
        ("x=1,2", "--input x: expected 3 elements for shape [1, 3], got 2"),
        ("x=1,a,2", "--input x: could not convert string to float: 'a'"),
        ("x=@nowhere.npy", "--input x: expected a readable file, got: No such file or directory"),
    ],
)
def test_inputs_that_do_not_fit_are_named(pair: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_pairs([pair], MODEL)
    assert str(error.value).startswith(complaint)


def test_a_file_of_objects_is_not_opened(tmp_path: Path) -> None:
    """A pickle runs code."""
    import numpy as np

    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidRequest, match="--input x: .*x.npy: expected an .npy of one plain array, got objects"):
        read_pairs([f"x=@{tmp_path / 'x.npy'}"], MODEL)


def test_a_request_of_the_protocol_may_be_nested(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[3,4]]}]}')
    assert read_request(str(file))["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', "expected JSON numbers, got NaN"),
        ('{"inputs":[{"name":"x","datatype":"FP33","shape":[1],"data":[1]}]}', "inputs[0].datatype: expected one of"),
        ('{"inputs":[{"name":"x","datatype":"BF16","shape":[1],"data":[1]}]}', "BF16 has no form in JSON"),
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}', "expected 2 elements for shape [2]"),
        ('{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":{"a":1}}]}', "expected a list of values"),
        ("{}", "inputs: expected a value, got nothing"),
    ],
)
def test_a_request_that_is_none_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(InvalidRequest) as error:
        read_request(str(tmp_path / "request.json"))
    assert complaint in str(error.value)
