"""Every error that the fleet raises on purpose: what was expected, then what was found; `hint` is the way out.

One tree serves both audiences: `status` and `title` become an HTTP problem (RFC 9457) in `api/problems.py`, and the
same message and hint become one line on a terminal. A domain raises the family that fits; it never builds a response.
"""

from __future__ import annotations


class FleetError(Exception):
    """Anything a person may see."""

    status = 500
    title = "The fleet failed"
    hint = "See the fleet's log; it has the cause."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class BadRequest(FleetError):
    """The request cannot be read at all."""

    status = 400
    title = "The request cannot be read"
    hint = "Compare the request with the API's description at /api/v1/openapi.json."


class Unauthenticated(FleetError):
    """Nobody, or nobody that we know."""

    status = 401
    title = "Not logged in"
    hint = "Log in with `edgeward login`, or send a valid token as `Authorization: Bearer …`."


class Forbidden(FleetError):
    """Known, but not allowed."""

    status = 403
    title = "Not allowed"
    hint = "Ask somebody with the role for it; `edgeward account list` shows who has which."


class NotFound(FleetError):
    """There is no such thing."""

    status = 404
    title = "Not found"
    hint = "Check the name; the list command of the same kind shows what there is."


class Conflict(FleetError):
    """It cannot be done in the present state."""

    status = 409
    title = "Conflict"
    hint = "Look at the present state, then decide again."


class Gone(FleetError):
    """It was there; it has expired."""

    status = 410
    title = "Expired"
    hint = "Ask for a new one."


class TooLarge(FleetError):
    """The body is longer than this route takes."""

    status = 413
    title = "Too large"
    hint = "Send less at once."


class Invalid(FleetError):
    """Readable, but it does not make sense."""

    status = 422
    title = "Not valid"
    hint = "Correct the named value and send it again."


class TooMany(FleetError):
    """Slow down; `retry_after_s` says for how long."""

    status = 429
    title = "Too many requests"
    hint = "Wait, then try again."

    def __init__(self, message: str, *, retry_after_s: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(FleetError):
    """Not now; a retry is worth it."""

    status = 503
    title = "Not available now"
    hint = "Try again in a moment."


class SettingsError(FleetError):
    """The command line or the environment asks for something that cannot be."""

    hint = "`edgeward-fleet serve --help` lists every setting."


class PortInUse(FleetError):
    """The address to listen on is taken."""

    hint = "Stop the other program (`ss -ltnp` names it), or choose another port; 0 takes any free one."


class DataDirError(FleetError):
    """The data folder cannot be used."""

    hint = "Choose a folder that you may write with --data-dir."


class FleetRunning(FleetError):
    """Another process owns the data folder."""

    hint = "One process owns a data folder. Stop the other one first, or use its API."


DAMAGED_HINT = (
    "Restore your newest backup of the data folder; its folder `backups` has a copy from before the last change of the"
    " schema, which knows of nothing since."
)


class DatabaseError(FleetError):
    """The database cannot be opened or used. Devices keep what they could not deliver and come again."""

    status = 503
    title = "The database cannot be used"


class DatabaseUrlError(DatabaseError, SettingsError):
    """What was given as the database's address cannot be used."""

    hint = (
        "Correct --database-url or EDGEWARD_FLEET_DATABASE_URL; without it the fleet keeps SQLite in its data folder."
    )


class PassphraseError(FleetError):
    """The key of the fleet's CA cannot be opened."""

    hint = "Set EDGEWARD_CA_PASSPHRASE or EDGEWARD_CA_PASSPHRASE_FILE to the passphrase that the CA was made with."
