"""The command group. Commands are imported when they are called, so that `--help` answers at once.

Every error that the agent raises on purpose ends here as one line and a hint; a traceback is a bug.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from edgeward_agent.cli.exits import FAILED, MEANING, USAGE, exit_code
from edgeward_agent.errors import AgentError
from edgeward_contract.extras import load
from edgeward_contract.schema import ContractError
from edgeward_contract.version import __version__
from edgeward_contract.visible import visible

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
COMMANDS: Final = {
    "run": "Run this device: serve models, follow the fleet, keep results until it has them.",
    "serve": "Serve ONNX files on this machine, with no fleet at all.",
    "enrol": "Make this machine a device of a fleet, with a one-time token.",
    "status": "Show what the device serves, how updates stand and what waits to be sent.",
    "doctor": "Look for the usual causes of trouble and say what to do.",
    "bench": "Measure how long a model takes on this machine, and whether it makes a budget.",
    "infer": "Ask a served model for an answer.",
    "token": "Make the token that clients show over TCP.",
    "shrink": "Give back the memory that large requests have left behind.",
    "outbox": "Look at the results that wait for the fleet.",
    "probe": "Check a release folder in a process of its own, as a device does.",
}
"""Every command is the function of its name in `edgeward_agent.cli.<name>`."""


class LazyGroup(click.Group):
    """Knows its commands by name; turns the agent's errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(load(f"edgeward_agent.cli.{cmd_name}", extra="agent"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in MEANING.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is None and ctx.invoked_subcommand:  # click forgets whose option has no value
                command = self.get_command(ctx, ctx.invoked_subcommand)
                error.ctx = click.Context(command, parent=ctx, info_name=ctx.invoked_subcommand) if command else ctx
            raise
        except (AgentError, ContractError) as error:
            complain(str(error), error.hint)
            sys.exit(exit_code(error) if isinstance(error, AgentError) else FAILED)
        except BrokenPipeError:
            sys.exit(FAILED)  # the reader went away, as `| head` does
        except OSError as error:
            complain(os_words(error), "Check the path, its permissions and the room on the disk.")
            sys.exit(FAILED)


def complain(message: str, hint: str) -> None:
    click.echo(f"error: {visible(message)}\n  {visible(hint)}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgeward-agent", message="%(prog)s %(version)s")
def app() -> None:
    """Runs ONNX models on this device and takes new ones from the fleet.

    Serving goes on whatever happens to the network, the fleet, the certificate or an update.
    """


def main() -> None:
    """Entry point of the console script. What click finds wrong looks like every other error."""
    try:
        ended = app.main(prog_name="edgeward-agent", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(USAGE)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        complain(
            error.format_message(),
            f"`{context.command_path if context else 'edgeward-agent'} --help` shows what it takes.",
        )
        sys.exit(USAGE)
    except click.Abort:
        sys.exit(_INTERRUPTED)
    sys.exit(ended if isinstance(ended, int) else 0)


def os_words(error: OSError) -> str:
    words = (error.strerror or str(error)).lower()
    return f"{error.filename}: {words}" if error.filename else words
