"""Where a log-in is kept, who may read it, and that a token goes to no other fleet."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edgeward_fleet.cli.errors import BadUsage, Exit, NotAllowed
from edgeward_fleet.cli.profile import Profile, effective, profile_path, read_profile, write_profile

CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KNOWN = Profile(url="https://a.example:8443", ca_pem="PEM", token="secret", username="ada")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "profile.json"


def test_only_its_owner_may_read_it(path: Path) -> None:
    write_profile(path, KNOWN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_profile(path) == KNOWN
    write_profile(path, Profile(url=KNOWN.url))
    assert "secret" not in path.read_text()
    assert [each.name for each in path.parent.iterdir()] == ["profile.json"]


def test_where_it_lies(tmp_path: Path) -> None:
    assert profile_path({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "edgeward/profile.json"
    assert profile_path({"EDGEWARD_PROFILE": str(tmp_path / "p")}) == tmp_path / "p"
    assert profile_path({"HOME": "/h"}).parts[-3:] == (".config", "edgeward", "profile.json")


def test_the_environment_wins(path: Path, tmp_path: Path) -> None:
    write_profile(path, KNOWN)
    (tmp_path / "ca.pem").write_text(CA)
    environment = {"EDGEWARD_PROFILE": str(path), "EDGEWARD_TOKEN": "t", "EDGEWARD_CA": str(tmp_path / "ca.pem")}
    found = effective(environment)
    assert (found.url, found.token, found.ca_pem) == (KNOWN.url, "t", CA)


def test_another_fleet_never_gets_the_remembered_token(path: Path) -> None:
    write_profile(path, KNOWN)
    found = effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_URL": "https://b.example"})
    assert found == Profile(url="https://b.example")


def test_the_same_fleet_named_twice_keeps_it(path: Path) -> None:
    write_profile(path, KNOWN)
    assert effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_URL": KNOWN.url + "/"}) == KNOWN


def test_no_fleet_is_not_allowed_rather_than_a_crash(path: Path) -> None:
    with pytest.raises(NotAllowed, match="expected a fleet to talk to, found none") as caught:
        effective({"EDGEWARD_PROFILE": str(path)})
    assert caught.value.exit_code is Exit.NOT_ALLOWED
    assert "edgeward login --url" in caught.value.hint


@pytest.mark.parametrize("content", ["{", json.dumps({"url": 3})])
def test_a_damaged_file_is_named(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(BadUsage, match=r"profile\.json: ") as caught:
        read_profile(path)
    assert caught.value.hint == "Delete the file and log in again with `edgeward login`."


def test_a_ca_file_that_is_not_there_is_named(path: Path) -> None:
    write_profile(path, KNOWN)
    with pytest.raises(BadUsage, match="expected a CA certificate in PEM form, found: .*No such file"):
        effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_CA": str(path.parent / "none.pem")})


def test_a_ca_file_without_a_certificate_does_not_mean_the_systems_own(path: Path, tmp_path: Path) -> None:
    write_profile(path, KNOWN)
    (tmp_path / "ca.pem").touch()
    with pytest.raises(BadUsage, match="expected a CA certificate in PEM form, found none"):
        effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_CA": str(tmp_path / "ca.pem")})


def test_a_token_goes_nowhere_in_the_clear(path: Path) -> None:
    write_profile(path, KNOWN)
    for url in ("http://a.example:8443", "a.example:8443", "https://a.example:port"):
        with pytest.raises(BadUsage, match="EDGEWARD_URL: expected https://HOST:PORT, got"):
            effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_URL": url, "EDGEWARD_TOKEN": "t"})


def test_a_token_from_a_file_of_another_system_is_the_token(path: Path) -> None:
    write_profile(path, KNOWN)
    assert effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_TOKEN": "ew_t\r\n"}).token == "ew_t"


@pytest.mark.parametrize("token", ["ew_tök", "ew_a\nb", "Bearer ew_a"])
def test_a_token_that_is_none_is_refused_and_not_repeated(path: Path, token: str) -> None:
    write_profile(path, KNOWN)
    with pytest.raises(BadUsage, match="EDGEWARD_TOKEN: expected a token of one word") as caught:
        effective({"EDGEWARD_PROFILE": str(path), "EDGEWARD_TOKEN": token})
    assert token not in str(caught.value)
