"""The file with the token: how it is made, and when it is not believed."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeward_agent.access import Way, ways
from edgeward_agent.cli.app import app
from edgeward_agent.config import ServingConfig, parse_config
from edgeward_agent.doctor import login_users
from edgeward_agent.errors import ConfigError
from edgeward_agent.token_file import TokenExists, TokenOpen, TokenUnusable, read_token, write_token

IS_ROOT = os.geteuid() == 0


def test_a_token_is_random_and_its_owners_alone(tmp_path: Path) -> None:
    tokens = set()
    for number in range(3):
        path = tmp_path / f"t{number}"
        write_token(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        tokens.add(read_token(path))
    assert len(tokens) == 3
    assert all(re.fullmatch(rb"[A-Za-z0-9_-]{43}", each) for each in tokens)
    assert {each.name for each in tmp_path.iterdir()} == {"t0", "t1", "t2"}


def test_a_token_that_clients_have_is_not_replaced_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_token(path)
    before = read_token(path)
    with pytest.raises(TokenExists, match="expected no file there, found one") as caught:
        write_token(path)
    assert "--force" in caught.value.hint
    assert read_token(path) == before
    write_token(path, replace=True)
    assert read_token(path) != before


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")
def test_root_makes_it_for_the_user_whose_folder_it_is(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    write_token(tmp_path / "t")
    found = (tmp_path / "t").stat()
    assert (found.st_uid, found.st_gid) == (12345, 23456)
    with pytest.raises(TokenOpen, match="expected a file of user 0 or root, got one of user 12345"):
        read_token(tmp_path / "t")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o610])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "t"
    write_token(path)
    path.chmod(mode)
    with pytest.raises(
        TokenOpen, match=f"{path}: expected a file that its owner alone may open, got mode 0{mode:o}"
    ) as e:
        read_token(path)
    assert e.value.hint.startswith(f"chmod 600 {path}")


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"short", b"a" * 31, b"a b" * 20, b"\xff" * 40, b"a" * 1001, b"a" * 40 + b"\nb"]
)
def test_what_is_no_token_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(TokenUnusable, match="expected a token of 32 to 1000 letters") as caught:
        read_token(path)
    assert "token new" in caught.value.hint


def test_white_space_around_it_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"  " + b"a" * 40 + b" \r\n")
    path.chmod(0o600)
    assert read_token(path) == b"a" * 40


def test_other_kinds_of_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nothing"):
        with pytest.raises(TokenUnusable, match="expected a (readable )?file with a token, got"):
            read_token(path)


def test_the_command_writes_it_where_the_agent_looks(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["token", "new", "--state-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (
        f'wrote {tmp_path}/serving.token\n  in {tmp_path}/agent.toml, section [serving]:  token_file = "serving.token"'
        in done.output
    )
    assert read_token(tmp_path / "serving.token").decode() not in done.output  # terminals are remembered
    again = CliRunner().invoke(app, ["token", "new", "--state-dir", str(tmp_path)])
    assert again.exit_code == 2 and "Add --force to replace it" in again.stderr
    (tmp_path / "agent.toml").write_text('[serving]\ntoken_file = "mine"\n')
    done = CliRunner().invoke(app, ["token", "new", "--state-dir", str(tmp_path), "--force"])
    assert done.exit_code == 0 and read_token(tmp_path / "mine")
    done = CliRunner().invoke(app, ["token", "new", "--file", str(tmp_path / "other")])
    assert done.exit_code == 0 and read_token(tmp_path / "other")


def test_only_sensible_modes_are_taken() -> None:
    assert parse_config('[serving]\nunix_mode = "0600"', "f").serving.unix_mode == "0600"
    with pytest.raises(ConfigError, match="f:2: serving.unix_mode: expected one of 0600, 0660, 0666, got '0777'"):
        parse_config('[serving]\nunix_mode = "0777"', "f")


def test_doctor_says_who_may_ask() -> None:
    here = "programs on this machine"
    config = ServingConfig(http="127.0.0.1:1", unix="s", frames="")
    unix = Way(address="unix:s", who="the agent's user and its group")
    assert ways(config, users=1) == (Way(address="127.0.0.1:1", who=here), unix)
    assert ways(config, users=3)[0].problem == "3 users can log in, and each of them may ask"
    guarded = ServingConfig(http="127.0.0.1:1", unix="", frames="f", token_file="t", unix_mode="0666")
    assert ways(guarded, users=3) == (
        Way(address="127.0.0.1:1", who=f"{here} with the token"),
        Way(address="unix:f", who="every user of this machine"),
    )
    opened = ServingConfig(http="0.0.0.0:1", unix="s", frames="f", unix_group="ward", unix_mode="0600")
    assert ways(opened, users=1)[0].problem == "other machines may ask without a token"
    assert ways(opened, users=1)[1].who == "the agent's user"
    assert ways(ServingConfig(http="", unix="", frames=""), users=9) == ()
    assert login_users() >= 0
