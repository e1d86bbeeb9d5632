"""Which way the demonstration's devices take when there is no broker."""

from __future__ import annotations

import io
import os
import shutil

import pytest
from rich.console import Console

from edgeward_fleet.demo.broker import chosen_link
from edgeward_fleet.demo.narrator import Narrator


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(said: io.StringIO) -> Narrator:
    return Narrator(Console(file=said, width=200))


def test_without_mosquitto_and_without_root_it_says_how_to_get_it_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, narrator: Narrator, said: io.StringIO
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_keywords: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert chosen_link("mqtt", narrator) == "https"
    assert "sudo apt install mosquitto" in said.getvalue()


def test_with_mosquitto_it_is_mqtt_and_nothing_has_to_be_said(
    monkeypatch: pytest.MonkeyPatch, narrator: Narrator, said: io.StringIO
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_keywords: f"/usr/sbin/{name}")
    assert chosen_link("mqtt", narrator) == "mqtt"
    assert not said.getvalue()


def test_who_asks_for_https_needs_no_broker(narrator: Narrator, said: io.StringIO) -> None:
    assert chosen_link("https", narrator) == "https"
    assert not said.getvalue()
