"""The thread that commits: everything that waits goes into one transaction."""

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

from streamq._errors import StreamqError

from . import _store as store
from ._errors import for_stream, translated
from ._thread import Job, QueueThread
from ._wakeup import Doorbells

_log = logging.getLogger("streamq.sqlite")
_MAX_GROUP = 256  # appends in one transaction
_SWEEP_SECONDS = 5.0
_SWEEP_AGAIN_SECONDS = 0.05


class Writer(QueueThread):
    """Commits. Everything that waits when a commit ends goes into the next one together."""

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
        """Run a job that tells whether readers have to be woken, in a transaction."""
        with self._lock:
            if self._refusal is not None:
                raise for_stream(self._refusal, job.stream)
            self._jobs.put(job)

    def stop(self) -> None:
        """Commit what has been submitted, then end."""
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
        """Wait for a job and return it with those behind it, and whether to go on afterwards."""
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
            with translated(self._path), store.transaction(connection):
                for job in jobs:
                    try:
                        changed |= job.run(connection)
                        outcomes.append(None)
                    except StreamqError as exc:  # fenced, before it wrote anything
                        outcomes.append(exc)
        except StreamqError as exc:
            if len(jobs) > 1 and not exc.retryable:
                # One bad record must not fail its neighbours: each on its own.
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
            with translated(self._path):
                more = store.has_expired(connection)
                if more:
                    with store.transaction(connection):
                        store.sweep(connection)
        except StreamqError as exc:
            # Nobody waits for this; the next append meets the same trouble and reports it.
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
