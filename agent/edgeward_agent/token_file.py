"""The file with the token that clients show over TCP: read with suspicion, written as a secret.

Whoever can read it can ask, and answers are patient data; whoever can write it decides who asks. So one that others
than its owner can open is refused, and the agent does not start with it.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from edgeward_agent.errors import ConfigError
from edgeward_agent.secret_file import create, sync_folder

NAME: Final = "serving.token"
"""Where `edgeward-agent token new` writes it in the state folder, if the configuration says nothing else."""
_RANDOM_BYTES: Final = 32
_SHAPE: Final = re.compile(rb"[A-Za-z0-9._~+/-]{32,1000}=*")  # RFC 6750 2.1
_MAX_FILE_BYTES: Final = 2000
_NOT_OTHERS: Final = 0o077


class TokenUnusable(ConfigError):
    """The file that should hold the token is missing, open to others, or holds something else."""

    hint = 'Make one with `edgeward-agent token new`, or set serving.token_file to "" for none.'


class TokenOpen(TokenUnusable):
    """Somebody else could read the token, or has made it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class TokenExists(ConfigError):
    """There is a token already, and clients that show it."""

    hint = "Add --force to replace it; then start the agent again, and give clients the new one."


def read_token(path: Path) -> bytes:
    """The token, without the white space around it.

    Raises:
        TokenUnusable: the file cannot be read, is not this user's (or root's) alone, or holds no token.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for its writer
        with os.fdopen(descriptor, "rb") as file:
            _check_owner(path, os.fstat(descriptor))
            token = file.read(_MAX_FILE_BYTES).strip()
    except OSError as error:
        raise TokenUnusable(f"{path}: expected a readable file with a token, got: {error.strerror}") from None
    if not _SHAPE.fullmatch(token):
        raise TokenUnusable(f"{path}: expected a token of 32 to 1000 letters, digits or -._~+/, got something else")
    return token


def write_token(path: Path, *, replace: bool = False) -> None:
    """Make a new token, for the owner of the folder alone. A reader sees the old one or the new one, never a part.

    Raises:
        TokenExists: there is one, and it was not to be replaced.
        OSError: it cannot be written.
    """
    if path.exists() and not replace:
        raise TokenExists(f"{path}: expected no file there, found one")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        create(partial, secrets.token_urlsafe(_RANDOM_BYTES).encode() + b"\n")
        if sys.platform != "win32" and os.geteuid() == 0:  # root makes it for the user whose folder it is
            owner = path.parent.stat()
            os.chown(partial, owner.st_uid, owner.st_gid)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise TokenUnusable(f"{path}: expected a file with a token, got another kind")
    if sys.platform == "win32":
        return  # files have other owners and no modes there
    if found.st_uid not in (0, os.geteuid()):
        message = f"{path}: expected a file of user {os.geteuid()} or root, got one of user {found.st_uid}"
        raise TokenOpen(message, hint=f"Whoever owns it decides who may ask: chown {os.geteuid()} {path}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & _NOT_OTHERS:
        message = f"{path}: expected a file that its owner alone may open, got mode {mode:04o}"
        raise TokenOpen(
            message, hint=f"chmod 600 {path}; if others have read it, make another: edgeward-agent token new --force"
        )
