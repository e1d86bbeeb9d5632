"""The one thread that owns the outbox's database.

What waits while a commit runs goes into the next one: under load many callers share a flush of the disk, and alone one
never waits for company. A full disk and a damaged store are dealt with here, so that callers see an answer or an error.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from edgeward_agent.errors import AgentError, OutboxError, OutboxFull, OutboxUnwritable
from edgeward_agent.outbox import intake, outgoing
from edgeward_agent.outbox.ballast import Ballast
from edgeward_agent.outbox.disk import refusal
from edgeward_agent.outbox.intake import Request
from edgeward_agent.outbox.ledger import Ledger, shrink
from edgeward_agent.outbox.model import Receipt, StoreDamaged, StoreOptions
from edgeward_agent.outbox.recovery import abandon, open_ledger, quarantine
from edgeward_agent.outbox.retention import period_of
from edgeward_agent.outbox.sealing import Cipher
from edgeward_agent.outbox.sqlite import translated
from edgeward_contract.artifact import DeviceId

T = TypeVar("T")
_STOP_TIMEOUT_S: Final = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Append:
    request: Request
    future: Future[tuple[Receipt, ...]] = field(default_factory=Future)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call(Generic[T]):
    work: Callable[[Ledger], T]
    future: Future[T] = field(default_factory=Future)

    def run(self, ledger: Ledger) -> None:
        with translated():
            self.future.set_result(self.work(ledger))


class Owner:
    """Runs jobs on the database, one after another. `damaged` is called, on this thread, after a store began anew."""

    def __init__(
        self,
        directory: Path,
        *,
        device: DeviceId,
        options: StoreOptions,
        wall: Callable[[], float],
        damaged: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._device = device
        self._options = options
        self._wall = wall
        self._damaged = damaged
        self._jobs: deque[_Append | _Call[object]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._ledger: Ledger | None = None
        self._opened: Future[Cipher] = Future()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self.full = self.unwritable = False
        self.refused = self._refused_before = 0
        self.neglected = False

    def start(self) -> Future[Cipher]:
        """Open the store; the future brings the key-encryption key or what went wrong."""
        self._thread.start()
        return self._opened

    def stop(self) -> None:
        """Finish what was asked for and close. Blocks."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(_STOP_TIMEOUT_S)

    def append(self, request: Request) -> Future[tuple[Receipt, ...]]:
        """Fails with OutboxFull or OutboxError."""
        job = _Append(request=request)
        self._put(job)
        return job.future

    def call(self, work: Callable[[Ledger], T]) -> Future[T]:
        """Run `work` alone. What it changes is inside `Ledger.change`."""
        job = _Call(work=work)
        self._put(job)  # type: ignore[arg-type]  # a queue of calls of any result
        return job.future

    def make_room_call(self, work: Callable[[Ledger], T]) -> Future[T]:
        """Like `call`, for work that frees room: on a full disk the ballast goes first."""
        return self.call(lambda ledger: self._with_ballast(ledger, work))

    def maintain(self, ledger: Ledger) -> None:
        """Destroy keys that are over, empty the log, lay the ballast; without room, it is left for later."""
        today = period_of(self._wall())
        try:
            with translated():
                outgoing.destroy_keys(ledger, today=today, retention_days=self._options.key_retention_days)
                shrink(ledger, all_of_it=not self._ballast.here)
        except OutboxFull as error:
            log.debug("maintenance waits for room: %s", error)
        self._ballast.restore()

    def _put(self, job: _Append | _Call[object]) -> None:
        with self._wake:
            if self._stopping:
                raise OutboxError("expected an open outbox, it is closed")
            self._jobs.append(job)
            self._wake.notify()

    def _run(self) -> None:
        try:
            self._open()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(self._master)
        try:
            self._loop()
        finally:
            self._close()

    def _loop(self) -> None:
        due = time.monotonic() + self._options.maintain_s
        while jobs := self._take(due - time.monotonic()):
            self._work(jobs)
            if time.monotonic() >= due:
                self._maintain()
                due = time.monotonic() + self._options.maintain_s

    def _open(self) -> Ledger:
        self._ballast = Ballast(self._directory, self._options.ballast_bytes)
        try:
            ledger, self._master = self._open_ledger()
        except OutboxFull:
            if not self._ballast.release():
                raise
            ledger, self._master = self._open_ledger()
        self._ballast.restore()
        self._ledger = ledger
        return ledger

    def _open_ledger(self) -> tuple[Ledger, Cipher]:
        return open_ledger(self._directory, device=self._device, max_bytes=self._options.max_bytes)

    def _close(self) -> None:
        """Also after a bug: nobody may wait for a thread that has ended."""
        with self._wake:
            self._stopping = True
            rest = list(self._jobs)
        for job in rest:
            job.future.set_exception(OutboxError("expected an open outbox, it is closed"))
        if self._ledger:
            abandon(self._ledger)

    def _take(self, timeout_s: float) -> list[_Append | _Call[object]] | None:
        """All that waits; an empty call when it is time for maintenance; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._stopping, max(0.0, timeout_s))
            if not self._jobs:
                return None if self._stopping else [_Call(work=lambda _: None)]
            jobs = list(self._jobs)
            self._jobs.clear()
            return jobs

    def _work(self, jobs: Sequence[_Append | _Call[object]]) -> None:
        ready = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        appends = [job for job in ready if isinstance(job, _Append)]
        if appends:
            self._commit(appends)
        for job in ready:
            if isinstance(job, _Call):
                self._perform(job)

    def _perform(self, job: _Call[object]) -> None:
        try:
            self._sound(job.run)
        except Exception as error:
            job.future.set_exception(error)

    def _commit(self, jobs: Sequence[_Append]) -> None:
        try:
            answers = self._append([job.request for job in jobs])
        except OutboxFull as full:
            self._separate(jobs, full)
        except Exception as error:
            for job in jobs:
                self.refused += len(job.request.records)
                job.future.set_exception(error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                self._answer(job, answer)

    def _append(self, requests: Sequence[Request]) -> list[tuple[Receipt, ...] | OutboxFull]:
        if not self._ballast.restore():
            raise OutboxFull(self._ballast.lack())
        return self._sound(lambda ledger: intake.append(ledger, requests))

    def _separate(self, jobs: Sequence[_Append], full: OutboxFull) -> None:
        """A commit of many did not fit the disk: a smaller one may."""
        if len(jobs) == 1:
            self._answer(jobs[0], full)
            return
        for job in jobs:
            self._commit([job])

    def _answer(self, job: _Append, answer: tuple[Receipt, ...] | OutboxFull) -> None:
        if isinstance(answer, OutboxUnwritable):
            answer = refusal(answer, os.statvfs(self._directory))
        if isinstance(answer, OutboxFull):
            unwritable = isinstance(answer, OutboxUnwritable)
            if not (self.full or self.unwritable):
                what = "cannot be written" if unwritable else "is full"
                log.error("the outbox %s, results are refused until it takes them: %s", what, answer)
                self._refused_before = self.refused
            self.full, self.unwritable = not unwritable, unwritable
            self.refused += len(job.request.records)
            job.future.set_exception(answer)
        else:
            if self.full or self.unwritable:
                log.warning("the outbox takes results again; %d were refused", self.refused - self._refused_before)
            self.full = self.unwritable = False
            job.future.set_result(answer)

    def _with_ballast(self, ledger: Ledger, work: Callable[[Ledger], T]) -> T:
        try:
            with translated():
                return work(ledger)
        except OutboxFull:
            if not self._ballast.release():
                raise
            log.warning("the disk is full: the ballast is released so that delivered records can be deleted")
        with translated():
            answer = work(ledger)
        self.maintain(ledger)
        return answer

    def _sound(self, work: Callable[[Ledger], T]) -> T:
        """Run `work`; when the store turns out to be damaged, begin anew and run it there."""
        ledger = self._ledger or self._open()
        try:
            return work(ledger)
        except StoreDamaged as damage:
            return work(self._begin_anew(ledger, damage))

    def _begin_anew(self, ledger: Ledger, damage: StoreDamaged) -> Ledger:
        abandon(ledger)
        self._ledger = None  # should the next lines fail, the next job tries again
        try:
            quarantine(self._directory, str(damage))
        except OSError as error:
            raise OutboxError(f"expected to move the damaged outbox aside, got: {error}") from error
        fresh = self._open()
        self._damaged()
        return fresh

    def _maintain(self) -> None:
        """The periodic one. Whatever the disk does, this thread goes on: appends have an answer of their own."""
        try:
            self._sound(self.maintain)
        except (AgentError, OSError) as error:
            if not self.neglected:
                log.error("outbox maintenance failed and is tried again: %s", error)
            self.neglected = True
        else:
            self.neglected = False
