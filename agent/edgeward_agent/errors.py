"""Every error that the agent raises on purpose: what was expected, then what was found; `hint` is the way out.

Families, because that is what callers tell apart: the link (is a retry worth it?), serving, updates, the outbox,
identity and configuration. An adapter turns a foreign library's errors into these in one place.
"""

from __future__ import annotations


class AgentError(Exception):
    """Anything a person may see. Printed as one line: the message, then the hint."""

    hint = "Run `edgeward-agent doctor`; it looks for the usual causes."


class ConfigError(AgentError):
    """The configuration cannot be used; the message begins with file, line and key where they are known."""

    hint = "Correct the line, or delete it to use the default; `docs/configuration.md` lists every key."


class PortInUse(AgentError):
    """The address to listen on is taken."""

    hint = "Stop the other program (`ss -ltnp` names it), or choose another address with --http or --unix."


class ReadOnlyFolder(AgentError):
    """The state folder is on a file system that takes nothing."""

    hint = "Make it writable; to serve meanwhile what it holds, mount a tmpfs on its folders `run` and `socket`."


class AgentRunning(AgentError):
    """The state folder belongs to a running agent."""

    hint = "One agent owns a state folder. Stop the other one, or choose another folder with --state-dir."


class LinkError(AgentError):
    """The way to the fleet failed."""


class LinkLost(LinkError):
    """A retry is worth it: nobody answered, or the fleet said later. `retry_after_s` is the fleet's own wish."""

    hint = "The agent goes on serving and retries by itself; check the network and the fleet's address."

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LinkRefused(LinkError):
    """A retry of the same thing is not worth it: the fleet understood and said no. `status` is the HTTP status or 0."""

    hint = "See the fleet's audit log; a revoked or expired certificate needs a new `edgeward-agent enrol`."

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_about_content(self) -> bool:
        """What was sent is wrong (RFC 9110, 15.5); 401, 403, 404, 426 and the like are no fault of it."""
        return self.status in {400, 413, 422}


class IdentityError(AgentError):
    """Enrolment or the device's own certificate."""

    hint = "Ask a fleet admin for a new token: `edgeward device token --site SITE`."


class ServingError(AgentError):
    """The serving process."""


class ServingUnavailable(ServingError):
    """It does not answer, for now: it is starting, restarting or gone."""


class ServingRefused(ServingError):
    """It answered and said no."""


class ModelError(ServingError):
    """A model cannot be loaded, or does not fit its manifest."""

    hint = "Check the release with `edgeward model check`, or on the device with `edgeward-agent probe`."


class UpdateError(AgentError):
    """A deployment cannot go on. `reason` is the one word that is reported."""

    reason = "failed"


class OutboxError(AgentError):
    """The outbox could not take or give a record."""


class OutboxFull(OutboxError):
    """No room for a record that may never be dropped. Inference goes on; durable captures are refused."""

    hint = "Bring the link back, or raise outbox.max_bytes; `edgeward-agent status` shows the age of the oldest record."


class OutboxUnwritable(OutboxFull):
    """The disk takes no record, and not for want of room. To a caller it is the same refusal."""

    hint = "Look at the disk of the device and at the system's log: a broken disk is often made read-only."
