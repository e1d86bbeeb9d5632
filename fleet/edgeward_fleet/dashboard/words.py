"""How values read on a page. Pure; registered as filters of the templates."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

from edgeward_contract.schema import JsonValue

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_LONG: Final = 160
_FITS: Final = 26
_JOINED: Final = "\u00a0"  # a number and its unit stay on one line
_TURNS: Final = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}")
_STEPS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


def one_way(value: object) -> object:
    """Text without what turns the direction of the text behind it: a device's word must not turn a page's own round."""
    return value.translate(_TURNS) if isinstance(value, str) and not value.isascii() else value


def moment(at: datetime | None, absent: str = "never") -> Markup:
    """A point in time for people (UTC, to the second) and for the script, which says how long ago it was."""
    if at is None:
        return escape(absent)
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(instant(utc), utc.strftime("%Y-%m-%d %H:%M:%S"))


def instant(at: datetime) -> str:
    """For machines."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(at: datetime) -> Markup:
    """A point in time that the script leaves as it is: where the hour matters more than how long ago it was."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" data-exact>{}</time>').format(instant(utc), utc.strftime("%Y-%m-%d %H:%M:%S"))


def dated(at: datetime) -> str:
    """Inside a sentence, which no script rewrites: with its day, for it may be read on another one."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(at: datetime) -> Markup:
    """A date, where the hour does not matter."""
    return Markup('<time datetime="{0}" data-exact>{0}</time>').format(at.astimezone(UTC).strftime("%Y-%m-%d"))


def duration(seconds: float) -> str:
    """`90` → `1 min 30 s`; at most two units, the larger ones. A number and its unit are not torn apart."""
    left = round(seconds)
    parts = []
    for size, unit in _STEPS:
        if left >= size:
            parts.append(f"{left // size}{_JOINED}{unit}")
            left %= size
    if left or not parts:
        parts.append(f"{left}{_JOINED}s")
    return " ".join(parts[:2])


def span(between: timedelta) -> str:
    return duration(between.total_seconds())


def fit(name: str) -> str:
    """The class of a name in a table: an ordinary one is never broken, a very long one may be."""
    return "once" if len(name) <= _FITS else "wrap"


def size(count: int) -> str:
    """Bytes in binary units."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def milliseconds(micros: int) -> str:
    """Microseconds as people compare them with 10 ms."""
    value = micros / 1000
    return f"{value:.2g} ms" if value < 10 else f"{round(value, 1 if value < 100 else 0):g} ms"


def number(value: int) -> str:
    """Groups of three, so that 1200000 can be read."""
    return f"{value:,}".replace(",", "\u202f")


def plural(count: int, one: str, many: str = "") -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def percent(value: float) -> str:
    """Two figures that mean something: `0 %`, `0.25 %`, `22 %`; 100 only where it is all of them."""
    if 99.5 <= value < 100:
        return ">\u00a099\u00a0%"
    return f"{value:.0f}\u00a0%" if value == 0 or value >= 10 else f"{value:.2g}\u00a0%"


def short(digest: str) -> Markup:
    """The head of a digest; the whole of it is in the title."""
    return Markup('<code class="digest" title="{}">{}…</code>').format(digest, digest[:12])


def compact(value: JsonValue) -> str:
    """A small JSON value in one line."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def pretty(value: JsonValue) -> str:
    """A document as people read it."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def audited(value: JsonValue) -> Markup:
    """A value of an audit entry; digests are shortened, they are never read whole."""
    text = compact(value)
    if _DIGEST.fullmatch(text):
        return short(text)
    return escape(text if len(text) <= _LONG else text[:_LONG] + "…")


def sentence(text: object) -> Markup:
    """An error's message or hint as a page shows it: with a capital, and what stands in backticks as code."""
    words = str(text)
    parts = (words[:1].upper() + words[1:]).split("`")
    code = Markup("<code>{}</code>")
    return Markup().join(code.format(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def state_word(state: str) -> str:
    """`ROLLING_BACK` → `rolling back`."""
    return state.replace("_", " ").lower()


FILTERS: Final = {
    "moment": moment,
    "exact": exact,
    "instant": instant,
    "fit": fit,
    "day": day,
    "duration": duration,
    "span": span,
    "size": size,
    "milliseconds": milliseconds,
    "number": number,
    "plural": plural,
    "percent": percent,
    "short": short,
    "compact": compact,
    "pretty": pretty,
    "audited": audited,
    "sentence": sentence,
    "word": state_word,
}
