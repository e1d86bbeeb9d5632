"""How `bench` ends when it cannot measure: from the first option that is read to the last line that is shown."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import click

from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.cli.app import complain, os_words
from edgeward_agent.cli.exits import FAILED, USAGE, exit_code
from edgeward_agent.cli.sections import Sectioned
from edgeward_agent.errors import AgentError
from edgeward_contract.schema import ContractError

_BUG: Final = 70  # EX_SOFTWARE of sysexits.h


@contextlib.contextmanager
def no_error_is_a_verdict() -> Iterator[None]:
    """1 says that a model is over its budget: whatever stops us ends with another code."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except AgentError as error:
        complain(str(error), error.hint)
        code = exit_code(error)
        sys.exit(USAGE if code == FAILED else code)
    except ContractError as error:
        complain(str(error), error.hint)
        sys.exit(USAGE)
    except OSError as error:
        complain(os_words(error), "Check the path, its permissions and the room on the disk.")
        sys.exit(USAGE)
    except MemoryError as error:
        complain(str(error) or "not enough memory", "Give smaller sizes with --shape, or fewer cases.")
        sys.exit(USAGE)
    except Exception:
        traceback.print_exc()
        sys.exit(_BUG)


def _check_utf8(words: Sequence[str]) -> None:
    """Neither the runtime nor a document can name what is none; headers are looked at by themselves, and not shown.

    Raises CannotMeasure.
    """
    for before, word in pairwise(("", *words)):
        if before != "--header" and not word.startswith("--header=") and any(map(_is_surrogate, word)):
            raise CannotMeasure(
                f"{word}: expected a name in UTF-8, got bytes that are none", "Rename it, or bench a copy of the file."
            )


def _is_surrogate(sign: str) -> bool:
    """What Python makes of a byte that is no UTF-8."""
    return 0xD800 <= ord(sign) <= 0xDFFF


class Judging(Sectioned):
    """A command whose exit codes are a verdict: what goes wrong in its options or in itself is none."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with no_error_is_a_verdict():
            _check_utf8(args)
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        with no_error_is_a_verdict():
            return super().invoke(ctx)
