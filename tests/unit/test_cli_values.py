"""What people type: times, phases, releases, fingerprints; and what they are told when it is not understood."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from edgeward_contract.artifact import ReleaseRef
from edgeward_contract.schema import Fields, JsonValue
from edgeward_fleet.cli.errors import BadUsage
from edgeward_fleet.cli.output import age, plain
from edgeward_fleet.cli.profile import checked_url
from edgeward_fleet.cli.trust import normal_fingerprint
from edgeward_fleet.cli.values import duration, percent, phases, release, seconds
from edgeward_fleet.rollouts.model import RolloutSpec


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("10ms", 10_000), ("500us", 500), ("500µs", 500), ("1.5s", 1_500_000), ("5m", 300_000_000), ("2h", 7_200_000_000)],
)
def test_a_time_has_a_unit(text: str, microseconds: int) -> None:
    assert duration(text) == microseconds


@pytest.mark.parametrize("text", ["10", "", "ms", "0s", "-1s", "1 fortnight", "1ss", "0x10s", "٣s", f"{'9' * 400}h"])
def test_a_time_without_sense_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a time with its unit such as 10ms, 30s or 5m"):
        duration(text)


def test_seconds_are_whole() -> None:
    assert [seconds(text) for text in ("90s", "1.5m", "3000ms")] == [90, 90, 3]
    for text in ("500ms", "1.5s"):
        with pytest.raises(click.BadParameter, match="expected whole seconds such as 30s or 5m, got"):
            seconds(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "100.1", "2%", "", "1e400"])
def test_a_share_without_sense_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a number from 0 to 100, got "):
        percent(text)


def test_a_share_may_have_a_fraction() -> None:
    assert [percent(text) for text in ("0", "0.5", "100")] == [0.0, 0.5, 100.0]


def test_a_release_is_name_at_version() -> None:
    assert str(release("wdbc-risk@2")) == "wdbc-risk@2"
    with pytest.raises(click.BadParameter, match="expected name@version such as wdbc-risk@2, got 'wdbc-risk'"):
        release("wdbc-risk")


def test_phases_in_short() -> None:
    assert phases(("20%,100%",), soak_s=3, timeout_s=60) == [
        {"name": "canary", "percent": 20, "soak_s": 3, "timeout_s": 60},
        {"name": "everyone", "percent": 100, "soak_s": 3, "timeout_s": 60},
    ]


def test_phases_one_by_one() -> None:
    texts = ("name=first,devices=1,soak=30s", "percent=50%,timeout=5m", "percent=100")
    assert phases(texts, soak_s=3, timeout_s=60) == [
        {"name": "first", "devices": 1, "soak_s": 30, "timeout_s": 60},
        {"name": "phase-2", "percent": 50, "soak_s": 3, "timeout_s": 300},
        {"name": "everyone", "percent": 100, "soak_s": 3, "timeout_s": 60},
    ]


def test_one_phase_is_everyone() -> None:
    assert phases(("100%",), soak_s=3, timeout_s=60)[0] == {
        "name": "everyone",
        "percent": 100,
        "soak_s": 3,
        "timeout_s": 60,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name=x", "expected percent=… or devices=…, one of them"),
        ("percent=20,devices=3", "expected percent=… or devices=…, one of them"),
        ("percent=20,soack=3s", "expected keys of devices, name, percent, soak, timeout, got soack"),
        ("percent=many", "expected a whole number of at least 1, got 'many'"),
        ("devices=0", "expected a whole number of at least 1, got '0'"),
        ("percent=20,soak=3", "expected a time with its unit such as 30s or 5m, got '3'"),
        ("percent=20,soak=900ms", "expected whole seconds such as 30s or 5m, got '900ms'"),
        ("twenty", "expected a whole number of at least 1, got 'twenty'"),
    ],
)
def test_a_phase_that_is_not_understood_is_named(text: str, words: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        phases((text,), soak_s=3, timeout_s=60)
    assert words in str(caught.value)


def test_what_is_typed_is_what_the_fleet_reads() -> None:
    typed = phases(("name=canary,percent=20,soak=30s", "percent=100"), soak_s=3, timeout_s=60)
    spec = RolloutSpec(release=ReleaseRef.parse("wdbc-risk@2")).document() | {"phases": typed}
    read = RolloutSpec.read(_fields(spec)).phases
    assert [(phase.name, phase.percent, phase.soak_s) for phase in read] == [("canary", 20, 30), ("everyone", 100, 3)]


@pytest.mark.parametrize(
    "text", ["sha256:" + "ab" * 32, "SHA256:" + "AB" * 32, ":".join(["ab"] * 32), " sha256:" + "ab" * 32 + "\n"]
)
def test_a_fingerprint_may_come_from_any_tool(text: str) -> None:
    assert normal_fingerprint(text) == "sha256:" + "ab" * 32


def test_a_fingerprint_that_is_none_is_refused() -> None:
    with pytest.raises(BadUsage, match="expected sha256: and 64 hexadecimal digits, got 'sha256:ab'"):
        normal_fingerprint("sha256:ab")


def test_only_https_is_spoken() -> None:
    assert checked_url("https://fleet.example:8443/setup?token=x", "--url") == "https://fleet.example:8443"
    assert checked_url("https://[2001:db8::1]:8443/", "--url") == "https://[2001:db8::1]:8443"
    for url in (
        "http://fleet.example",
        "fleet.example:8443",
        "",
        "https://",
        "https://h:port",
        "https://[::1",
        "https:h",
    ):
        with pytest.raises(BadUsage, match="--url: expected https://HOST:PORT, got"):
            checked_url(url, "--url")


def test_how_long_ago() -> None:
    now = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
    told = [age(text, now) for text in ("2026-05-01T11:59:48Z", "2026-05-01T11:30:00Z", "2026-05-01T08:00:00Z")]
    assert told == ["12 s", "30 min", "4 h"]
    assert age("2026-04-01T12:00:00+00:00", now) == "30 d"
    assert age("2026-05-01T12:00:05Z", now) == "0 s"  # a clock that runs ahead is not the future
    assert age("soon", now) == "soon"


def test_values_on_one_line() -> None:
    values: list[JsonValue] = [None, "", True, [1, 2], {"a": 1, "b": None}, 0]
    assert [plain(value) for value in values] == ["-", "-", "yes", "1, 2", "a 1, b -", "0"]


def _fields(document: dict[str, JsonValue]) -> Fields:
    return Fields.of(document, "")
