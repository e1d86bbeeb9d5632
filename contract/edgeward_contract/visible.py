"""Text from elsewhere, made fit for a terminal: a server must not move the cursor, ring the bell. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """With every character that is not seen, such as ESC, NUL or a change of direction, escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(each) if unicodedata.category(each) in _UNSEEN else each for each in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
