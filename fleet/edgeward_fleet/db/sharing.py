"""Work that shares a commit. A commit waits for the disk, for milliseconds; most work takes less than one.

What waits while one commit runs goes into the next one. Nearly always every piece succeeds. When one fails by itself,
all is rolled back and done once more, each piece in a savepoint of its own, so that it alone is undone. Work may run
twice, therefore, and must do nothing but ask and change the database. When the database fails, it fails everybody in
the transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Generic, TypeVar, cast

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
        """Part of a transaction that nothing may spoil. Raises whatever goes wrong."""
        with Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only") as session:
            result = self._work(session)
            session.flush()
        self._settle = partial(self._outcome.set_result, result)

    def attempt_apart(self, connection: Connection) -> None:
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


class Queue:
    """What waits for the one connection. People and programs wait behind nothing but each other; devices, of which
    there may be thousands at once, come after them.
    """

    def __init__(self) -> None:
        self._urgent: Final[deque[Job[object]]] = deque()
        self._patient: Final[deque[Job[object]]] = deque()

    def put(self, job: Job[T_co], *, urgent: bool) -> None:
        (self._urgent if urgent else self._patient).append(cast("Job[object]", job))

    def take(self) -> list[Job[object]]:
        """Some of what waits and is still waited for; empty when an earlier call has taken it all."""
        jobs: list[Job[object]] = []
        for lane in (self._urgent, self._patient):
            while lane and len(jobs) < _AT_MOST:
                job = lane.popleft()
                if job.begin():
                    jobs.append(job)
        return jobs


def transact(engine: Engine, waiting: Queue, translated: Callable[[exc.DatabaseError], Exception]) -> None:
    """Do some of what waits, in one transaction; nothing when an earlier call has done it all."""
    jobs = waiting.take()
    if not jobs:
        return
    try:
        if not _all_together(engine, jobs):
            _each_apart(engine, jobs)
    except Exception as error:
        outward = translated(error) if isinstance(error, exc.DatabaseError) else error
        for job in jobs:
            job.fail(outward)
    for job in jobs:
        job.settle()


def _all_together(engine: Engine, jobs: Sequence[Job[object]]) -> bool:
    """False when something failed, and nothing was done."""
    try:
        with engine.begin() as connection:
            for job in jobs:
                job.attempt(connection)
    except Exception:
        return False
    return True


def _each_apart(engine: Engine, jobs: Sequence[Job[object]]) -> None:
    with engine.begin() as connection:
        for job in jobs:
            job.attempt_apart(connection)
