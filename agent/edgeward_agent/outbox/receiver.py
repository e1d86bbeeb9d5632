"""The control side of the capture stream: records from the serving process, over a private socket.

Frames are a 4-byte little-endian length and a JSON object: one record, or a series of them (`edgeward_agent.series`).
A durable frame is answered after its commit, by its `id`; the rest are taken in silence. Reading stops while too many
records wait for the disk, and the serving process notices by its own full queue: nothing grows without bound here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgeward_agent.errors import OutboxError, OutboxFull, OutboxUnwritable
from edgeward_agent.outbox.model import Draft, Receipt, RecordRefused
from edgeward_agent.private_socket import private_socket
from edgeward_agent.series import READS_SERIES, Series
from edgeward_contract.record import RecordClass
from edgeward_contract.schema import ContractError, JsonValue, canonical_json, parse_json

LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 1 << 20
_LAST_WORDS_S: Final = 5.0  # what lies in the socket when the serving process ends was answered

log = logging.getLogger(__name__)

Committing = asyncio.Future[tuple[Receipt, ...]]


class Intake(Protocol):
    """What the receiver needs of the store."""

    async def enqueue(self, drafts: Sequence[Draft]) -> Committing: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One record on its way; `number` is the sender's own, for the answer."""

    number: int
    durable: bool
    draft: Draft


def read_frames(data: bytes) -> Iterator[Frame]:
    """The records of one frame, in the order in which they happened.

    Raises:
        ContractError: names the key.
    """
    fields = parse_json(data, limit_bytes=MAX_FRAME_BYTES)
    kind = fields.text("kind", max_length=64)
    record_class = fields.choice("class", RecordClass)
    if fields.has("series"):
        for wall_us, body in Series.parse(fields).records(fields.text("series", max_length=MAX_FRAME_BYTES)):
            draft = Draft(record_class=record_class, kind=kind, body=body, wall_us=wall_us)
            yield Frame(number=0, durable=False, draft=draft)
        return
    yield Frame(
        number=fields.integer("id", minimum=0),
        durable=fields.boolean("durable"),
        draft=Draft(
            record_class=record_class,
            kind=kind,
            body=fields.object("body").members(),
            wall_us=fields.integer("wall_us", minimum=0),
        ),
    )


def capture_receiver(path: Path, store: Intake) -> AbstractAsyncContextManager[None]:
    """Listen on `path`, for this user alone, until the end of the block; by then whoever sent has ended, too.

    Raises:
        ConfigError: no socket can be made there.
    """
    return private_socket(
        path,
        lambda reader, writer: _Connection(store, writer).serve(reader),
        name="capture",
        last_words_s=_LAST_WORDS_S,
    )


class _Connection:
    """One serving process. It reconnects after any error."""

    def __init__(self, store: Intake, writer: asyncio.StreamWriter) -> None:
        self._store = store
        self._writer = writer

    async def serve(self, reader: asyncio.StreamReader) -> None:
        self._writer.write(GREETING)
        try:
            while True:
                for frame in read_frames(await _read(reader)):
                    await self._take(frame)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                log.warning("capture: the connection ended inside a frame")
        except ContractError as error:
            log.warning("capture: a malformed frame, the connection is closed: %s", error)
        except (OSError, OutboxError) as error:
            log.warning("capture: the connection is closed: %s", error)
        finally:
            self._writer.close()

    async def _take(self, frame: Frame) -> None:
        try:
            committing = await self._store.enqueue([frame.draft])
        except RecordRefused as refused:
            log.warning("capture: a record was refused: %s", refused)
            self._answer(frame, refused)
            return
        committing.add_done_callback(lambda done: self._committed(frame, done))
        await self._writer.drain()  # one who does not read answers is not read from

    def _committed(self, frame: Frame, done: Committing) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, OutboxFull):  # that one the store logs, once
            log.warning("capture: a record was not taken: %s", error)
        if not done.cancelled():
            self._answer(frame, error)

    def _answer(self, frame: Frame, error: BaseException | None) -> None:
        if frame.durable and not self._writer.is_closing():
            self._writer.write(encode_frame(_answer(frame.number, error)))


async def _read(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "little")
    if not 0 < size <= MAX_FRAME_BYTES:
        raise ContractError("length", f"expected 1 to {MAX_FRAME_BYTES}, got {size}")
    return await reader.readexactly(size)


def encode_frame(document: Mapping[str, JsonValue]) -> bytes:
    """The bytes of one frame, in either direction."""
    data = canonical_json(document)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


GREETING: Final = encode_frame({"id": 0, "ok": True, "reads": READS_SERIES})
"""What the control process says first. An older serving process takes it for an answer that nobody waits for."""


def _answer(number: int, error: BaseException | None) -> dict[str, JsonValue]:
    if error is None:
        return {"id": number, "ok": True}
    return {"id": number, "ok": False, "error": _word(error), "detail": str(error)}


def _word(error: BaseException) -> str:
    if isinstance(error, OutboxUnwritable):
        return "outbox_unwritable"
    if isinstance(error, OutboxFull):
        return "outbox_full"
    return "record_refused" if isinstance(error, RecordRefused) else "outbox_failed"
