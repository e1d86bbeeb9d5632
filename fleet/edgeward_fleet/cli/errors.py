"""What can go wrong between a person and the fleet, each with the exit code that a script can act on."""

from __future__ import annotations

from enum import IntEnum

from edgeward_fleet.errors import FleetError


class Exit(IntEnum):
    """What the exit code of every command means."""

    OK = 0
    FAILED = 1  # the thing asked for was tried and failed: a check refused, a rollout was rolled back
    USAGE = 2  # the command was not understood
    UNDECIDED = 3  # the fleet could not be reached, or there is no answer yet: asking again makes sense
    NOT_ALLOWED = 4  # not logged in, or the role does not allow it


class CommandError(FleetError):
    """A command ends with one line: the message, then the hint."""

    exit_code = Exit.FAILED
    hint = "`edgeward COMMAND --help` shows what the command takes."


class CommandFailed(CommandError):
    """The fleet, or a check, said no."""


class BadUsage(CommandError):
    """Options that are missing or exclude each other."""

    exit_code = Exit.USAGE


class Undecided(CommandError):
    """No answer; trying again makes sense."""

    exit_code = Exit.UNDECIDED
    hint = "Check the address and the network, then run the command again."


class NotAllowed(CommandError):
    """Not logged in, or not enough."""

    exit_code = Exit.NOT_ALLOWED
    hint = "Log in with `edgeward login`, or ask an admin for the role; `edgeward whoami` shows yours."
