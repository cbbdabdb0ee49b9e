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
from collections.abc import Callable
from pathlib import Path

from streamq.driver import StreamqError

from . import _requests as requests
from ._doorbells import Doorbells
from ._errors import for_stream, sqlite_errors
from ._schema import transaction
from ._thread import ConnectionThread, Job

_log = logging.getLogger("streamq.sqlite")
_MAX_GROUP = 256  # appends in one transaction
_SWEEP_SECONDS = 5.0
_SWEEP_AGAIN_SECONDS = 0.05


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
        connect: Callable[[], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        doorbells: Doorbells,
        on_commit: Callable[[], None],
    ) -> None:
        self._jobs: queue.SimpleQueue[Job[bool] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._refusal: StreamqError | None = None
        self._on_commit = on_commit
        self._next_sweep = 0.0
        super().__init__(path, connect, loop, doorbells)

    def submit(self, job: Job[bool]) -> None:
        """Run a job in a transaction; it returns whether readers have to be woken."""
        with self._lock:
            if self._refusal is not None:
                raise for_stream(self._refusal, job.stream)
            self._jobs.put(job)

    def stop(self) -> None:
        """Commit the jobs that have been submitted, then end the thread."""
        self._jobs.put(None)

    def _serve(self, connection: sqlite3.Connection) -> None:
        self._sweep(connection)
        while True:
            jobs, more = self._take()
            if jobs:
                self._commit(connection, jobs)
                self._deliver()
                self._sweep(connection)
            if not more:
                return

    def _take(self) -> tuple[list[Job[bool]], bool]:
        """Wait for a job; return it with those behind it, and whether to go on afterwards."""
        jobs: list[Job[bool]] = []
        job = self._jobs.get()
        while job is not None:
            if not job.future.cancelled():
                jobs.append(job)
            if len(jobs) >= _MAX_GROUP:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, connection: sqlite3.Connection, jobs: list[Job[bool]]) -> None:
        outcomes: list[StreamqError | None] = []
        changed = False
        try:
            with sqlite_errors(self._path), transaction(connection):
                for job in jobs:
                    try:
                        changed |= job.run(connection)
                        outcomes.append(None)
                    except StreamqError as exc:  # fenced, before it has written anything
                        outcomes.append(exc)
        except StreamqError as exc:
            if len(jobs) > 1 and not exc.retryable:
                # One bad record must not fail the others: each in a transaction of its own.
                for job in jobs:
                    self._commit(connection, [job])
                return
            outcomes = [for_stream(exc, job.stream) for job in jobs]
        else:
            if changed:
                self._on_commit()
                self._doorbells.ring()
        for job, error in zip(jobs, outcomes, strict=True):
            self._reply(job.future, error=error)

    def _sweep(self, connection: sqlite3.Connection) -> None:
        now = time.monotonic()
        if now < self._next_sweep:
            return
        more = False
        try:
            with sqlite_errors(self._path):
                more = requests.has_expired(connection)
                if more:
                    with transaction(connection):
                        requests.sweep(connection)
        except StreamqError as exc:
            # No call waits for this; the next append has the same problem and reports it.
            _log.warning("removing expired streams failed: %s", exc)
        self._next_sweep = now + (_SWEEP_AGAIN_SECONDS if more else _SWEEP_SECONDS)

    def _abandon(self, reason: StreamqError) -> None:
        with self._lock:
            self._refusal = reason
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    self._reply(job.future, error=for_stream(reason, job.stream))
        self._doorbells.close()
