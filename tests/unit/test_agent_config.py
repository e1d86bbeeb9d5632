"""A damaged configuration is refused with the place and the way out; an absent one is complete."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest

from edgeward_agent.addresses import host_and_port, is_loopback
from edgeward_agent.config import AgentConfig, load_config, parse_config, settings
from edgeward_agent.errors import ConfigError
from edgeward_agent.outbox.model import StoreOptions


def test_no_file_is_a_complete_configuration(tmp_path: Path) -> None:
    assert load_config(tmp_path) == AgentConfig()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: expected a file, found nothing"):
        load_config(tmp_path, tmp_path / "nowhere.toml")


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("[link]\nwait_s = 20\n[update]\nprobation_s = 3\n")
    config = load_config(tmp_path)
    assert (config.link.wait_s, config.update.probation_s) == (20, 3.0)
    assert config.serving == AgentConfig().serving


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[link]\nwait_s = 'abc'\n", "agent.toml:2: link.wait_s: expected int, got 'abc'"),
        ("\n# why\n[link]\n\nwait_s = 99\n", "agent.toml:5: link.wait_s: expected int <= 55, got 99"),
        ("[link]\nwait = 3\n", "agent.toml:2: link.wait: unknown key, did you mean wait_s?"),
        ("[lnk]\nwait_s = 3\n", "agent.toml:1: lnk: unknown key, did you mean link?"),
        ("[zebra]\n", "agent.toml:1: zebra: unknown key, expected one of serving, link,"),
        ("link = 3\n", "agent.toml:1: link: expected a table, got 3"),
        ("[log]\nformat = 'xml'\n", "agent.toml:2: log.format: expected one of text, json, got 'xml'"),
        ("[serving]\nhttp = 'foo'\n", "agent.toml:2: serving.http: expected HOST:PORT such as 127.0.0.1:8500"),
        ("serving.http = '[::1]:99999'\n", "agent.toml:1: serving.http: expected HOST:PORT"),
        ("[update]\nprobation_s = -1\n", "agent.toml:2: update.probation_s: expected float >= 0.0, got -1"),
        ("[link]\nwait_s = 3\nwait_s = 4\n", "agent.toml:3: expected TOML, got: cannot overwrite a value"),
        ("[link\n", "agent.toml:1: expected TOML, got: "),
        ("[link]\nkind = '''a\nb'''\n", "agent.toml:2: link.kind: expected one of https, mqtt, got 'a\\nb'"),
    ],
)
def test_damage_is_named_by_line_and_key(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(text, "agent.toml")
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)


def test_a_file_of_brackets_alone_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="^agent.toml: expected tables of plain values"):
        parse_config("a = " + "[" * 100_000, "agent.toml")


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xef\xbb\xbf[link]\r\nwait_s = 5\r\n")
    assert load_config(tmp_path).link.wait_s == 5


def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"[link]\nkind = '\xff'\n")
    with pytest.raises(ConfigError, match=r"agent.toml:2: expected UTF-8, got byte 0xff"):
        load_config(tmp_path)


def test_the_outbox_section_is_the_files_form_of_what_uses_it() -> None:
    """Same keys, same defaults: the file adds limits and nothing else."""
    assert msgspec.structs.asdict(AgentConfig().outbox) == dataclasses.asdict(StoreOptions())


def test_every_default_would_be_accepted_in_a_file() -> None:
    document: dict[str, dict[str, object]] = {}
    for setting in settings():
        document.setdefault(setting.section, {})[setting.key] = setting.default
    assert msgspec.convert(document, AgentConfig) == AgentConfig()


def test_the_page_names_every_key_with_its_default(checkout: Path) -> None:
    page = (checkout / "docs/configuration.md").read_text()
    for setting in settings():
        row = next(
            (line for line in page.splitlines() if line.startswith(f"| `{setting.section}.{setting.key}` |")), ""
        )
        assert row, f"docs/configuration.md says nothing of {setting.section}.{setting.key}"
        default = str(setting.default).lower() if isinstance(setting.default, bool) else json.dumps(setting.default)
        assert f"| `{default}` |" in row, f"expected the default {default} in {row}"


def test_the_page_names_no_key_that_is_not_there(checkout: Path) -> None:
    known = {f"{setting.section}.{setting.key}" for setting in settings()}
    rows = [line for line in (checkout / "docs/configuration.md").read_text().splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == known


def test_addresses_are_split_with_and_without_brackets() -> None:
    assert host_and_port("127.0.0.1:0") == ("127.0.0.1", 0)
    assert host_and_port("[::1]:8500") == ("::1", 8500)
    assert is_loopback("localhost") and is_loopback("::1") and not is_loopback("0.0.0.0")
