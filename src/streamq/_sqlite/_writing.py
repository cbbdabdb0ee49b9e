"""Commits appends, in a thread: all that wait go into one transaction.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
    for_stream,
)

from . import _removal as removal
from . import _requests as requests
from . import _schema as schema
from ._errors import BACKEND, sqlite_errors
from ._reserve import Reserve
from ._schema import transaction
from ._thread import ConnectionThread, Job

_log = logging.getLogger("streamq.sqlite")
_MAX_GROUP = 256  # appends in one transaction
_MANY_PAGES = 1000  # in SQLite's log before it is merged
_FEW_PAGES = 256  # so that merging takes less room than is kept in reserve
_SWEEP_SECONDS = 5.0
_SWEEP_AGAIN_SECONDS = 0.05


class _Nudge:
    """Tells the thread to compare its file with the path."""


class WritingThread(ConnectionThread):
    """Commits jobs. All jobs that wait when a commit ends go into the next one together.

    For the other arguments see :class:`ConnectionThread`.

    Args:
        on_commit: Called in the thread after a commit that has added records.
    """

    role = "writer"

    def __init__(
        self,
        path: Path,
        connect: Callable[[Path], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        on_commit: Callable[[], None],
    ) -> None:
        self._jobs: queue.SimpleQueue[Job[bool] | _Nudge | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._refusal: StreamqError | None = None
        self._on_commit = on_commit
        self._next_sweep = 0.0
        self._has_more_to_sweep = False
        self._epochs: dict[StreamId, int] = {}
        super().__init__(path, connect, loop)

    def submit(self, job: Job[bool]) -> None:
        """Run a job in a transaction; it returns whether readers have to be woken."""
        with self._lock:
            if self._refusal is not None:
                raise for_stream(self._refusal, job.stream)
            self._jobs.put(job)

    def stop(self) -> None:
        """Commit the jobs that have been submitted, then end the thread."""
        self._jobs.put(None)

    def append(
        self,
        connection: sqlite3.Connection,
        stream: StreamId,
        entries: Sequence[Entry],
        ttl: timedelta,
    ) -> bool:
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
        return requests.append(connection, stream, entries, ttl)

    def log_is_long(self) -> bool:
        """Whether a reader, maybe of another program, keeps SQLite from beginning its log anew."""
        return self.file.log_bytes() > schema.LOG_LIMIT_BYTES

    def nudge(self) -> None:
        self._jobs.put(_Nudge())

    def _serve(self) -> None:
        self._sweep()
        while True:
            jobs, more = self._take()
            with self.working:
                if jobs:
                    self._commit(jobs)
                    self._deliver()
                self._sweep()
            if not more:
                return

    def _take(self) -> tuple[list[Job[bool]], bool]:
        """Wait for a job; return it with those behind it, and whether to go on afterwards."""
        jobs: list[Job[bool]] = []
        try:
            job = self._jobs.get(timeout=_SWEEP_AGAIN_SECONDS if self._has_more_to_sweep else None)
            while job is not None:
                if isinstance(job, _Nudge):
                    with self.working, contextlib.suppress(StreamqError):
                        self._check_file()
                elif not job.future.cancelled():
                    jobs.append(job)
                if len(jobs) >= _MAX_GROUP:
                    return jobs, True
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, True
        return jobs, False

    def _commit(self, jobs: list[Job[bool]]) -> None:
        """Run jobs in one transaction, and reply to each."""
        outcomes: list[StreamqError | None]
        try:
            outcomes, changed = self._transact(jobs)
        except StreamqError as exc:
            if len(jobs) > 1 and not exc.retryable:
                # One bad record must not fail the others: each in a transaction of its own.
                for job in jobs:
                    self._commit([job])
                return
            outcomes = [for_stream(exc, job.stream) for job in jobs]
        else:
            if changed:
                self._on_commit()
                if self.doorbells is not None:
                    self.doorbells.ring()
        for job, error in zip(jobs, outcomes, strict=True):
            self._reply(job.future, error=error)

    def _transact(self, jobs: list[Job[bool]]) -> tuple[list[StreamqError | None], bool]:
        try:
            return self._try_to_transact(jobs)
        except StorageFullError:
            if any(job.frees_room for job in jobs):
                self._reserve().release()
            # Merged into the database, the log begins anew, in the room that it has already.
            with contextlib.suppress(sqlite3.Error):
                self._connected().execute("PRAGMA wal_checkpoint(PASSIVE)")
            return self._try_to_transact(jobs)

    def _reserve(self) -> Reserve:
        return Reserve(self.file.path)

    def _try_to_transact(self, jobs: list[Job[bool]]) -> tuple[list[StreamqError | None], bool]:
        outcomes: list[StreamqError | None] = []
        changed = False
        connection = self._connected()
        with sqlite_errors(self.file.given), transaction(connection):
            for job in jobs:
                try:
                    changed |= job.run(connection)
                    outcomes.append(None)
                except StreamqError as exc:  # fenced, before it has written anything
                    outcomes.append(exc)
        self._check_commit()
        return outcomes, changed

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
                pages = _FEW_PAGES if self._reserve().keep() else _MANY_PAGES
                connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                more = removal.has_expired(connection)
                if more and not self.log_is_long():
                    with transaction(connection):
                        removal.sweep(connection)
        except StreamqError as exc:
            # No call waits for this; the next append has the same problem and reports it.
            _log.warning("removing expired streams failed: %s", exc)
            more = False
        self._has_more_to_sweep = more
        self._next_sweep = now + (_SWEEP_AGAIN_SECONDS if more else _SWEEP_SECONDS)

    def _abandon(self, reason: StreamqError) -> None:
        with self._lock:
            self._refusal = reason
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if isinstance(job, Job):
                    self._reply(job.future, error=for_stream(reason, job.stream))
        if self.doorbells is not None:
            self.doorbells.close()
