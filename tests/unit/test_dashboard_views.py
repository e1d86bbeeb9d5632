"""What every page shares, as pure functions: strips, gates, charts, pages of lists, words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from edgeward_fleet.api.rollout_views import PhaseStatus
from edgeward_fleet.dashboard import words
from edgeward_fleet.dashboard.queries.latency import Answer
from edgeward_fleet.dashboard.security import local_path
from edgeward_fleet.dashboard.views.chart import HEIGHT, WIDTH, latency_chart
from edgeward_fleet.dashboard.views.gates import gates_of, honesty
from edgeward_fleet.dashboard.views.paging import pages
from edgeward_fleet.dashboard.views.standings import BACKS, STANDINGS, STATES, standing_strip
from edgeward_fleet.dashboard.views.strips import WIDTH as STRIP_WIDTH
from edgeward_fleet.dashboard.views.strips import Segment, strip
from edgeward_fleet.dashboard.ways import asked_again, way_out
from edgeward_fleet.rollouts.analysis import Evidence, tally
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.rollouts.model import Back, Gates, Standing
from support.pages import plain, rollout_of

# Strips


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_a_strip_fills_its_width_and_shows_even_one_of_thousands(counts: list[int]) -> None:
    drawn = strip([Segment(label=str(number), count=count, tone="ok") for number, count in enumerate(counts)])
    assert len(drawn.bars) == sum(count > 0 for count in counts)
    assert all(bar.width >= 6 for bar in drawn.bars)
    if drawn.bars:
        assert drawn.bars[0].x == 0
        assert drawn.bars[-1].x + drawn.bars[-1].width == pytest.approx(STRIP_WIDTH, abs=1)
        for left, right in zip(drawn.bars, drawn.bars[1:], strict=False):
            assert right.x > left.x + left.width


def test_a_strip_says_itself_in_words() -> None:
    drawn = strip([Segment(label="online", count=1200, tone="ok"), Segment(label="late", count=0, tone="warn")])
    assert drawn.label == "devices: 1\u202f200 online"
    assert strip([]).label == "no devices"


def test_every_standing_and_state_has_a_look() -> None:
    assert set(STANDINGS) == set(Standing)
    assert set(BACKS) == set(Back) - {Back.NONE}
    assert set(STATES) == set(RolloutState)
    assert len({look.sign + look.tone for look in STANDINGS.values()}) == len(Standing)


def test_what_was_taken_back_is_not_shown_as_if_it_were_there() -> None:
    counts = {Standing.SUCCEEDED: 3, Standing.FAILED: 1}
    states = (RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK)
    shown = {state: standing_strip(counts, state).segments[0] for state in states}
    assert {state: (each.label, each.tone) for state, each in shown.items()} == {
        RolloutState.SUCCEEDED: ("succeeded", "ok"),
        RolloutState.ROLLED_BACK: ("had succeeded", "off"),
    }


# Gates


@pytest.mark.parametrize(
    ("succeeded", "failed", "words_"),
    [
        (0, 0, "No device has proven anything yet, so nothing is known of the failure rate."),
        (12, 0, "0 failures in 12 devices bounds the failure rate at 22 % (95 % confidence)."),
        (60, 0, "0 failures in 60 devices bounds the failure rate at 4.9 % (95 % confidence)."),
        (298, 0, "0 failures in 298 devices bounds the failure rate at 1 % (95 % confidence)."),
        (9, 1, "1 failure in 10 devices bounds the failure rate at 39 % (95 % confidence)."),
    ],
)
def test_a_small_sample_is_said_to_prove_little(succeeded: int, failed: int, words_: str) -> None:
    devices = rollout_of(*[Standing.SUCCEEDED] * succeeded, *[Standing.FAILED] * failed).rollout.devices
    assert plain(honesty(tally(devices))) == words_


@pytest.mark.parametrize(
    ("evidence", "status", "judgements"),
    [
        (Evidence(total=4), PhaseStatus.OPEN, ["no evidence", "not yet", "no evidence"]),
        (Evidence(total=4, succeeded=4, requests=9), PhaseStatus.PASSED, ["holds", "holds", "holds"]),
        (Evidence(total=4, succeeded=3, failed=1), PhaseStatus.STOPPED, ["breached", "missed", "no evidence"]),
        (Evidence(total=4, succeeded=4, requests=100, errors=5), PhaseStatus.OPEN, ["holds", "holds", "breached"]),
        (Evidence(total=4, succeeded=4, requests=100, errors=4), PhaseStatus.OPEN, ["holds", "holds", "holds"]),
        (Evidence(), PhaseStatus.OPEN, ["no evidence", "no evidence", "no evidence"]),
    ],
)
def test_gates_are_judged_as_the_rollout_judges_them(
    evidence: Evidence, status: PhaseStatus, judgements: list[str]
) -> None:
    assert [gate.judgement.value for gate in gates_of(Gates(), evidence, status)] == judgements


# Chart and words


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**8)), min_size=1, max_size=50))
def test_every_answer_lies_on_the_chart(points: list[tuple[int, int]]) -> None:
    answers = sorted((Answer(model="m", wall_us=at, latency_us=us) for at, us in points), key=lambda each: each.wall_us)
    chart = latency_chart(answers)
    assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= HEIGHT for dot in chart.dots)
    assert sum(dot.is_over for dot in chart.dots) == sum(us > 10_000 for _, us in points)
    assert any(tick.is_budget for tick in chart.ticks)


def test_the_chart_says_itself_in_words() -> None:
    answers = [Answer(model="m", wall_us=number, latency_us=300) for number in range(98)]
    answers += [Answer(model="m", wall_us=100, latency_us=2_000), Answer(model="m", wall_us=101, latency_us=12_400)]
    assert latency_chart(answers).summary == (
        "The last 100 recorded answers: half within 0.3 ms, 99 % within 2 ms, the slowest 12.4 ms; 1 over 10 ms. "
        "Recorded from 1970-01-01 00:00:00 to 00:00:00 UTC by the device's clock."
    )
    assert latency_chart([]).dots == ()


def test_a_clock_that_nobody_has_set_breaks_no_chart() -> None:
    answers = [Answer(model="m", wall_us=0, latency_us=300), Answer(model="m", wall_us=10**18, latency_us=300)]
    assert "at a time that cannot be" in latency_chart(answers).summary
    days_apart = [Answer(model="m", wall_us=at, latency_us=300) for at in (0, 90_000_000_000)]
    assert "from 1970-01-01 00:00:00 to 1970-01-02 01:00:00 UTC" in latency_chart(days_apart).summary


# Pages of a list


@given(st.integers(0, 5000), st.integers(1, 200), st.integers(1, 100))
def test_pages_cover_a_list_once_and_none_lies_beyond_it(total: int, asked: int, size: int) -> None:
    found = pages(total, asked, size, str)
    assert 1 <= found.number <= found.count
    assert found.is_beyond == (asked > found.count)
    assert found.end - found.start + 1 == (min(size, total - found.skipped) if total else 1)
    assert found.count == max(1, math.ceil(total / size))


def test_a_page_leads_to_its_neighbours_and_to_both_ends() -> None:
    hrefs = {label: href for label, href, _ in pages(120, 2, 50, str).links}
    assert hrefs == {"First": "1", "Previous": "1", "Next": "3", "Last": "3"}
    assert [href for _, href, _ in pages(50, 1, 50, str).links] == ["", "", "", ""]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.6, "1 min"), (90, "1 min 30 s"), (3600, "1 h"), (3661, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_read_in_two_units(seconds: float, expected: str) -> None:
    assert plain(words.duration(seconds)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0 %"), (0.25, "0.25 %"), (4.87, "4.9 %"), (22.1, "22 %"), (99.7, "> 99 %"), (100, "100 %")],
)
def test_a_percentage_never_rounds_to_all(value: float, expected: str) -> None:
    assert words.percent(value).replace("\u00a0", " ").replace(">99", "> 99") == expected


def test_messages_are_shown_with_their_code_and_nothing_of_it_is_run() -> None:
    shown = str(words.sentence("expected <b>, run `edgeward x > y`, then wait"))
    assert shown == "Expected &lt;b&gt;, run <code>edgeward x &gt; y</code>, then wait"


def test_no_text_turns_what_stands_behind_it_round() -> None:
    """A device that says so once would have the fleet's own sentence read backwards."""
    assert words.one_way("failed \u202etxet\u202c, at most 0 % may") == "failed \ufffdtxet\ufffd, at most 0 % may"
    shown = words.one_way(words.sentence("<b>\u2067`x`"))
    assert (isinstance(shown, Markup), str(shown)) == (True, "&lt;b&gt;\ufffd<code>x</code>")
    assert words.one_way("Visite – Schädel 😀 שלום") == "Visite – Schädel 😀 שלום"


def test_sizes_counts_and_digests() -> None:
    assert (words.size(906), words.size(3900), words.size(12 << 30)) == ("906 B", "3.8 KiB", "12.0 GiB")
    assert (words.plural(1, "device"), words.plural(1200, "device")) == ("1 device", "1\u202f200 devices")
    assert words.milliseconds(10_000) == "10 ms"
    assert str(words.audited("f" * 64)).endswith(">ffffffffffff…</code>")
    assert str(words.audited("<b>")) == "&lt;b&gt;"


@pytest.mark.parametrize("path", ["https://h/", "//h", "/\\h", "\\\\h", "", "devices", "/a\nb", "/a\\b"])
def test_only_paths_of_this_site_are_gone_back_to(path: str) -> None:
    assert local_path(path) == "/"


def test_a_path_of_this_site_is_kept_with_its_query() -> None:
    assert local_path("/devices?site=north&after=bed-9") == "/devices?site=north&after=bed-9"


def test_a_name_is_broken_only_when_it_is_very_long() -> None:
    assert words.fit("north-bed-7") == "once"
    assert words.fit("a" * 64) == "wrap"


# Ways out of an error


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("/devices/nobody", "/devices"),
        ("/releases/risk/9", "/models"),
        ("/rollouts/r-1/pause", "/rollouts/r-1"),
        ("/rollouts/r-1", "/rollouts"),
        ("/nowhere", "/"),
        ("/", "/"),
    ],
)
def test_an_error_leads_to_where_its_page_belongs(path: str, href: str) -> None:
    assert way_out(path).href == href


def test_only_a_question_is_asked_again() -> None:
    found = asked_again("/rollouts/r-1/pause", "a & b")
    assert found is not None and found.href == "/rollouts/r-1/pause?reason=a+%26+b"
    assert asked_again("/logout", "") is None
