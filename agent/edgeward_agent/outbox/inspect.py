"""The outbox for people: what waits and what was put aside, as lines of JSON.

While the agent runs, it alone has the database open and is asked over its socket; see `offline` for when it does not.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

from edgeward_agent.outbox.model import HeldRecord
from edgeward_agent.outbox.store import Store
from edgeward_contract.schema import JsonValue

_PAGE: Final = 200


async def lines(store: Store, *, quarantined: bool = False) -> AsyncIterator[str]:
    """One JSON object per record, oldest first, opened; quarantine with the reason."""
    after: int | None = None
    read = store.quarantined if quarantined else store.rows
    while page := await read(after=after, limit=_PAGE):
        for held in page:
            yield line(held)
        after = page[-1].row


def line(held: HeldRecord) -> str:
    """A record as one line; one that no longer opens has only its row and the reason."""
    document: dict[str, JsonValue] = {"row": held.row}
    if held.record is not None:
        document |= held.record.document()
    if held.reason:
        document["reason"] = held.reason
    return json.dumps(document, ensure_ascii=False)
