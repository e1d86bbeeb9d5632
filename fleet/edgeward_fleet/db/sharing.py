"""Work that shares a commit. A commit waits for the disk, for milliseconds; most work takes less than one.

What waits while one commit runs goes into the next one, each piece in a savepoint of its own: what fails by itself is
rolled back by itself. When the database fails, it fails everybody in the transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection, Engine, exc
from sqlalchemy.orm import Session

T_co = TypeVar("T_co", covariant=True)
OWN_FAULT: Final = (exc.IntegrityError, exc.ProgrammingError)  # a broken rule of the schema, or a bug
_AT_MOST: Final = 32  # the first to come waits for the last


class Job(Generic[T_co]):
    """One piece of work, from its waiting to its answer."""

    def __init__(self, work: Callable[[Session], T_co]) -> None:
        self._work: Final = work
        self._outcome: Final[Future[T_co]] = Future()
        self._settle: Callable[[], object] = self._outcome.cancel

    async def answer(self) -> T_co:
        """After the commit. Who is cancelled while the work waits takes it back."""
        return await asyncio.wrap_future(self._outcome)

    def begin(self) -> bool:
        """False when nobody waits for it any more."""
        return self._outcome.set_running_or_notify_cancel()

    def attempt(self, connection: Connection) -> None:
        """Raises what SQLAlchemy does when the database fails, and not the work."""
        session = Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint")
        try:
            with session, session.begin():
                result = self._work(session)
            self._settle = partial(self._outcome.set_result, result)
        except Exception as error:
            if isinstance(error, exc.DatabaseError) and not isinstance(error, OWN_FAULT):
                raise
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self._settle = partial(self._outcome.set_exception, error)

    def settle(self) -> None:
        """Give the answer, now that the transaction has ended."""
        self._settle()


def transact(engine: Engine, waiting: deque[Job[object]], translated: Callable[[exc.DatabaseError], Exception]) -> None:
    """Do some of what waits, in one transaction; nothing when an earlier call has done it all."""
    taken = [waiting.popleft() for _ in range(min(len(waiting), _AT_MOST))]
    jobs = [job for job in taken if job.begin()]
    if not jobs:
        return
    try:
        with engine.begin() as connection:
            for job in jobs:
                job.attempt(connection)
    except Exception as error:
        outward = translated(error) if isinstance(error, exc.DatabaseError) else error
        for job in jobs:
            job.fail(outward)
    for job in jobs:
        job.settle()
