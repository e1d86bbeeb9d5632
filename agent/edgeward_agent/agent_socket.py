"""The control process's own private socket: how `status` and `outbox` ask an agent that runs.

One question a connection, one line of JSON. The answer is lines of JSON, and a last line that says that it is whole:
`{"end": n}` after n lines, or `{"error": …, "hint": …}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Final

from edgeward_agent.errors import AgentError
from edgeward_agent.private_socket import private_socket
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json

log = logging.getLogger(__name__)

Answer = Callable[[Fields], AsyncIterator[str]]
"""Gives the lines that answer a question."""

_MAX_LINE_BYTES: Final = 1 << 20
_PATIENCE_S: Final = 30.0


class AgentNotRunning(AgentError):
    """Nobody listens on the agent's socket."""

    hint = "Start it: `edgeward-agent run`. If it has just been started, try again in a moment."


class AgentSilent(AgentError):
    """The agent runs and does not answer, or stopped in the middle."""

    hint = "Try again; if it stays so, look at the agent's log."


def answering(path: Path, answer: Answer) -> AbstractAsyncContextManager[None]:
    """Answer questions on `path`, for this user alone, until the end of the block. Raises ConfigError."""
    return private_socket(
        path, lambda reader, writer: _converse(reader, writer, answer), name="agent", limit_bytes=_MAX_LINE_BYTES
    )


def ask(path: Path, question: dict[str, JsonValue]) -> Iterator[str]:
    """Ask a running agent; the lines of its answer as they come. For programs without a loop.

    Raises:
        AgentNotRunning: nobody is there, or not yet.
        AgentSilent: it does not answer, or not to the end.
        AgentError: it said why it cannot.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise AgentNotRunning(f"{path}: expected an agent that answers, found none") from None
        try:
            connection.sendall(canonical_json(question) + b"\n")
            with connection.makefile("r", encoding="utf-8") as lines:
                yield from _whole(lines)
        except OSError as error:
            raise AgentSilent(f"{path}: expected an answer, got: {error}") from None


def _whole(lines: Iterator[str]) -> Iterator[str]:
    """Each line once the one after it shows that it was not the last."""
    before: str | None = None
    for line in lines:
        if before is not None:
            yield before
        before = line.rstrip("\n")
    last = json.loads(before) if before else {}
    if "error" in last:
        refusal = AgentError(last["error"])
        refusal.hint = last.get("hint", AgentError.hint)
        raise refusal
    if "end" not in last:
        raise AgentSilent("expected an answer to its end, the agent stopped in the middle")


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    with suppress(OSError):
        try:
            async with asyncio.timeout(_PATIENCE_S):
                question = parse_json(await reader.readline())
            count = 0
            async for line in answer(question):
                writer.write(line.encode() + b"\n")
                await writer.drain()
                count += 1
            writer.write(canonical_json({"end": count}) + b"\n")
        except (AgentError, ContractError) as error:
            writer.write(canonical_json({"error": str(error), "hint": error.hint}) + b"\n")
        except (TimeoutError, ValueError) as error:
            log.debug("a question on the agent's socket was none: %s", error)
        finally:
            writer.close()
