"""What a caller may ask for, held to what can be said to a server: the same for every client and the Engine. Pure."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from edgeward_agent.client.errors import InvalidRequest
from edgeward_agent.wire.tensors import Array
from edgeward_contract.manifest import CaptureMode

_OFF: Final = CaptureMode.OFF
_MAX_DEADLINE_US: Final = (1 << 63) - 1
_MAX_PRIORITY: Final = (1 << 64) - 1


class Wish(NamedTuple):
    """What a caller may ask for beside the inputs.

    Args:
        deadline_us: refuse at once when the answer cannot be there by then; 0 leaves it to the model's budget.
        priority: 1 goes before the others, 0 is the server's default.
    """

    model: str
    version: int | None = None
    outputs: tuple[str, ...] = ()
    request_id: str = ""
    capture: CaptureMode = _OFF
    deadline_us: int = 0
    priority: int = 0


WishFields = tuple[str, int | None, tuple[str, ...], str, CaptureMode, int, int]
"""A `Wish` as it is, which takes a third of the time to make."""


def wish_of(
    model: str,
    inputs: Mapping[str, Array],
    version: int | None,
    outputs: Sequence[str],
    request_id: str,
    capture: CaptureMode,
    deadline_us: int,
    priority: int,
) -> WishFields:
    """What a caller has said, where all of it can be said to a server.

    Raises:
        InvalidRequest: something is of another type, an output is wanted twice, or a number is out of its range.
    """
    try:
        if not (isinstance(model, str) and isinstance(request_id, str)):
            raise TypeError(f"expected the name of a model and an id as str, got {model!r} and {request_id!r}")
        if inputs.__class__ is not dict and not isinstance(inputs, Mapping):
            raise TypeError(f"expected arrays by input name, got {type(inputs).__name__}")
        wanted = outputs if outputs.__class__ is tuple and not outputs else _names(outputs)
        if capture.__class__ is not CaptureMode:
            capture = CaptureMode(capture)
        if version is not None:
            version = whole("version", version)
        if deadline_us.__class__ is not int:
            deadline_us = whole("deadline_us", deadline_us)
        if not 0 <= deadline_us <= _MAX_DEADLINE_US:
            raise ValueError(f"expected a deadline from 0 to {_MAX_DEADLINE_US} µs, got {deadline_us}")
        if priority.__class__ is not int:
            priority = whole("priority", priority)
        if not 0 <= priority <= _MAX_PRIORITY:
            raise ValueError(f"expected a priority from 0 to {_MAX_PRIORITY}, got {priority}")
        return model, version, wanted, request_id, capture, deadline_us, priority
    except (TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from None


def check_texts(*names: object) -> None:
    """Raises InvalidRequest: a name or an id is no text, or none that UTF-8 has."""
    for name in names:
        try:
            if not isinstance(name, str):
                raise TypeError
            name.encode()
        except (TypeError, UnicodeEncodeError):
            raise InvalidRequest(f"expected names and ids as str that UTF-8 has, got {name!a:.60}") from None


def whole(name: str, number: object) -> int:
    """Raises InvalidRequest: what was given by this name is no whole number."""
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidRequest(f"expected {name} as a whole number, got {number!r:.60}") from None


def _names(outputs: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError: they are none, or one comes twice."""
    try:
        wanted = tuple(outputs)
        if isinstance(outputs, str) or len(set(wanted)) != len(wanted):
            raise TypeError
    except TypeError:
        raise ValueError(f"expected names of outputs, each once, got {outputs!r:.60}") from None
    return wanted
