"""`edgeward-agent bench`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

import click

from edgeward_agent import log
from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.cases import SEED, Shapes
from edgeward_agent.bench.errors import NOTHING_YET, Interrupted
from edgeward_agent.bench.options import Axes, Options
from edgeward_agent.bench.preparing import INTERRUPTED
from edgeward_agent.bench.progress import Telling
from edgeward_agent.bench.report import Report
from edgeward_agent.bench.running import bench as measure
from edgeward_agent.bench.schedule import Arrivals, Wishes
from edgeward_agent.bench.words import Screen
from edgeward_agent.cli import bench_options as typed
from edgeward_agent.cli.app import complain
from edgeward_agent.cli.bench_errors import Judging
from edgeward_agent.cli.bench_places import check_overwrites, check_writable
from edgeward_agent.cli.bench_showing import screen_of, show
from edgeward_agent.cli.sections import typed_words

_OPEN_LOOP_CLIENTS: Final = 16
_TERMINATED: Final = 143  # 128 + SIGTERM
_EPILOG: Final = """
\b
Examples:
  edgeward-agent bench model.onnx
  edgeward-agent bench model.onnx --budget 5ms@p99.9 --shape image=1,3,224,224
  edgeward-agent bench releases/2 --rate 50               as patients come
  edgeward-agent bench model.onnx --sweep threads,batch
  edgeward-agent bench new.onnx --compare old.onnx
  edgeward-agent bench releases/2 --quantize --output model-int8.onnx
  edgeward-agent bench model.onnx --soak 10m --html report.html
  edgeward-agent bench resnet50 --url http://127.0.0.1:8000

\b
Exit codes:
  0    it makes the budget
  1    it is over the budget, or does not stay as it began (--soak)
  2    the command, the file or the input is wrong
  3    inconclusive: too few requests, too much noise, or no server
  70   a bug of ours: the traceback says where
  130  Ctrl-C: what was measured until then is shown
  143  SIGTERM: nothing is shown
"""
_SECTIONS: Final = {
    "What it is held to": ("budget", "force"),
    "How it is asked": ("through", "clients", "rate", "arrivals", "requests", "duration", "timeout"),
    "What it is asked": ("inputs", "shapes", "seed"),
    "More than one measurement": ("compare", "quantize", "calibration", "output", "sweep", "soak"),
    "A server elsewhere": ("url", "name", "headers"),
    "What is shown": ("as_json", "html"),
}


@click.command(
    cls=Judging, sections=_SECTIONS, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("model", callback=typed.not_empty)
@click.option(
    "--budget",
    metavar="TIME@QUANTILE",
    callback=typed.budget,
    help="What it is held to, such as 10ms@p99.  [default: the manifest's, else 10ms@p99]",
)
@click.option(
    "--through",
    metavar="PATHS",
    callback=typed.through,
    help="Some of process,unix,tcp; the last in that order is judged.  [default: all; tcp with --rate, --soak]",
)
@click.option(
    "--rate",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True, max=100_000),
    callback=typed.rate,
    help="Open loop: N requests a second, each counted from when it was due.",
)
@click.option(
    "--arrivals",
    type=click.Choice([each.value for each in Arrivals]),
    help="How they come with --rate: independently, or evenly.  [default: poisson]",
)
@click.option(
    "--clients",
    metavar="N",
    type=click.IntRange(1, 256),
    help=f"Connections; this process has one caller.  [default: 1; {_OPEN_LOOP_CLIENTS} with --rate, without process]",
)
@click.option("--requests", metavar="N", type=click.IntRange(1), help="On each path, instead of --duration.")
@click.option(
    "--duration", metavar="TIME", callback=typed.time_s, help="For all paths together.  [default: 10s to 30s]"
)
@click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    metavar="INPUT",
    help="NAME=@FILE.npy or NAME=1,2,3 as for infer, FILE.npz, or FILE.json.  [default: golden set, else random]",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    callback=typed.shapes,
    help="Of random input, once for each: x=1,3,224,224.",
)
@click.option(
    "--compare", metavar="OTHER.onnx", type=click.Path(path_type=Path), help="Latency and answers side by side."
)
@click.option("--quantize", is_flag=True, help="Make a static INT8 (QDQ) model and hold it beside this one.")
@click.option(
    "--calibration",
    metavar="FILE.npz",
    type=click.Path(path_type=Path),
    help="Real cases for --quantize.  [default: half of the golden set]",
)
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="Keep the quantised model.")
@click.option(
    "--sweep",
    metavar="AXES",
    callback=typed.sweep,
    help="Some of threads,ep,batch; or with values: threads=1:2,batch=1:8.",
)
@click.option("--soak", metavar="TIME", callback=typed.time_s, help="A long run, such as 10m: does p99 or memory grow?")
@click.option(
    "--url",
    metavar="URL",
    callback=typed.not_empty,
    help="Any server of the Open Inference Protocol v2; MODEL may be a name.",
)
@click.option(
    "--name", metavar="NAME", callback=typed.not_empty, help="Of the model on that server.  [default: as the file]"
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    callback=typed.headers,
    help="Sent with each request.",
)
@click.option("--timeout", metavar="TIME", callback=typed.time_s, help="For one answer.  [default: 10s]")
@click.option("--seed", type=click.IntRange(0), default=SEED, help="Of random input and of Poisson arrivals.")
@click.option("--force", is_flag=True, help="Judge even where the machine is too noisy.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document (docs/bench.md) instead of text.")
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path), help="Also one self-contained page with charts."
)
def bench(
    model: str,
    budget: Budget | None,
    through: tuple[str, ...],
    rate: float | None,
    arrivals: str | None,
    clients: int | None,
    requests: int | None,
    duration: float,
    inputs: tuple[str, ...],
    shapes: Shapes,
    compare: Path | None,
    quantize: bool,
    calibration: Path | None,
    output: Path | None,
    sweep: Axes | None,
    soak: float,
    url: str,
    name: str,
    headers: dict[str, str],
    timeout: float,
    seed: int,
    force: bool,
    as_json: bool,
    html: Path | None,
) -> None:
    """Measure how long MODEL takes to answer on this machine, and whether it makes a budget.

    MODEL is an ONNX file or a release folder. It is asked in this process and through the daemon, in turn, so that
    what the daemon adds is seen. The verdict rests on a confidence bound, not on the quantile that was observed.
    """
    options = Options(
        model=model,
        wishes=Wishes(
            requests=requests or 0,
            duration_s=duration,
            rate=rate or 0.0,
            arrivals=Arrivals(arrivals or Arrivals.POISSON),
            clients=clients or (_OPEN_LOOP_CLIENTS if rate and "process" not in through else 1),
        ),
        budget=budget,
        through=through,
        source=typed.source(inputs),
        shapes=shapes,
        seed=seed,
        timeout_s=timeout or 10.0,
        force=force,
        url=url,
        name=name,
        headers=headers,
        compare=compare,
        quantize=quantize,
        calibration=calibration,
        output=output,
        sweep=sweep,
        soak_s=soak,
    )
    check_idle(
        {"--arrivals": arrivals is not None, "--clients": clients is not None, "--timeout": timeout > 0}, options
    )
    check(options)
    log.set_up("error")
    check_overwrites(options, html)
    check_writable("--output", output)
    check_writable("--html", html)
    report = _measured(options, screen_of(sys.stderr))
    show(report, as_json=as_json, html=html)
    sys.exit(report.exit_code)


def check(options: Options) -> None:
    """Raises UsageError for what does not go together."""
    modes = {
        "--compare": options.compare is not None,
        "--quantize": options.quantize,
        "--sweep": options.sweep is not None,
        "--soak": bool(options.soak_s),
    }
    chosen = [name for name, given in modes.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} are two measurements: give one of them.")
    if options.url and (chosen not in ([], ["--soak"]) or options.through):
        raise click.UsageError(f"{(*chosen, '--through')[0]} is for a model at hand, --url for a server elsewhere.")
    for name, other, alone in (
        ("--calibration", "--quantize", options.calibration is not None and not options.quantize),
        ("--output", "--quantize", options.output is not None and not options.quantize),
        ("--name", "--url", bool(options.name and not options.url)),
        ("--header", "--url", bool(options.headers and not options.url)),
    ):
        if alone:
            raise click.UsageError(f"{name} goes with {other}.")
    if options.sweep is not None and options.through:
        raise click.UsageError("--sweep asks in this process: leave --through out, and try the best setting with it.")
    if options.soak_s and (options.wishes.requests or options.wishes.duration_s):
        other = "--requests" if options.wishes.requests else "--duration"
        raise click.UsageError(f"--soak and {other} both say how long: give one of them.")
    if options.sweep is not None and options.wishes.rate:
        raise click.UsageError("--sweep asks as fast as it can: leave --rate out, and try the best setting with it.")
    if options.wishes.requests and options.wishes.duration_s and options.sweep is None:
        raise click.UsageError("--requests and --duration both say how long: give one of them.")


def check_idle(given: Mapping[str, bool], options: Options) -> None:
    """Raises UsageError for what is typed and would do nothing; `given` are options that have a default."""
    if given["--arrivals"] and not options.wishes.rate:
        raise click.UsageError("--arrivals goes with --rate.")
    if given["--clients"] and options.sweep is not None:
        raise click.UsageError("--sweep asks in this process, one request at a time: leave --clients out.")
    if "process" in options.through and options.wishes.clients > 1:
        raise click.UsageError(
            "--through process has one caller: leave --clients out, or give the other paths, --through unix,tcp."
        )
    if given["--timeout"] and (options.sweep is not None or set(options.through) == {"process"}):
        raise click.UsageError("--timeout is for answers of a server, and this process is asked: leave it out.")
    if options.shapes and options.source is not None:
        raise click.UsageError("--shape is for random input, and --input gives it: leave one of them out.")


def _measured(options: Options, screen: Screen) -> Report:
    telling = Telling(sys.stderr, screen)
    try:
        with _ending_orderly():
            return measure(options, typed_words(), telling)
    except (KeyboardInterrupt, Interrupted) as error:
        telling.done()
        known = error if isinstance(error, Interrupted) else NOTHING_YET
        complain(str(known), known.hint)
        sys.exit(INTERRUPTED)
    finally:
        telling.done()


@contextlib.contextmanager
def _ending_orderly() -> Iterator[None]:
    """SIGTERM unwinds as an exit does, so that the serving process we started does not outlive us."""

    def leave(_: int, __: FrameType | None) -> None:
        sys.exit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
