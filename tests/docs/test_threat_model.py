"""The threat model names tests; each of them is there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_that_holds_a_rule_exists(checkout: Path) -> None:
    page = (checkout / "docs/threat-model.md").read_text()
    rules = page.partition("## What is sent to a device")[2].partition("\n## ")[0]
    files = re.findall(r"`(tests/[\w/]+\.py)`", rules)
    assert len(files) >= 10
    for row in rules.splitlines():
        text = "".join((checkout / file).read_text() for file in re.findall(r"`(tests/[\w/]+\.py)`", row))
        for words in re.findall(r"“([^”]+)”", row):
            assert words in text, row
