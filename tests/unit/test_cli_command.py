"""The command as a whole: its help is pinned, its exit codes mean one thing each, and it is light."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import httpx
import pytest

from edgeward_contract.schema import Fields, JsonValue
from edgeward_fleet.cli.app import edgeward, invoke
from edgeward_fleet.cli.client import Client, unreachable
from edgeward_fleet.cli.errors import BadUsage, CommandError, CommandFailed, Exit, NotAllowed, Undecided
from edgeward_fleet.cli.output import Output, text
from edgeward_fleet.cli.profile import Profile
from edgeward_fleet.cli.reference import page
from edgeward_fleet.enrolment.service import MAX_TOKEN_HOURS

NOT_ON_A_LAPTOP = ("fastapi", "uvicorn", "sqlalchemy", "pydantic", "onnxruntime", "onnx", "numpy", "edgeward_agent")


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWARD_PROFILE", str(tmp_path / "profile.json"))
    for name in ("EDGEWARD_URL", "EDGEWARD_TOKEN", "EDGEWARD_CA"):
        monkeypatch.delenv(name, raising=False)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def test_the_reference_page_is_the_command(checkout: Path) -> None:
    renew = "python -m edgeward_fleet.cli.reference > docs/edgeward.md"
    assert (checkout / "docs/edgeward.md").read_text() == page(), f"the help has changed; run: {renew}"


@pytest.mark.parametrize("path", [path for path, _ in leaves(edgeward)])
def test_every_command_answers_scripts_and_says_what_it_does(path: tuple[str, ...]) -> None:
    command = dict(leaves(edgeward))[path]
    assert "--json" in {name for parameter in command.params for name in parameter.opts}
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option) and not option.required)


@pytest.mark.parametrize(
    ("error", "code"), [(CommandFailed, 1), (BadUsage, 2), (Undecided, 3), (NotAllowed, 4), (CommandError, 1)]
)
def test_what_an_exit_code_means(error: type[CommandError], code: int) -> None:
    assert error("x").exit_code == code
    assert Exit(code) in Exit


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--help",), 0, ""),
        (("--version",), 0, ""),
        (("whoami",), 4, "expected a fleet to talk to, found none"),
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("model", "push"), 2, "Missing argument 'FOLDER'"),
        (("model", "show", "wdbc-risk"), 2, "expected name@version such as wdbc-risk@2, got 'wdbc-risk'"),
        (("rollout", "create", "--release", "a@1", "--phases", "20%", "--phase", "percent=1"), 2, "got both"),
        (("login", "--username", "ada"), 2, "expected --url https://HOST:PORT, for no fleet is known yet"),
        (("setup", "https://h:1/setup", "--username", "ada"), 2, "expected https://HOST:PORT/setup?token=…"),
        (("account", "change", "ada"), 2, "expected something to change"),
        (
            ("rollout", "create", "--release", "a@1", "--max-failed", "nan"),
            2,
            "expected a number from 0 to 100, got 'nan'",
        ),
        (
            ("rollout", "create", "--release", "a@1", "--max-errors", "inf"),
            2,
            "expected a number from 0 to 100, got 'inf'",
        ),
        (("device", "revoke", "d-1", "--json"), 2, "expected --yes together with --json"),
        *(
            ((*command, odd), 2, f"expected a name or an id of letters, digits, '.', '_', '-', '@', got {odd!r}")
            for command, odd in (
                (("rollout", "pause"), "r-1/abort?"),
                (("rollout", "watch"), "r-1#"),
                (("device", "show"), ".."),
                (("account", "token", "revoke"), ""),
                (("account", "change", "--role", "viewer"), "ada?x"),
                (("model", "list"), "a/b"),
            )
        ),
    ],
)
def test_exit_codes_and_words(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == code
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert told.count("\n") <= 2


def test_the_first_page_of_the_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert invoke(("--help",)) == 0
    told = capsys.readouterr().out
    assert told.startswith(
        """Usage: edgeward [OPTIONS] COMMAND [ARGS]...

  Runs ONNX models on clinical-site devices and rolls new ones out from a fleet.

  Exit codes: 0 done · 1 tried and failed (a check refused, a rollout was rolled back)
              2 not understood · 3 not reached or undecided, try again · 4 not allowed

  Environment: EDGEWARD_URL, EDGEWARD_TOKEN, EDGEWARD_CA (a file) win over the remembered log-in.

Options:
"""
    )


def test_no_command_at_all_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(()) == 2
    assert capsys.readouterr().err.startswith("Usage: edgeward ")


@pytest.mark.parametrize("redirected", ["</dev/null", "<&-"])
def test_a_question_that_nobody_can_answer_names_the_option(redirected: str) -> None:
    line = f"exec {sys.executable} -c 'from edgeward_fleet.cli import main; main()' device revoke d-1 {redirected}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "expected a yes on standard input or --yes, found neither; nothing was changed\n  Add --yes" in done.stderr


def test_an_error_for_scripts_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(("model", "push", "nowhere", "--json")) == 1
    told = json.loads(capsys.readouterr().err)
    assert told["error"] == "nowhere: expected manifest.json, model.onnx and golden.npz, found no manifest.json"
    assert set(told) == {"error", "hint", "exit_code"}


def test_a_fleet_that_is_not_there_is_undecided(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWARD_URL", "https://127.0.0.1:1")
    monkeypatch.setenv("EDGEWARD_TOKEN", "t")
    assert invoke(("model", "list")) == 3
    assert "https://127.0.0.1:1: expected a fleet to answer, found: [Errno 111]" in capsys.readouterr().err


ROLLOUT: Mapping[str, JsonValue] = {
    "id": "r-1",
    "release": "risk@2",
    "state": "PAUSED",
    "reason": "1 \x1b[2J\nr-1 SUCCEEDED " + "x" * 1000,
    "created_by": "olive",
    "approved_by": "ada",
    "phases": [],
    "devices": [
        {"device": "bed-1", "site": "north", "phase_name": "all", "standing": "FAILED", "reason": "\x1b[8mhidden"}
    ],
}


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, JsonValue]], None]:
    """A fleet that answers each question with one document."""
    monkeypatch.setenv("EDGEWARD_URL", "https://fleet.example")
    monkeypatch.setenv("EDGEWARD_TOKEN", "t")

    def answer(document: Mapping[str, JsonValue]) -> None:
        monkeypatch.setattr(Client, "get", lambda *_, **__: Fields(document, ""))

    return answer


@pytest.mark.parametrize("arguments", [("rollout", "show", "r-1"), ("rollout", "watch", "r-1", "--timeout", "0.01s")])
def test_what_a_device_says_is_shown_and_not_obeyed(
    arguments: tuple[str, ...],
    answering: Callable[[Mapping[str, JsonValue]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A device chooses the words of its failure: with them it could clear the screen and write a success there."""
    answering(ROLLOUT)
    invoke(arguments)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "1 \\x1b[2J\\nr-1 SUCCEEDED xxx" in said.out
    assert "\\x1b[8mhidden" in said.out


def test_an_answer_of_another_version_is_an_error_in_one_line(
    answering: Callable[[Mapping[str, JsonValue]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering({key: value for key, value in ROLLOUT.items() if key != "created_by"})
    assert invoke(("rollout", "show", "r-1")) == 1
    told = capsys.readouterr().err
    assert told.startswith(
        "error: the answer of the fleet: created_by: expected a value, got nothing\n  The command and"
    )


def test_storing_a_large_file_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 GiB are flushed to the disk before the answer comes, which takes a minute and more."""
    waits: dict[str, float] = {}

    def send(_self: httpx.Client, request: httpx.Request, **_: object) -> httpx.Response:
        waits[request.method] = request.extensions["timeout"]["read"]
        return httpx.Response(200, json={}, request=request)

    monkeypatch.setattr(httpx.Client, "send", send)
    with Client(Profile(url="https://fleet.example")) as fleet:
        fleet.put("/artifacts/x", iter([b""]), size_bytes=0)
        fleet.get("/me")
    assert waits == {"PUT": 900, "GET": 30}


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("IP address mismatch, certificate is not valid for '10.0.0.1'.", "Use the address that the fleet printed"),
        ("certificate is not yet valid", "Compare the clock"),
        ("self-signed certificate in certificate chain", "Pin the fleet's CA"),
    ],
)
def test_a_certificate_that_does_not_do_names_its_own_way_out(reason: str, hint: str) -> None:
    error = httpx.ConnectError(f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {reason} (_ssl.c:1000)")
    told = unreachable("https://fleet.example", error)
    assert isinstance(told, NotAllowed)
    assert reason in str(told)
    assert told.hint.startswith(hint)


def test_a_user_without_a_home_is_told_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEWARD_PROFILE")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert invoke(("whoami",)) == 2
    assert (
        "expected a home folder for the log-in, this user has none\n  Set EDGEWARD_PROFILE" in capsys.readouterr().err
    )


def test_a_password_is_never_asked_of_nobody(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    assert invoke(("account", "create", "ada", "--role", "viewer", "--password-file", str(tmp_path / "empty"))) == 2
    assert "expected a password, found nothing" in capsys.readouterr().err


def test_the_command_needs_neither_a_server_nor_a_runtime_to_start() -> None:
    code = f"import sys, edgeward_fleet.cli.app; print([m for m in {NOT_ON_A_LAPTOP!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_offers_what_the_fleet_takes() -> None:
    """It cannot ask: a laptop has nothing of the fleet's own."""
    command = dict(leaves(edgeward))[("device", "token")]
    life = next(each.type for each in command.params if each.name == "expires_in")
    assert isinstance(life, click.IntRange)
    assert life.max == MAX_TOKEN_HOURS


def _as_typed(line: str) -> subprocess.CompletedProcess[bytes]:
    command = f"exec {sys.executable} -c 'from edgeward_fleet.cli import main; main()' {line}"
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False, timeout=30)


def test_streams_that_a_shell_has_closed_end_no_command() -> None:
    done = _as_typed("login --url https://127.0.0.1:1 --username ada <&- >&-")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"error: https://127.0.0.1:1: expected a fleet to answer")
    assert _as_typed("login --url https://127.0.0.1:1 --username ada 2>&-").stdout == b""


def test_an_encoding_without_our_signs_costs_no_result(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # a pipe on Windows
    release = checkout / "models/wdbc-risk/releases/2"
    golden = f"--golden {release}/golden.npz --out {tmp_path}/made"
    packed = _as_typed(f"model pack {release}/model.onnx --name a --version 1 {golden}")
    assert packed.returncode == 0, packed.stderr
    assert b"features FP32[-1, 30] \\u2192 risk FP32[-1, 1]" in packed.stdout


def test_what_a_fleet_says_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "Linux\x1b[2J\x9b31m\u202e\nerror: none"
    Output(as_json=False).say(hostile)
    Output(as_json=False).table([Fields({"os": hostile}, "")], (("OS", text("os")),), empty="")
    Output(as_json=True).show({"os": hostile})
    assert invoke(("model", "show", hostile)) == 2
    told = capsys.readouterr()
    assert not any(sign in told.out + told.err for sign in "\x1b\x9b\u202e")
    assert told.out.count("Linux\\x1b[2J\\x9b31m\\u202e\\nerror: none") == 2
