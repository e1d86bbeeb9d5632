"""The page on the client names every way to ask and everything that can go wrong."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from edgeward_agent import client
from edgeward_agent.client import AsyncClient, Client, ClientError
from edgeward_agent.engine import Engine

PAGE = Path(__file__).parents[2] / "docs/client.md"


def test_every_error_is_in_the_table() -> None:
    kinds = {name for name in client.__all__ if issubclass(getattr(client, name), ClientError)} - {"ClientError"}
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \| (?:yes|no)", PAGE.read_text(), re.MULTILINE)) == kinds


def test_the_three_take_the_same_arguments_and_the_page_names_them() -> None:
    (line,) = re.findall(r"`infer\((.*?)\)`", PAGE.read_text())
    wanted = [part.strip() for part in line.split(",") if part.strip() != "*"]
    for kind in (Client, AsyncClient, Engine):
        assert list(inspect.signature(kind.infer).parameters)[1:] == wanted
