"""The quickstarts say what the command understands, and what a developer is told to do works as it stands there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest

from edgeward_agent.bench.daemon import daemon
from edgeward_agent.client import Client
from edgeward_fleet.cli.app import edgeward, invoke

PAGES = ("quickstart-admin.md", "quickstart-developer.md")


def commands(page: Path) -> list[str]:
    """Every line of the page's shell blocks that calls `edgeward`."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("edgeward ")]


def parsed(arguments: list[str]) -> Iterator[str]:
    """Walk down to the command that `arguments` name and let it read them, without running it."""
    command: click.Command = edgeward
    while isinstance(command, click.Group):
        name, *arguments = arguments
        yield name
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_is_understood(checkout: Path, page: str) -> None:
    found = commands(checkout / "docs" / page)
    assert len(found) >= 3
    for line in found:
        assert list(parsed(shlex.split(line)[1:])), line


def test_what_a_developer_is_told_to_do_works(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = checkout / "docs/quickstart-developer.md"
    (sheet,) = re.findall(r"```toml\n# sheet.toml\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "sheet.toml").write_text(sheet)
    (tmp_path / "models").symlink_to(checkout / "models")
    monkeypatch.chdir(tmp_path)
    offline = [line for line in commands(page) if re.match(r"edgeward model (pack|check)", line)]
    codes = [invoke(shlex.split(line)[1:]) for line in offline]
    assert codes == [0, 0, 1], capsys.readouterr().err
    assert "refused (golden_mismatch)" in capsys.readouterr().err


def test_what_a_developer_is_told_to_ask_is_answered(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (checkout / "docs/quickstart-developer.md").read_text(), re.DOTALL)
    monkeypatch.chdir(checkout)
    with daemon(Path("models/wdbc-risk/releases/2")) as running:  # the port of the page may be another program's
        monkeypatch.setattr("edgeward_agent.client.Client", partial(Client, str(running.tcp)))
        exec(example, {})
    assert re.fullmatch(r"\[\[?[\d.e-]+\]?\]\n", capsys.readouterr().out)
