"""What can go wrong between a bedside application and a model: told apart by what the caller can do about it."""

from __future__ import annotations

from edgeward_agent.errors import AgentError


class ClientError(AgentError):
    """A request that got no answer."""

    hint = "Ask the server what it serves: GET /v2/models/NAME."


class Unreachable(ClientError):
    """Nobody answers at the address, or not in time. Worth a retry."""

    hint = "Check that `edgeward-agent run` or `serve` runs, and its address."


class InvalidRequest(ClientError):
    """The server does not take the request: a wrong tensor name, shape or datatype, or what it never does.

    A retry gives the same.
    """

    hint = "Compare it with what the model takes: `client.model(NAME)`, GET /v2/models/NAME."


class InvalidAddress(InvalidRequest):
    """What a client was made with is no address, time-out or token."""

    hint = "Say http://HOST:PORT, unix:PATH or frames:PATH, a time-out in seconds, and the token as its file has it."


class NotAllowed(ClientError):
    """The server wants to know who asks, and was not told or does not take the answer."""

    hint = "Give the client the token that the agent was configured with, or ask over its unix socket."


class ModelNotFound(ClientError):
    """The server has no such model, or not this version of it."""


class Unavailable(ClientError):
    """The server is busy or not ready. Worth a retry, after a moment.

    `retry_after_s` is how long that is, where the server says so: it does when it is full.
    """

    retry_after_s: float | None = None
    hint = "Try again in a moment; if it stays so, look at `edgeward-agent status`."


class NotRecorded(Unavailable):
    """The model answered, but the result could not be committed as was asked, so it was withheld."""

    hint = "See `edgeward-agent status`: the outbox may be full. With capture off the answer does not wait for it."


class ServerFailed(ClientError):
    """The model or the server failed on this request."""

    hint = "See the log of the serving process."
