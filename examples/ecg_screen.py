"""Draws an ECG and a model's verdicts: in a terminal with a moving trace, or as plain lines for a pipe."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

# Unicode's braille patterns: the bit of each dot, by row and column.
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK: Final = 0x2800
_DOTS_PER_S: Final = 30  # a QRS complex is then two to three dots wide, as on paper
_PANEL: Final = 34
_STRIP_ROWS: Final = 7
_SMALLEST_RANGE_MV: Final = 0.5  # or a flat line would be drawn as a storm
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the model said of the window that ended at `at_s`; without an answer, why there is none."""

    at_s: float
    rhythm: str = ""
    probability: float = 0.0
    latency_ms: float = 0.0
    version: str = ""
    problem: str = ""


class Screen(Protocol):
    """Where a stream is shown. A context: `__exit__` leaves the terminal as it was."""

    def __enter__(self) -> Screen: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def trace(self, at_s: float, lead: Samples, rate_hz: int) -> None: ...
    def verdict(self, verdict: Verdict) -> None: ...


class PlainScreen:
    """One line for each verdict."""

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def trace(self, at_s: float, lead: Samples, rate_hz: int) -> None:
        """A pipe has no use for a picture."""

    def verdict(self, verdict: Verdict) -> None:
        if verdict.problem:
            print(f"{clock(verdict.at_s)}  no answer: {verdict.problem}", flush=True)
            return
        said = f"{verdict.rhythm:<24} {verdict.probability:5.2f} {verdict.latency_ms:7.1f} ms"
        print(f"{clock(verdict.at_s)}  {said}", flush=True)


class TerminalScreen:
    """The trace of lead II as a strip of braille dots, the latest verdict beside it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._verdict: Verdict | None = None

    def __enter__(self) -> TerminalScreen:
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")  # the other screen, no cursor, empty
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()

    def verdict(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def trace(self, at_s: float, lead: Samples, rate_hz: int) -> None:
        columns = shutil.get_terminal_size().columns
        width = max(20, columns - _PANEL)
        shown = round(min(len(lead) / rate_hz, 2 * width / _DOTS_PER_S) * rate_hz)
        strip = braille(lead[-shown:], width, _STRIP_ROWS)
        lines = [f"{_BOLD}{self._title}{_PLAIN}  {_DIM}lead II, {shown / rate_hz:.1f} s{_PLAIN}  {clock(at_s)}", ""]
        lines += [f"{row}  {text}" for row, text in zip(strip, self._panel(), strict=True)]
        lines += ["", f"{_DIM}demonstration, not for clinical use; Ctrl-C ends it{_PLAIN}"]
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()

    def _panel(self) -> list[str]:
        said = self._verdict
        if said is None:
            lines = ["", f"{_DIM}waiting for ten seconds of ECG{_PLAIN}"]
        elif said.problem:
            lines = ["", f"{_BOLD}no answer{_PLAIN}", said.problem[: _PANEL - 2]]
        else:
            bar = "█" * round(said.probability * 20)
            lines = ["", f"{_BOLD}{said.rhythm.replace('_', ' ')}{_PLAIN}", f"{bar:<20} {said.probability:4.0%}", ""]
            lines += [f"answered in {said.latency_ms:.1f} ms", f"{_DIM}{said.version}, {clock(said.at_s)}{_PLAIN}"]
        return lines + [""] * (_STRIP_ROWS - len(lines))


def braille(samples: Samples, width: int, rows: int) -> list[str]:
    """The samples as `rows` lines of `width` characters, two by four dots each; scaled to fill them.

    Each column of dots shows all values between the least and the greatest of its samples, and joins its neighbour,
    so that no spike is lost.
    """
    dots = _columns(samples, 2 * width, 4 * rows)
    lines = np.full((rows, width), _BLANK, dtype=np.int64)
    for row, pair in enumerate(_DOTS):
        for column, bit in enumerate(pair):
            lines |= np.where(dots[row::4, column::2], bit, 0)
    return ["".join(chr(code) for code in line) for line in lines]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """What a run came to, in one or two lines."""
    answered = [each for each in verdicts if not each.problem]
    counts = Counter(each.rhythm for each in answered)
    said = ", ".join(f"{count} × {rhythm}" for rhythm, count in counts.most_common()) or "no answer"
    lines = [f"{len(verdicts)} window{'' if len(verdicts) == 1 else 's'}: {said}"]
    if missing := len(verdicts) - len(answered):
        lines.append(f"without an answer: {missing}")
    if answered:
        took = np.array([each.latency_ms for each in answered])
        lines.append(f"latency: median {np.median(took):.1f} ms, longest {took.max():.1f} ms")
    return "\n".join(lines)


def _columns(samples: Samples, width: int, height: int) -> npt.NDArray[np.bool_]:
    """(height, width) of dots, the greatest value at the top."""
    edges = np.linspace(0, len(samples), width + 1).astype(np.int64)
    middle, low, high = _range(samples)
    level = ((samples - middle) / (high - low) + 0.5) * (height - 1)
    lines = np.clip(np.round(level), 0, height - 1).astype(np.int64)
    dots = np.zeros((height, width), dtype=np.bool_)
    for column, (start, end) in enumerate(pairwise(edges)):
        part = lines[max(0, start - 1) : max(end, start + 1)]  # with the sample before: that joins the columns
        dots[height - 1 - int(part.max()) : height - int(part.min()), column] = True
    return dots


def _range(samples: Samples) -> tuple[float, float, float]:
    """Middle, bottom and top of what is drawn, in millivolt."""
    low, high = float(samples.min()), float(samples.max())
    half = max(high - low, _SMALLEST_RANGE_MV) / 2
    middle = (low + high) / 2
    return middle, middle - half, middle + half
