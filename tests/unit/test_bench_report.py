"""What a person reads: words, the terminal at 80 columns in ASCII and in colour, the page, the document."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from click.testing import CliRunner

from edgeward_agent.bench import report as values
from edgeward_agent.bench.advising import advise, sensible_rate
from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.charts import Column, Line, columns, lines
from edgeward_agent.bench.differing import golden_count, outputs_apart
from edgeward_agent.bench.document import document
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.page import page
from edgeward_agent.bench.paired import difference
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.report import (
    Added,
    Compared,
    ModelFacts,
    OutputDifference,
    Report,
    Server,
    Settings,
    path_result,
)
from edgeward_agent.bench.sweeping import marked
from edgeward_agent.bench.table import blocks
from edgeward_agent.bench.telling import headline
from edgeward_agent.bench.terminal import render
from edgeward_agent.bench.terminal_modes import pace
from edgeward_agent.bench.verdict import Outcome, Why, judge
from edgeward_agent.bench.words import Screen, counted, digits, exact, latency, percent, seconds, size, small
from edgeward_agent.cli.app import app
from edgeward_contract.manifest import Tolerance
from support.bench import MACHINE, NOISY, QUIET, block

FILE: Final = Screen()
TERMINAL: Final = Screen(width=80, unicode=True, colour=True)
GENERATOR = np.random.default_rng(21)
SETTINGS = Settings(
    rate=0.0,
    arrivals="closed",
    clients=1,
    cases="24 golden cases",
    seed=1,
    rounds=20,
    planned_rounds=20,
    duration_s=5.25,
)


def rounds(scale_us: float, n: int = 50) -> list[Floats]:
    return [scale_us * (1 + GENERATOR.exponential(0.2, n)) for _ in range(20)]


def a_report(scale_us: float = 2000.0, budget_us: float = 10_000.0, *, n: int = 50, slowdown: float = 1.0) -> Report:
    alone, tcp = rounds(scale_us * 0.9, n), rounds(scale_us, n)
    paths = tuple(
        path_result(name, [block(each) for each in found], opened=False)
        for name, found in (("in process", alone), ("TCP", tcp))
    )
    verdict = judge("TCP", tcp, Budget(latency_us=budget_us, said="the default"), slowdown=slowdown)
    return Report(
        schema=1,
        edgeward="0",
        onnxruntime="1.32.0",
        at="2026-01-01T00:00:00Z",
        model=ModelFacts(
            title="risk.onnx", path="models/risk.onnx", inputs=("x FP32 [?, 3]",), size_bytes=1145, sha256="ab"
        ),
        settings=SETTINGS,
        machine=MACHINE,
        noise=QUIET if slowdown == 1.0 else NOISY,
        verdict=verdict,
        exit_code={"pass": 0, "over": 1}.get(verdict.outcome.value, 3),
        paths=paths,
        added=(Added(path="TCP", over="in process", difference=difference(alone, tcp)),),
        server=Server(ready_s=0.25, resident_bytes=69 << 20),
    )


def with_comparison(found: Report, kind: str = "compare") -> Report:
    first = [{"p": np.array([[0.1, 0.9]], np.float32)}, {"p": np.array([[0.8, 0.2]], np.float32)}]
    second = [{"p": np.array([[0.2, 0.8]], np.float32)}, {"p": np.array([[0.4, 0.6]], np.float32)}]
    faster = difference(rounds(2000), rounds(1000))
    compared = Compared(
        second=ModelFacts(title="other.onnx", path="other.onnx", inputs=(), size_bytes=500),
        times=(Added(path="TCP, other.onnx", over="TCP", difference=faster),),
        tails=(Added(path="TCP, other.onnx", over="TCP", difference=faster),),
        outputs=outputs_apart(first, second),
        cases="2 random cases",
        golden=golden_count(first, second, first, {"p": Tolerance(atol=0.15, rtol=0)}),
        verdict=found.verdict,
        kind=kind,
        warnings=("calibrated with 2 cases: 32 or more are better",) if kind == "quantize" else (),
    )
    return replace(found, compared=compared)


def with_sweep(found: Report) -> Report:
    row = values.SweepRow(
        threads=1,
        provider="cpu",
        batch=1,
        n=400,
        p50_us=900.0,
        p99_us=1200.0,
        p99_upper_us=1500.0,
        cases_per_second=1000.0,
        outcome="pass",
    )
    more = replace(row, threads=2, batch=4, p50_us=2000.0, cases_per_second=1800.0)
    late = replace(row, batch=16, p99_us=20_000.0, cases_per_second=2500.0, outcome="over", p99_upper_us=None)
    broken = replace(row, provider="cuda", n=0, failure="not available here")
    return replace(found, paths=(), added=(), sweep=(*marked([row, more, late]), broken))


def with_soak(found: Report) -> Report:
    windows = tuple(
        values.Window(
            begin_s=float(at),
            n=100,
            failed=0,
            p50_us=900.0,
            p99_us=1000.0 + at * 20,
            max_us=2e3,
            resident_bytes=70 << 20,
        )
        for at in range(20)
    )
    trends = (values.Trend(of="p99", growth=0.4, lower=0.3, upper=0.5, sure=True, too_much=True),)
    soaked = values.Soaked(path="TCP", seconds=20.0, windows=windows, trends=trends)
    return replace(found, soak=soaked, exit_code=1)


EVERY = {
    "plain": a_report(),
    "over": a_report(scale_us=20_000.0),
    "few": a_report(n=3),
    "noisy": a_report(scale_us=12_000.0, slowdown=4.0),
    "compare": with_comparison(a_report()),
    "quantize": with_comparison(a_report(), "quantize"),
    "sweep": with_sweep(a_report()),
    "soak": with_soak(a_report()),
    "lost": replace(a_report(), lost="no connection could be made, connection refused", exit_code=3),
    "interrupted": replace(a_report(), interrupted=True, exit_code=130),
}


# -- words


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (0.268, "0.268"), (6.824, "6.82"), (9.999, "10.0"), (14.25, "14.2"), (209.4, "209"), (2022.0, "2,022")],
)
def test_three_digits_count(value: float, told: str) -> None:
    assert digits(value) == told


def test_units_suit_their_numbers() -> None:
    told = [latency(value) for value in (6.8, 999.0, 14_200.0, 12e6, math.inf, None)]
    assert [each.replace("\u00a0", " ") for each in told] == [
        "6.80 µs",
        "999 µs",
        "14.2 ms",
        "12.0 s",
        "no answer",
        "no answer",
    ]
    assert exact(10_000).replace("\u00a0", " ") == "10 ms"
    assert [size(each).replace("\u00a0", " ") for each in (1145, 20_000, 5 << 20, 69 << 20)] == [
        "1,145 bytes",
        "20 KiB",
        "5.0 MiB",
        "69 MiB",
    ]
    assert [seconds(each).replace("\u00a0", " ") for each in (0.25, 5.2, 59, 600, 9000)] == [
        "0.25 s",
        "5.2 s",
        "59 s",
        "10 min",
        "2.5 h",
    ]
    assert [small(each) for each in (0, 0.0021, 1.2e-7)] == ["0", "0.0021", "1.2e-07"]


def test_one_is_not_many() -> None:
    assert [counted(each, "case") for each in (0, 1, 2, 1000)] == ["0 cases", "1 case", "2 cases", "1,000 cases"]


def test_all_but_one_is_not_all() -> None:
    told = [percent(share).replace("\u00a0", " ") for share in (0, 0.0004, 0.004, 0.3, 0.995, 0.9999, 1)]
    assert told == ["0 %", "below 0.1 %", "0.4 %", "30 %", "99.5 %", "above 99.9 %", "100 %"]


# -- the verdict


def said(found: Report) -> tuple[str, str, str]:
    line = headline(found)
    assert line is not None
    return line.word, line.sentence.replace("\u00a0", " "), line.sure.replace("\u00a0", " ")


def test_a_pass_says_how_sure_it_is() -> None:
    word, sentence, sure = said(EVERY["plain"])
    assert (word, sentence) == ("PASS", "risk.onnx makes its budget of 10 ms at p99, the default")
    assert re.fullmatch(r"p99 over TCP is \d\.\d+ ms; 95 % sure that it is below \d\.\d+ ms \(n 1,000\)\.", sure)


def test_what_is_over_says_how_many_were_late() -> None:
    word, sentence, sure = said(EVERY["over"])
    assert (word, sentence) == ("OVER", "risk.onnx misses its budget of 10 ms at p99, the default")
    assert "sure that it is above" in sure and sure.endswith("100 % of 1,000 answers were late.")


def test_too_few_says_how_many_would_do() -> None:
    word, sentence, sure = said(EVERY["few"])
    assert (word, sentence) == ("UNSURE", "60 requests are too few to hold risk.onnx to 10 ms at p99")
    assert "95 % sure only that it is above" in sure and re.search(r"About \d+ requests would decide\.$", sure)


def test_noise_is_named() -> None:
    word, sentence, sure = said(EVERY["noisy"])
    assert (word, sentence) == ("UNSURE", "this machine is too noisy to hold risk.onnx to 10 ms at p99")
    assert sure.endswith("but other programs used 60 % of it.")


def test_what_grows_is_the_headline_of_a_soak() -> None:
    assert said(EVERY["soak"]) == (
        "OVER",
        "risk.onnx does not stay as it began",
        "p99 grew by 40 % (99 %: +30.0% to +50.0%).",
    )


def test_a_server_that_went_away_is_the_headline_of_what_makes_its_budget_until_then() -> None:
    word, sentence, sure = said(EVERY["lost"])
    assert (word, sentence) == ("UNSURE", "the server of risk.onnx went away") and "of 1,000 requests" in sure
    first = " ".join(render(EVERY["lost"], FILE).split("UNSURE")[0].split())
    assert first == (
        "the server went away in round 20 of 20, after 5.2 s (no connection could be made, connection refused):"
        " what it owed counts as late"
    )
    assert said(replace(EVERY["over"], lost="so"))[1].startswith("risk.onnx misses its budget")
    assert said(replace(EVERY["soak"], lost="so"))[:2] == ("OVER", "the server of risk.onnx went away")


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("plain", ["edgeward-agent bench risk.onnx --budget 5ms --rate 100"]),
        (
            "over",
            [
                "edgeward-agent bench risk.onnx --budget 5ms --quantize",
                "edgeward-agent bench risk.onnx --budget 5ms --sweep threads,batch",
            ],
        ),
        ("noisy", ["", "edgeward-agent bench risk.onnx --budget 5ms --force"]),
        ("quantize", ["edgeward-agent bench risk.onnx --budget 5ms --output model-int8.onnx"]),
        ("compare", []),
        ("sweep", []),
        ("lost", [""]),
        ("interrupted", []),
    ],
)
def test_there_is_always_a_next_step_where_there_is_one(name: str, commands: list[str]) -> None:
    typed = ("risk.onnx", "--html", "x.html", "--json", "--budget", "5ms")
    assert [each.command for each in advise(EVERY[name], typed, quantizable=True)] == commands


def test_what_is_said_anew_is_not_said_twice() -> None:
    typed = ("m.onnx", "--requests", "3", "--budget=5ms", "--html=x.html")
    (found,) = advise(EVERY["few"], typed, quantizable=True)
    assert re.fullmatch(r"edgeward-agent bench m\.onnx --budget=5ms --requests \d+", found.command)


@pytest.mark.parametrize("header", [("--header", "Authorization: Bearer hush"), ("--header=X-Key: hush",)])
def test_advice_never_repeats_a_token(header: tuple[str, ...]) -> None:
    typed = ("toy", "--url", "http://127.0.0.1:8000", *header)
    found = replace(elsewhere(EVERY["plain"]), next=advise(elsewhere(EVERY["plain"]), typed, quantizable=True))
    assert "hush" not in render(found, FILE) + page(found) + document(found).decode()
    name = header[-1].removeprefix("--header=").partition(":")[0]
    (only,) = found.next
    assert f"{name}: …'" in only.command and "http://127.0.0.1:8000" in only.command


def test_a_unix_socket_is_no_way_out_where_it_is_too_slow_too() -> None:
    quick = alone_quick(EVERY["over"])
    unix = replace(quick.paths[-1], name="unix socket")
    assert advise(quick, ("m",), quantizable=True)[0].command.endswith("--through unix")
    slow = replace(quick, paths=(quick.paths[0], unix, quick.paths[-1]))
    (only,) = advise(slow, ("m",), quantizable=True)
    assert only.command == "" and only.why.startswith("The model alone is quick enough, the way to it is not")


def test_what_the_model_alone_makes_is_seen_at_the_quantile_of_the_budget() -> None:
    """In process four of ten answers are late: that is within p50, and not within p99."""
    report = alone_quick(EVERY["over"])
    mixed = path_result("in process", [block([10.0] * 30 + [50_000.0] * 20) for _ in range(20)], opened=False)
    report = replace(report, paths=(mixed, report.paths[-1]))
    assert report.verdict is not None
    half = replace(report, verdict=replace(report.verdict, budget=Budget(latency_us=10_000, share=0.5)))
    assert advise(half, ("m",), quantizable=True)[0].command.endswith("--through unix")
    assert advise(report, ("m",), quantizable=True)[0].command.endswith("--quantize")


def test_what_has_nothing_to_quantise_is_not_advised_to() -> None:
    commands = [each.command for each in advise(EVERY["over"], ("m.onnx",), quantizable=False)]
    assert commands == ["edgeward-agent bench m.onnx --sweep threads,batch"]


@pytest.mark.parametrize(
    ("inputs", "cores", "shape", "axes"),
    [
        (("x FP32 [?, 3]", "a [b FP32 [?]"), 2, "x=1,3", ["threads,batch"]),
        (("x FP32 [?, 3]",), 1, "x=1", ["batch"]),
        (("x FP32 [?, 3]", "y FP32 [1, ?]"), 2, "x=1,3", ["threads"]),
        (("x FP32 [?, 3]",), 2, "x=8,3", ["threads"]),
        (("x FP32 [?, 3]",), 2, "x=10x3", ["threads"]),
        ((), 1, "x=1,3", []),
    ],
)
def test_only_what_can_vary_is_advised_to_be_swept(
    inputs: tuple[str, ...], cores: int, shape: str, axes: list[str]
) -> None:
    over = EVERY["over"]
    report = replace(over, model=replace(over.model, inputs=inputs), machine=replace(MACHINE, cores=cores))
    for typed in (("m.onnx", "--shape", shape), ("m.onnx", f"--shape={shape}")):
        commands = [each.command for each in advise(report, typed, quantizable=False)]
        assert [each.rpartition("--sweep ")[2] for each in commands] == axes


def test_a_rate_to_try_is_round_and_modest() -> None:
    assert [sensible_rate(each) for each in (10_000, 120, 20, 4)] == [100, 20, 5, 1]


# -- what is advised can be typed, and asks for something else than what was typed before


OPEN = replace(EVERY["plain"].settings, rate=10.0, arrivals="poisson", clients=16)


def too_close(found: Report) -> Report:
    assert found.verdict is not None
    return replace(
        found, verdict=replace(found.verdict, outcome=Outcome.INCONCLUSIVE, why=Why.TOO_CLOSE, needed_n=0), exit_code=3
    )


def opened(found: Report) -> Report:
    return replace(found, settings=OPEN)


def waiting(found: Report) -> Report:
    """An open loop in which a queue grows."""
    late = path_result("TCP", [block([1e6] * 50, seconds=100.0) for _ in range(10)], opened=True)
    return replace(found, settings=replace(OPEN, rate=1.0), paths=(late,))


def alone_quick(found: Report) -> Report:
    quick = path_result("in process", [block([10.0] * 50) for _ in range(20)], opened=False)
    return replace(found, paths=(quick, found.paths[-1]))


def elsewhere(found: Report, file: str = "") -> Report:
    """At an address, with a file beside it or without one."""
    path = "http://127.0.0.1:8000"
    assert found.verdict is not None
    paths = tuple(replace(each, name=path) if each.name == "TCP" else each for each in found.paths)
    model = replace(found.model, path=file)
    return replace(found, model=model, verdict=replace(found.verdict, path=path), paths=paths, server=None)


def soaked(found: Report, *, grown: bool = False, seconds: float = 5.0) -> Report:
    """A long run in an open loop, without a decision."""
    soak = EVERY["soak"].soak
    assert soak is not None
    soak = soak if grown else replace(soak, trends=())
    return replace(found, settings=replace(OPEN, duration_s=seconds), soak=soak, exit_code=3)


URL = "--url http://127.0.0.1:8000"
CASES = {
    "plain": (EVERY["plain"], "m.onnx --requests 400 --through process,tcp"),
    "pass in an open loop": (opened(EVERY["plain"]), "m.onnx --rate 10 --requests 500"),
    "over in an open loop": (opened(EVERY["over"]), "m.onnx --rate 10 --arrivals constant --clients 8"),
    "a queue": (waiting(EVERY["over"]), "m.onnx --rate 1 --duration 10s"),
    "over": (EVERY["over"], "m.onnx --through tcp --duration 3s"),
    "the model alone is quick": (alone_quick(EVERY["over"]), "m.onnx"),
    "over, and compared": (replace(EVERY["compare"], verdict=EVERY["over"].verdict), "m.onnx --compare o.onnx"),
    "over, and quantised": (
        replace(EVERY["quantize"], verdict=EVERY["over"].verdict),
        "m.onnx --quantize --calibration c.npz --output q.onnx --rate 20",
    ),
    "quantised": (EVERY["quantize"], "m.onnx --quantize"),
    "too few": (EVERY["few"], "m.onnx --duration 3s"),
    "too few in an open loop": (opened(EVERY["few"]), "m.onnx --rate 10 --duration 3s"),
    "too close": (too_close(EVERY["plain"]), "m.onnx --requests 1000"),
    "too close after two minutes": (
        too_close(replace(EVERY["plain"], settings=replace(EVERY["plain"].settings, duration_s=121.0))),
        "m.onnx --duration 2m",
    ),
    "noisy": (EVERY["noisy"], "m.onnx"),
    "a sweep": (too_close(EVERY["sweep"]), "m.onnx --sweep threads --requests 100 --duration 5s"),
    "a soak": (EVERY["soak"], "m.onnx --soak 1m"),
    "a soak of too few": (
        soaked(EVERY["few"], seconds=60.0),
        "m.onnx --rate 1 --soak 1m",
    ),
    "a soak that is too close": (soaked(too_close(EVERY["plain"])), "m.onnx --rate 10 --soak 1m"),
    "a soak in noise": (soaked(EVERY["noisy"]), "m.onnx --rate 10 --soak 1m"),
    "a soak that grew in noise": (soaked(replace(EVERY["plain"], noise=NOISY), grown=True), "m.onnx --soak 1m"),
    "over elsewhere": (elsewhere(EVERY["over"]), f"toy {URL}"),
    "over elsewhere and in process": (
        elsewhere(EVERY["over"], "m.onnx"),
        f"m.onnx {URL} --name toy --header 'X-Site: north'",
    ),
    "pass elsewhere": (elsewhere(EVERY["plain"]), f"toy {URL}"),
}


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options that a command line comes to, if it gets as far as the measurement."""
    seen: list[Options] = []

    def measure(options: Options, *_: object) -> Report:
        seen.append(options)
        raise CannotMeasure("far enough", "")

    monkeypatch.setattr("edgeward_agent.cli.bench.measure", measure)
    monkeypatch.setattr("edgeward_agent.log.set_up", lambda *_: None)  # it is for a whole process
    done = CliRunner().invoke(app, ["bench", *words], catch_exceptions=False, standalone_mode=False)
    assert seen, (words, done.stderr, done.exception)
    return seen[0]


@pytest.mark.parametrize("name", CASES)
def test_what_is_advised_can_be_typed_and_changes_something(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report, line = CASES[name]
    typed = tuple(shlex.split(line))
    before = parsed(list(typed), monkeypatch)
    commands = [each.command for each in advise(report, typed, quantizable=True) if each.command]
    assert commands or name == "over elsewhere"
    for command in commands:
        assert command.startswith("edgeward-agent bench ")
        assert parsed(shlex.split(command)[2:], monkeypatch) != before, command


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("too few in an open loop", ["m.onnx --rate 10 --requests "]),
        ("too close", ["m.onnx --duration 2m"]),
        ("a soak of too few", ["m.onnx --rate 1 --soak 5m"]),
        ("a soak that is too close", ["m.onnx --rate 10 --soak 2m"]),
        ("a soak in noise", ["", "m.onnx --rate 10 --soak 1m --force"]),
        ("a soak that grew in noise", ["", "m.onnx --soak 1m --force"]),
        ("too close after two minutes", ["m.onnx --duration 5m"]),
        ("over elsewhere", []),
        ("over elsewhere and in process", ["m.onnx --quantize", "m.onnx --sweep threads,batch"]),
        ("a queue", ["m.onnx --duration 10s --rate 0.33"]),
        ("over in an open loop", ["m.onnx --rate 10 --arrivals constant --clients 8 --quantize", "m.onnx --sweep "]),
    ],
)
def test_advice_takes_the_place_of_what_it_contradicts(name: str, commands: list[str]) -> None:
    report, line = CASES[name]
    found = [each.command for each in advise(report, tuple(shlex.split(line)), quantizable=True)]
    assert len(found) == len(commands)
    for got, begins in zip(found, commands, strict=True):
        assert got.startswith(f"edgeward-agent bench {begins}" if begins else "")


# -- the terminal


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "screen",
    [FILE, TERMINAL, Screen(width=100, unicode=True), Screen(width=60, unicode=True), Screen(width=40, unicode=True)],
    ids=["file", "terminal", "wide", "60", "40"],
)
def test_every_report_fits_its_screen(name: str, screen: Screen) -> None:
    found = replace(EVERY[name], next=advise(EVERY[name], ("risk.onnx",), quantizable=True))
    for line in render(found, screen).splitlines():
        shown = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert len(shown) <= screen.width or "edgeward-agent bench" in shown, shown


def test_a_table_that_is_too_wide_goes_on_below_with_the_names_of_its_rows() -> None:
    rows = [("  ", " n", " p50"), ("a ", " 1", " 2.0")]
    assert list(blocks(rows, 8)) == [["   n p50", "a  1 2.0"]]
    assert list(blocks(rows, 7)) == [["   n", "a  1"], ["   p50", "a  2.0"]]


def test_a_sweep_whose_best_row_is_best_at_both_fits_eighty_columns() -> None:
    rows = marked([replace(row, marks=()) for row in EVERY["sweep"].sweep[:1]])
    shown = render(replace(EVERY["sweep"], sweep=tuple(rows)), FILE)
    assert shown.count("threads") == 1 and "* fastest, most\n" in shown


def test_names_and_commands_are_written_as_they_are_in_a_file_too() -> None:
    named = replace(EVERY["plain"], model=replace(EVERY["plain"].model, title="µnet é.onnx"))
    command = "edgeward-agent bench 'µs – é.onnx' --header 'X: …' --rate 100"
    found = replace(named, next=(values.Advice(command=command, why="≥ 1"),))
    lines = render(found, FILE).splitlines()
    assert lines[0] == "PASS  µnet é.onnx makes its budget of 10 ms at p99, the default"
    assert f"Next  {command}" in lines and "      >= 1" in lines
    shown = render(found, Screen(encoding="latin-1"))
    assert shown.encode("latin-1") and "µnet é.onnx makes" in shown and "'µs ? é.onnx'" in shown


@pytest.mark.parametrize("name", EVERY)
def test_a_file_gets_plain_ascii(name: str) -> None:
    shown = render(EVERY[name], FILE)
    assert shown.isascii() and "\x1b" not in shown and "?" not in shown.replace("[?", "")


def test_the_first_lines_are_the_verdict_and_the_next_step() -> None:
    lines = render(
        replace(EVERY["plain"], next=advise(EVERY["plain"], ("risk.onnx",), quantizable=True)), FILE
    ).splitlines()
    assert lines[0] == "PASS  risk.onnx makes its budget of 10 ms at p99, the default"
    assert lines[1].startswith("      p99 over TCP is ")
    assert lines[3] == "Next  edgeward-agent bench risk.onnx --rate 100"


def test_a_histogram_is_drawn_and_its_quantiles_are_marked() -> None:
    shown = render(EVERY["plain"], TERMINAL)
    assert "█" in shown and shown.count("◂") >= 2 and "◂ p99" in shown
    plain = render(EVERY["plain"], FILE)
    assert "####" in plain and "< p50" in plain


def test_a_p999_of_a_thousand_requests_is_there_and_of_sixty_is_not() -> None:
    (line,) = [each for each in render(EVERY["few"], FILE).splitlines() if each.startswith("  TCP ")]
    assert line.split()[-3:-1] == ["-", "-"]
    (line,) = [each for each in render(EVERY["plain"], FILE).splitlines() if each.startswith("  TCP ")]
    assert "-" not in line


def test_one_round_is_one() -> None:
    once = replace(EVERY["plain"], settings=replace(SETTINGS, rounds=1, planned_rounds=1))
    assert "24 golden cases, 1 round in turn, 5.2 s" in " ".join(render(once, FILE).split())
    broken_off = replace(once, interrupted=True)
    assert render(broken_off, FILE).startswith("interrupted in round 1 of 1, ")


def test_failures_are_told() -> None:
    broken = [block([100.0, math.inf], failed=1, failure="status 503: no room") for _ in range(10)]
    found = replace(EVERY["plain"], paths=(path_result("TCP", broken, opened=False),))
    assert "TCP: 10 of 20 had no answer, which counts as late: status 503: no room" in render(found, FILE)


def test_a_queue_that_grows_is_told() -> None:
    late = [block([1e6] * 50, seconds=1.0) for _ in range(10)]
    opened = replace(SETTINGS, rate=100.0, arrivals="poisson", clients=16)
    found = replace(EVERY["over"], settings=opened, added=(), paths=(path_result("TCP", late, opened=True),))
    assert "100 requests a second were due and 50.0 were answered" in render(found, FILE)
    assert advise(found, ("m",), quantizable=True)[0].command == "edgeward-agent bench m --rate 33"


def test_two_models_are_compared_in_time_and_in_answers() -> None:
    shown = render(EVERY["compare"], FILE)
    assert re.search(r"Over TCP other\.onnx takes 0\.\d+ times as long at p50 \(95 %: ", shown)
    assert "That is of one start of each server." in shown
    assert re.search(r"  p +0\.4 +2 +0\.9 +0 % +50 %", shown)
    assert "Golden cases within tolerance: 2 of 2, other.onnx 1." in shown
    assert "Warning: calibrated with 2 cases" in render(EVERY["quantize"], FILE)


def test_a_difference_in_process_is_of_many_starts() -> None:
    assert EVERY["compare"].compared is not None
    (time,), (tail,) = EVERY["compare"].compared.times, EVERY["compare"].compared.tails
    told = pace("b.onnx", replace(time, over="in process"), tail.difference)
    assert told.startswith("In process b.onnx takes ") and "start" not in told


def test_where_there_is_no_interval_nothing_is_said_of_a_difference() -> None:
    assert EVERY["compare"].compared is not None
    (time,), (tail,) = EVERY["compare"].compared.times, EVERY["compare"].compared.tails
    none = replace(
        time.difference, ratio=1306.0, lower_us=-1.0, upper_us=1.0, ratio_lower=math.nan, ratio_upper=math.nan
    )
    told = pace("b.onnx", replace(time, over="in process", difference=none), tail.difference)
    assert told == "In process there were too few rounds to say: b.onnx took 1,306 times as long."


def test_a_sweep_marks_its_best_rows() -> None:
    shown = render(EVERY["sweep"], FILE).splitlines()
    assert [line.split("*")[1].strip() for line in shown if "*" in line][:2] == ["fastest", "most"]
    assert any("not available here" in line for line in shown)


# -- answers


def test_answers_that_are_not_finite_are_counted_and_not_compared() -> None:
    first = [{"y": np.array([[1.0, np.nan], [np.inf, 2.0], [0.1, 0.2]], np.float32)}]
    second = [{"y": np.array([[np.nan, np.nan], [np.inf, 2.0], [0.2, 0.1]], np.float32)}]
    (found,) = outputs_apart(first, second)
    assert (found.not_finite, found.scale) == (3, 2.0) and found.max_abs == pytest.approx(0.1)
    assert found.equal_share == 0.5 and found.argmax_agreement == 0
    shown = with_outputs(found)
    told = "3 of 6 elements of y are not finite, and were not compared."
    assert f"Warning: {told}" in render(shown, FILE) and told in page(shown)


def test_nan_in_the_place_of_nan_is_no_agreement() -> None:
    nothing = [{"y": np.full((2, 3), np.nan, np.float32)}]
    (found,) = outputs_apart(nothing, nothing)
    shown = with_outputs(found)
    told = "no element of y is finite in both models: nothing was compared."
    assert f"Warning: {told}" in render(shown, FILE) and told in page(shown)
    assert re.search(r"\n  y( +-){5}\n", render(shown, FILE)) and "nan" not in render(shown, FILE)
    (output,) = json.loads(document(shown))["compared"]["outputs"]
    assert output["equal_share"] is None and output["not_finite"] == output["elements"] == 6


def with_outputs(*found: OutputDifference) -> Report:
    report = EVERY["compare"]
    assert report.compared is not None
    return replace(report, compared=replace(report.compared, outputs=found))


def test_a_relative_difference_from_next_to_nothing_does_not_count() -> None:
    (found,) = outputs_apart([{"y": np.array([100.0, 1e-9])}], [{"y": np.array([101.0, 1e-3])}])
    assert found.max_rel == pytest.approx(0.01) and found.scale == 100.0


def test_outputs_of_another_form_are_named() -> None:
    one = [{"y": np.zeros((1, 2))}]
    with pytest.raises(ValueError, match=r"output y: expected shape \[1, 2\], got \[1, 3\]"):
        outputs_apart(one, [{"y": np.zeros((1, 3))}])
    with pytest.raises(ValueError, match=r"expected outputs \['y'\], got \['z'\]"):
        outputs_apart(one, [{"z": np.zeros((1, 2))}])


def test_texts_are_the_same_or_not() -> None:
    (found,) = outputs_apart([{"t": np.array(["a", "b"], object)}], [{"t": np.array(["a", "c"], object)}])
    assert found.equal_share == 0.5 and found.argmax_agreement is None
    (none,) = outputs_apart([{"t": np.array(["a", "b"], object)}], [{"t": np.array(["c", "b\0"], object)}])
    shown = with_outputs(none)
    assert re.search(r"\n  t( +-){3} +0 % +-\n", render(shown, FILE)) and "Warning" not in render(shown, FILE)
    (output,) = json.loads(document(shown))["compared"]["outputs"]
    assert [output[each] for each in ("max_abs", "max_rel", "mean_abs", "scale")] == [None] * 4
    assert output["equal_share"] == 0 and output["not_finite"] == 0


# -- the page and the document


class _Checker(HTMLParser):
    """Notes every address, every script and whether the tags are balanced."""

    VOID: Final = {"meta", "line", "rect", "path", "circle", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("name", EVERY)
def test_the_page_stands_alone(name: str) -> None:
    text = page(EVERY[name])
    checker = _Checker()
    checker.feed(text)
    assert checker.open == [] and checker.addresses == []
    assert not checker.tags & {"script", "link", "img", "iframe", "object"}
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert "url(" not in text and "@import" not in text and "http" not in re.sub(r"http-equiv", "", text)
    assert "nan" not in re.findall(r'="([^"]*)"', text)


def test_the_page_has_charts_and_the_same_verdict() -> None:
    text = page(EVERY["plain"])
    assert text.count("<svg") == 3 and ">PASS<" in text and "risk.onnx makes its budget" in text
    assert page(EVERY["sweep"]).count("<svg") == 1 and page(EVERY["soak"]).count("<svg") == 4


def heights(drawing: str) -> tuple[list[float], float | None]:
    """Of the grid's lines and of the limit's."""
    found = [
        (kind, float(at)) for kind, at in re.findall(r'class="(grid|limit)" x1="\d+" x2="\d+" y1="([\d.]+)"', drawing)
    ]
    return [at for kind, at in found if kind == "grid"], next((at for kind, at in found if kind == "limit"), None)


@pytest.mark.parametrize(
    ("limit", "words"),
    [(1000.0, ""), (100.0, ""), (10.0, "the goal: below all"), (9000.0, ""), (1e6, "the goal: above all")],
)
def test_a_limit_is_drawn_where_it_is_or_told(limit: float, words: str) -> None:
    line = Line(name="p99", style="s1", points=((0.0, 300.0), (1.0, 2000.0)))
    drawing = lines("p99", [line], across=[(0.0, "0"), (1.0, "1")], tell=exact, limit=limit, limit_words="the goal")
    grid, at = heights(drawing)
    assert (at is None) == bool(words) and words in drawing
    if at is not None:
        assert min(grid) <= at <= max(grid) and "all that is drawn" not in drawing
        nearest = min(grid, key=lambda each: abs(each - at))
        assert abs(nearest - at) < 0.1 if limit in (100.0, 1000.0) else abs(nearest - at) > 1


def test_a_limit_far_above_all_columns_is_told() -> None:
    drawing = columns("p99", [Column(label="1", value=5.0, told="5")], tell=exact, limit=100.0, limit_words="the goal")
    assert heights(drawing)[1] is None and "the goal: above all that is drawn." in drawing


def test_a_mark_and_a_failure_stand_under_the_setting() -> None:
    text = page(EVERY["sweep"])
    assert '<td>1 × cpu, batch 1<span class="under">fastest answer</span></td>' in text
    assert '<td>1 × cuda, batch 1<span class="under">not available here</span></td><td>0</td><td>–</td>' in text
    assert {row.count("<td>") for row in re.findall(r"<tr.*?</tr>", text.split("in budget")[1])} == {7}


def test_what_a_model_is_called_is_not_markup() -> None:
    found = EVERY["plain"]
    shown = page(replace(found, model=replace(found.model, title="<b>x</b>&.onnx")))
    assert "<b>x" not in shown and "&lt;b&gt;x&lt;/b&gt;&amp;.onnx" in shown


@pytest.mark.parametrize("name", EVERY)
def test_the_document_is_strict_json(name: str) -> None:
    def refuse(text: str) -> float:
        raise AssertionError(text)

    found = json.loads(document(EVERY[name]), parse_constant=refuse)
    assert found["schema"] == 1 and found["verdict"]["outcome"] in ("pass", "over", "inconclusive")
    assert {"model", "settings", "machine", "noise", "paths", "added", "next", "exit_code"} <= set(found)


def test_every_member_of_the_document_is_documented(checkout: Path) -> None:
    text = (checkout / "docs/bench.md").read_text()
    missing = sorted(name for name in _members(Report) if f"`{name}`" not in text)
    assert missing == []


def _members(kind: type) -> set[str]:
    """The names of all fields, of the values in them too."""
    found = set()
    for each in dataclasses.fields(kind):
        found.add(each.name)
        for name in re.findall(r"[A-Z]\w+", str(each.type)):
            inner = vars(values).get(name)
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                found |= _members(inner)
    return found
