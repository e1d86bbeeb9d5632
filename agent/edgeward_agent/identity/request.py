"""What lies on the disk between an enrolment's question and its answer: the key, and room for what will come.

A token works for one key. So the key is down on the disk before the token is shown, and stays there until the identity
is installed: a device whose answer was lost asks again with the same key, and the fleet repeats its answer.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward_agent.errors import IdentityError
from edgeward_agent.identity import keys
from edgeward_agent.secret_file import create, sync_folder

_KEY: Final = "asked.key"
_ROOM: Final = "asked.room"


class NoRoom(IdentityError):
    """The disk does not take what an enrolment needs. The token was not shown to anybody."""

    hint = "Free some room on this disk, then run the same command again; the token was not used."


def prepare(folder: Path, room_bytes: int) -> ec.EllipticCurvePrivateKey:
    """The key to ask for, written down, with `room_bytes` beside it that `release_room` gives back.

    Raises:
        NoRoom: the disk does not take them.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        release_room(folder)
        create(folder / _ROOM, os.urandom(room_bytes))  # noise: zeroes take no room on some file systems
        return _former_key(folder) or _new_key(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            release_room(folder)
        raise NoRoom(f"{folder}: expected room for a key and a certificate, got: {error.strerror}") from None


def release_room(folder: Path) -> None:
    (folder / _ROOM).unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """The question was answered, one way or the other."""
    release_room(folder)
    (folder / _KEY).unlink(missing_ok=True)


def _former_key(folder: Path) -> ec.EllipticCurvePrivateKey | None:
    """Of a try that had no answer; None when there is no sound one, or it became the identity."""
    try:
        pem = (folder / _KEY).read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    installed = folder / keys.KEY
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (installed.exists() and installed.read_bytes() == pem):
        return None
    return key


def _new_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    key = keys.new_key()
    (folder / _KEY).unlink(missing_ok=True)
    create(folder / _KEY, keys.key_pem(key))
    sync_folder(folder)
    return key
