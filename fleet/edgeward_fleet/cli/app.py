"""The command's root: what there is, and how an error becomes one line and an exit code."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from edgeward_contract.schema import ContractError
from edgeward_contract.version import __version__
from edgeward_contract.visible import visible
from edgeward_fleet.cli.account import account
from edgeward_fleet.cli.audit import audit
from edgeward_fleet.cli.demo import demo
from edgeward_fleet.cli.device import device
from edgeward_fleet.cli.errors import CommandError, Exit
from edgeward_fleet.cli.model import model
from edgeward_fleet.cli.rollout import rollout
from edgeward_fleet.cli.session import login, logout, setup, whoami
from edgeward_fleet.errors import FleetError
from edgeward_fleet.usage import usage_error

_OTHER_VERSION: Final = "The command and the fleet may be of different versions; `edgeward --version` shows this one's."
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="edgeward %(version)s")
def edgeward() -> None:
    """Runs ONNX models on clinical-site devices and rolls new ones out from a fleet.

    \b
    Exit codes: 0 done · 1 tried and failed (a check refused, a rollout was rolled back)
                2 not understood · 3 not reached or undecided, try again · 4 not allowed

    Environment: EDGEWARD_URL, EDGEWARD_TOKEN, EDGEWARD_CA (a file) win over the remembered log-in.
    """  # noqa: D301  # click reads the backspace, which a raw string has not


for _command in (setup, login, logout, whoami, model, device, rollout, account, audit, demo):
    edgeward.add_command(_command)


def invoke(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Whatever goes wrong is said on standard error in one line and a hint."""
    as_json = "--json" in arguments
    try:
        ended = edgeward.main(args=list(arguments), prog_name="edgeward", standalone_mode=False)
        return ended if isinstance(ended, int) else Exit.OK
    except CommandError as error:
        return _told(str(error), error.hint, error.exit_code, as_json=as_json)
    except FleetError as error:
        return _told(str(error), error.hint, Exit.FAILED, as_json=as_json)
    except ContractError as error:
        return _told(f"the answer of the fleet: {error}", _OTHER_VERSION, Exit.FAILED, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        return _told(*usage_error(error, "edgeward"), Exit.USAGE, as_json=as_json)
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        return _told(_os_error(error), "Check the path and its permissions.", Exit.FAILED, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        print(file=sys.stderr)
        return _INTERRUPTED


def run() -> None:
    """Run the command that the command line asks for, and end the process."""
    _open_streams()
    sys.exit(invoke(sys.argv[1:]))


def _open_streams() -> None:
    """What a shell has closed (`>&-`) is there and empty; a sign that a stream's encoding has not is written around."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _told(message: str, hint: str, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": message, "hint": hint, "exit_code": int(code)}), file=sys.stderr)
    else:
        print(f"error: {visible(message)}\n  {visible(hint)}", file=sys.stderr)
    return code


def _reader_left() -> int:
    """The other end of the pipe went away, as in `| head`; without this Python would complain again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILED


def _os_error(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
