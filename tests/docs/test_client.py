"""The page on the client names every way to ask and everything that can go wrong, and its examples run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from edgeward_agent import client
from edgeward_agent.client import AsyncClient, Client, ClientError
from edgeward_agent.engine import Engine
from edgeward_contract.artifact import sha256_of_file
from support.models import wdbc_release
from support.serving import ask, device, wait_until

PAGE = Path(__file__).parents[2] / "docs/client.md"


def test_every_error_is_in_the_table() -> None:
    kinds = {name for name in client.__all__ if issubclass(getattr(client, name), ClientError)} - {"ClientError"}
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \| (?:yes|no)", PAGE.read_text(), re.MULTILINE)) == kinds


def test_the_three_take_the_same_arguments_and_the_page_names_them() -> None:
    (line,) = re.findall(r"`infer\((.*?)\)`", PAGE.read_text())
    wanted = [part.strip() for part in line.split(",") if part.strip() != "*"]
    for kind in (Client, AsyncClient, Engine):
        assert list(inspect.signature(kind.infer).parameters)[1:] == wanted


def test_the_examples_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = wdbc_release(2)
    entry = {"name": "wdbc-risk", "version": 2, "sha256": sha256_of_file(folder / "manifest.json"), "path": str(folder)}
    with device(tmp_path / "d", with_frames=True) as made:
        (made.folder / "boot.json").write_text(json.dumps({"models": [entry]}))
        made.start("--deadlines", "off")
        wait_until(lambda: ask(made.port, "/v2/health/ready").status == 200)
        (made.folder / "serving.sock").symlink_to(made.unix_path)
        (made.folder / "frames.sock").symlink_to(made.frames_path)
        for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(example.replace("/var/lib/edgeward/socket", str(made.folder)), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.partition("]] ")[2] for line in said] == ["by version 2", "with 1 plan in shared memory"]
