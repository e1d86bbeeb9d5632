"""What the doctor says of one thing that it looked at."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `hint` is empty when it is good."""

    name: str
    level: Level
    detail: str
    hint: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name=name, level=Level.OK, detail=detail)


def warn(name: str, detail: str, hint: str) -> Check:
    return Check(name=name, level=Level.WARN, detail=detail, hint=hint)


def fail(name: str, detail: str, hint: str) -> Check:
    return Check(name=name, level=Level.FAIL, detail=detail, hint=hint)
