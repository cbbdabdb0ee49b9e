"""Commits appends, in a thread: all that wait go into one transaction.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    Entry,
    StorageFullError,
    StreamId,
    StreamqError,
    closed_error,
    for_stream,
)

from . import _removal as removal
from . import _requests as requests
from . import _schema as schema
from ._errors import BACKEND, sqlite_errors
from ._reserve import Reserve
from ._schema import transaction
from ._thread import ConnectionThread, Job, RemovalJob, refused

_log = logging.getLogger("streamq.sqlite")
_MAX_GROUP = 256  # appends in one transaction
_MANY_PAGES = 1000  # in SQLite's log before it is merged
_FEW_PAGES = 256  # so that merging takes less room than is kept in reserve
_SWEEP_SECONDS = 5.0
_SWEEP_AGAIN_SECONDS = 0.05


class WritingThread(ConnectionThread):
    """Commits jobs. All jobs that wait when a commit ends go into the next one together.

    For the arguments see :class:`ConnectionThread`.
    """

    role = "writer"

    def __init__(
        self,
        path: Path,
        connect: Callable[[Path], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._jobs: queue.SimpleQueue[Sequence[Job[None]]] = queue.SimpleQueue()
        self._is_stopped = False
        self._nudge = threading.Event()
        self._next_sweep = -math.inf
        self._rest_seconds: float | None = None  # until there is more to remove
        self._epochs: dict[StreamId, int] = {}
        super().__init__(path, connect, loop)

    def _put(self, call: Job[None]) -> None:
        if self._refusal is None:
            self._jobs.put([call])

    def submit_all(self, jobs: Sequence[Job[None]]) -> None:
        """Run jobs in one transaction, or a few if they are many.

        Raises:
            StreamqError: The thread takes no more jobs.
        """
        if self._refusal is not None:
            raise for_stream(self._refusal, None)
        for first in range(0, len(jobs), _MAX_GROUP):
            self._jobs.put(jobs[first : first + _MAX_GROUP])
        for job in jobs:
            self._refuse_if_ended(job)

    def refuse(self) -> None:
        """Take no more jobs; those that have been submitted are committed."""
        self._refusal = closed_error(BACKEND)

    def stop(self) -> None:
        """Commit the jobs that have been submitted, then end the thread."""
        self._is_stopped = True
        self._jobs.put([])

    def append(
        self,
        connection: sqlite3.Connection,
        stream: StreamId,
        entries: Sequence[Entry],
        ttl: timedelta,
    ) -> None:
        """Append, for a job: unless the database with the earlier records of an epoch is gone.

        Raises:
            BackendError: It is gone. Going on would leave a stream without a beginning.
            FencedError: A newer epoch has been opened.
        """
        if self.lost_records and entries:
            if entries[0].index == 0:
                self._epochs[stream] = entries[0].epoch
            elif self._epochs.get(stream) != entries[0].epoch:
                raise BackendError(
                    f"{self.file.given} was removed or replaced after epoch {entries[0].epoch} of "
                    f"stream {stream} had begun; what it had stored is gone, start again",
                    backend=BACKEND,
                    stream=str(stream),
                )
        requests.append(connection, stream, entries, ttl)

    def log_is_long(self) -> bool:
        """Whether a reader, maybe of another program, keeps SQLite from beginning its log anew."""
        return self.file.log_bytes() > schema.LOG_LIMIT_BYTES

    def nudge(self) -> None:
        self._nudge.set()
        self._jobs.put([])

    def _serve(self) -> None:
        while not (self._is_stopped and self._jobs.empty()):
            jobs = self._take()
            if jobs:
                self._commit(jobs)

    def _take(self) -> list[Job[None]]:
        """Wait for jobs; return those that wait, as many as one transaction takes."""
        taken = [*self._wait()]
        for _ in range(min(self._jobs.qsize(), _MAX_GROUP)):
            taken += self._jobs.get()
        return taken

    def _wait(self) -> Sequence[Job[None]]:
        """Remove some of what has expired; then wait for jobs, or until there is more to remove."""
        self._sweep()
        jobs: Sequence[Job[None]] = []
        with self._resting(), contextlib.suppress(queue.Empty):
            jobs = self._jobs.get(timeout=self._rest_seconds)
        if self._nudge.is_set():
            self._nudge.clear()
            with contextlib.suppress(StreamqError):  # the next job reports it
                self._check_file()
        return jobs

    def _commit(self, jobs: Sequence[Job[None]]) -> None:
        """Run jobs in one transaction, and reply to each."""
        try:
            self._transact(jobs)
        except StreamqError as exc:
            self._fail(jobs, exc)
            return
        self._ring()
        self._deliver(*((job.future, None, None) for job in jobs))

    def _fail(self, jobs: Sequence[Job[None]], error: StreamqError) -> None:
        """Reply to jobs whose transaction has failed."""
        if len(jobs) > 1 and not error.retryable:
            # One that is fenced, or bad, must not fail the others: each in its own transaction.
            for job in jobs:
                self._commit([job])
        else:
            self._deliver(*(refused(job, error) for job in jobs))

    def _ring(self) -> None:
        if self.doorbells is not None:
            self.doorbells.ring()

    def _transact(self, jobs: Sequence[Job[None]]) -> None:
        try:
            self._try_to_transact(jobs)
        except StorageFullError:
            if any(isinstance(job, RemovalJob) for job in jobs):
                Reserve(self.file.path).release()
            # Merged into the database, the log begins anew, in the room that it has already.
            with contextlib.suppress(sqlite3.Error):
                self._connected().execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._try_to_transact(jobs)
        self._check_commit()

    def _try_to_transact(self, jobs: Sequence[Job[None]]) -> None:
        connection = self._connected()
        with sqlite_errors(self.file.given), transaction(connection):
            for job in jobs:
                job.run(connection)

    def _check_commit(self) -> None:
        self._checked_at = time.monotonic()
        if (change := self.file.change()) is not None:
            self._checked_at = 0.0
            raise BackendUnavailableError(
                f"{self.file.given} {change.value} during a commit", backend=BACKEND
            )

    def _sweep(self) -> None:
        now = time.monotonic()
        if now < self._next_sweep or self.connection is None:
            return
        more = False
        try:
            with sqlite_errors(self.file.given):
                connection = self._connected()
                pages = _FEW_PAGES if Reserve(self.file.path).keep() else _MANY_PAGES
                connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                more = removal.has_expired(connection)
                if more and not self.log_is_long():
                    with transaction(connection):
                        removal.sweep(connection)
        except StreamqError as exc:
            # No call waits for this; the next append has the same problem and reports it.
            _log.warning("removing expired streams failed: %s", exc)
            more = False
        self._rest_seconds = _SWEEP_AGAIN_SECONDS if more else None
        self._next_sweep = now + (_SWEEP_AGAIN_SECONDS if more else _SWEEP_SECONDS)

    def _end(self) -> Sequence[Job[None]]:
        batches = [self._jobs.get() for _ in range(self._jobs.qsize())]
        return [job for batch in batches for job in batch]
