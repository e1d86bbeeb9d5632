"""What a terminal would obey is shown instead."""

from __future__ import annotations

import pytest

from edgeward_contract.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 10\u00a0µs …", "plain, 10\u00a0µs …"),
        ("\x1b[31m\x07\0", "\\x1b[31m\\x07\\x00"),
        ("one\ntwo\rthree\x9b", "one\\ntwo\\rthree\\x9b"),
        ("\u202e\u2028\udc80", "\\u202e\\u2028\\udc80"),
    ],
)
def test_only_what_is_seen_stays(text: str, shown: str) -> None:
    assert visible(text) == shown
