"""A bedside monitor: streams an ECG through a device in real time and shows what the model says of it.

edgeward-agent serve models/ecg-rhythm/releases/1
python examples/bedside_ecg.py --simulate atrial_fibrillation
python examples/bedside_ecg.py --record FILE.hea --device unix:/var/lib/edgeward/socket/serving.sock

Each second it sends the last ten seconds, 240 kB, and keeps its pace whatever the device does: a device that does not
answer costs the verdict of that second and nothing else. Needs numpy and the client alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from ecg_screen import PlainScreen, Screen, TerminalScreen, Verdict, summary

from edgeward_agent.client import Client, ClientError, ModelInfo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models/ecg-rhythm"))

from ecg_beats import Rhythm
from ecg_heart import RATE_HZ
from ecg_recording import RecordingError, read_recording
from ecg_simulator import LEADS, WINDOW, WINDOW_S, Ecg, simulate

LEAD_II: Final = LEADS.index("II")
FRAME_S: Final = 0.1
TIMEOUT_S: Final = 0.9  # a later answer would be overtaken by the next window


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is streamed: `ecg` is (12, samples) in millivolt at 500 Hz. A speed of 0 does not wait at all."""

    title: str
    ecg: Ecg
    speed: float

    def moments(self) -> Iterator[float]:
        """Seconds into the recording at which something is due; each is given when it is time for it."""
        step_s = FRAME_S * max(1.0, self.speed) if self.speed else 1.0
        per_second = max(1, round(1 / step_s))
        began = time.monotonic()
        for tick in range(1, int(self.ecg.shape[1] / RATE_HZ) * per_second + 1):
            at_s = tick / per_second
            if self.speed:
                time.sleep(max(0.0, began + at_s / self.speed - time.monotonic()))
            yield at_s

    def until(self, at_s: float) -> Ecg:
        """The last ten seconds, or what there is of them."""
        end = round(at_s * RATE_HZ)
        return self.ecg[:, max(0, end - WINDOW) : end]


class Unfit(Exception):
    """The device's model is not one for this monitor."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when the device answered, 1 when it never did, 2 when there was nothing to do."""
    given = _parser().parse_args(arguments)
    try:
        stream = Stream(title=_title(given), ecg=_ecg(given), speed=given.speed)
    except (RecordingError, OSError) as error:
        print(f"bedside_ecg: {error}", file=sys.stderr)
        return 2
    try:
        with Client(given.device, timeout_s=TIMEOUT_S) as client:
            check(client.model(given.model))
            plain = given.plain or not sys.stdout.isatty()
            verdicts = run(client, given.model, stream, PlainScreen() if plain else TerminalScreen(stream.title))
    except (ClientError, Unfit) as error:
        print(f"bedside_ecg: {error}", file=sys.stderr)
        print("  start a device with: edgeward-agent serve models/ecg-rhythm/releases/1", file=sys.stderr)
        return 1
    print(summary(verdicts))
    return 0 if any(not each.problem for each in verdicts) else 1


def check(model: ModelInfo) -> None:
    """Raises Unfit unless the model reads twelve leads of ten seconds and answers with our rhythms."""
    inputs = {each.name: each.shape[1:] for each in model.inputs}
    outputs = {each.name: each.shape[1:] for each in model.outputs}
    if inputs != {"ecg": (len(LEADS), WINDOW)} or outputs.get("probability") != (len(Rhythm),):
        raise Unfit(
            f"{model.name}: expected an input ecg [-1, {len(LEADS)}, {WINDOW}] and an output probability "
            f"[-1, {len(Rhythm)}], the device has {inputs} and {outputs}"
        )


def run(client: Client, model: str, stream: Stream, screen: Screen) -> list[Verdict]:
    """Stream to the end or to Ctrl-C; every verdict that was due."""
    verdicts: list[Verdict] = []
    try:
        with screen:
            for at_s in stream.moments():
                window = stream.until(at_s)
                if at_s >= WINDOW_S and at_s == int(at_s):
                    verdicts.append(ask(client, model, window, at_s))
                    screen.verdict(verdicts[-1])
                screen.trace(at_s, window[LEAD_II], RATE_HZ)
    except KeyboardInterrupt:
        pass  # how a person ends it; what was seen so far is summed up
    return verdicts


def ask(client: Client, model: str, window: Ecg, at_s: float) -> Verdict:
    """What the device says of a window (12, 5000). The clock runs from the call to the answer in numpy."""
    began = time.perf_counter()
    try:
        answer = client.infer(model, {"ecg": window[np.newaxis]}, outputs=["probability"])
    except ClientError as error:
        return Verdict(at_s=at_s, problem=str(error))
    latency_ms = (time.perf_counter() - began) * 1e3
    probability = answer["probability"][0]
    likeliest = int(probability.argmax())
    return Verdict(
        at_s=at_s,
        rhythm=tuple(Rhythm)[likeliest],
        probability=float(probability[likeliest]),
        latency_ms=latency_ms,
        version=f"{answer.model}@{answer.version}",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Stream an ECG through a device and show the model's verdicts.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--record", type=Path, metavar="FILE.hea", help="a 12-lead WFDB recording of format 16")
    rhythms = [str(rhythm) for rhythm in Rhythm]
    source.add_argument("--simulate", choices=rhythms, default=rhythms[0], help="a rhythm (default: %(default)s)")
    parser.add_argument("--seconds", type=_at_least_a_window, default=60, help="length when simulated (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="which simulated patient (default: 0)")
    parser.add_argument("--device", default="http://127.0.0.1:8500", metavar="ADDRESS", help="http://… or unix:PATH")
    parser.add_argument("--model", default="ecg-rhythm", help="its name on the device (default: %(default)s)")
    parser.add_argument("--speed", type=_speed, default=1.0, help="times real time; 0 does not wait (default: 1)")
    parser.add_argument("--plain", action="store_true", help="lines instead of a picture; so in a pipe anyway")
    return parser


def _at_least_a_window(text: str) -> int:
    if not text.isdecimal() or int(text) < WINDOW_S:
        raise argparse.ArgumentTypeError(f"expected {WINDOW_S:g} or more whole seconds, got {text!r}")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return speed


def _title(given: argparse.Namespace) -> str:
    return given.record.stem if given.record else f"simulated {given.simulate}"


def _ecg(given: argparse.Namespace) -> Ecg:
    if given.record is None:
        return simulate(Rhythm(given.simulate), np.random.default_rng(given.seed), float(given.seconds))
    ecg = read_recording(given.record)
    if ecg.shape[1] < WINDOW:
        raise RecordingError(f"{given.record.name}: expected {WINDOW_S:g} s or more, found {ecg.shape[1] / RATE_HZ:g}")
    return ecg


if __name__ == "__main__":
    sys.exit(main())
