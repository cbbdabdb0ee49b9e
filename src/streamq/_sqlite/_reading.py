"""Reads, in a thread that serves all blocked reads of a queue.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamq.driver import StorageFullError, StreamqError

from ._errors import sqlite_errors
from ._listening import CommitListener
from ._live_tail import LiveTail, PendingRead
from ._thread import Answer, ConnectionThread, Job, refused


@dataclass(slots=True, eq=False)
class _Recall:
    read: PendingRead


class ReadingThread(ConnectionThread):
    """Answers reads; waits for all blocked reads at once, with one doorbell and one query.

    For the other arguments see :class:`ConnectionThread`.

    Args:
        connect_alone: Opens a connection for one answer, for a disk that is too full to open more.
    """

    role = "reader"

    def __init__(
        self,
        path: Path,
        connect: Callable[[Path], sqlite3.Connection],
        connect_alone: Callable[[Path], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._jobs: collections.deque[Job[Any] | PendingRead | _Recall | None] = collections.deque()
        self._listener = CommitListener()
        self._live_tail = LiveTail()
        self._connect_alone = connect_alone
        self._nudge = threading.Event()
        super().__init__(path, connect, loop)

    def recall(self, read: PendingRead) -> None:
        """Answer a blocked read with no records."""
        self._put(_Recall(read))

    def nudge(self) -> None:
        self._nudge.set()
        self._listener.wake()

    def stop(self) -> None:
        """End the thread; all blocked reads get ``ClosedError``."""
        self._put(None)

    def _put(self, call: Job[Any] | PendingRead | _Recall | None) -> None:
        self._jobs.append(call)
        self._listener.wake()

    def _serve(self) -> None:
        while True:
            for job in self._wait():
                if job is None:
                    return
                self._deliver(*self._run(job))
            self._deliver(*self._answer_blocked())

    def _wait(self) -> Iterator[Job[Any] | PendingRead | _Recall | None]:
        """Wait until there is something to do; yield what has been submitted."""
        with self._resting():
            self._listener.wait(for_records=bool(self._live_tail.waiting))
        if self._nudge.is_set():
            self._nudge.clear()
            with contextlib.suppress(StreamqError):  # the next read reports it
                self._check_file()
        while self._jobs:
            yield self._jobs.popleft()

    def _open(self) -> sqlite3.Connection | None:
        connection = super()._open()
        # The blocked reads, if there are any, have looked into another file. They come before
        # their recalls.
        self._jobs.extendleft(self._live_tail.take_all())
        self._listener.wake()
        return connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection to the file at the path; on a full disk one of this context only."""
        with sqlite_errors(self.file.given):
            try:
                connection = self._connected()
            except StorageFullError:
                with contextlib.closing(self._connect_alone(self.file.path)) as connection:
                    yield connection
            else:
                yield connection

    def _run(self, job: Job[Any] | PendingRead | _Recall) -> list[Answer]:
        """Run a job; return its answer, unless it is a read that has to wait."""
        if isinstance(job, _Recall):
            self._live_tail.discard(job.read)
            return [(job.read.future, [], None)]  # unless it has one already
        try:
            with self._reading() as connection:
                if isinstance(job, Job):
                    return [(job.future, job.run(connection), None)]
                return self._begin_read(connection, job)
        except StreamqError as exc:
            return [refused(job, exc)]

    def _begin_read(self, connection: sqlite3.Connection, read: PendingRead) -> list[Answer]:
        # Before looking: what is committed later is announced.
        self._listener.hear_commits(self.doorbells)
        self._live_tail.begin(connection)
        if found := read.run(connection):
            return [(read.future, found, None)]
        self._live_tail.add(read)
        return []

    def _answer_blocked(self) -> list[Answer]:
        """Return the answers for blocked reads of streams that have new records."""
        tail = self._live_tail
        if not tail.waiting:
            self._listener.rest()
            return []
        answers: list[Answer] = []
        try:
            with self._reading() as connection:
                self._listener.hear_commits(self.doorbells)
                for stream in tail.changed_streams(connection):
                    for read in tuple(tail.waiting.get(stream, ())):
                        if found := read.run(connection):
                            tail.discard(read)
                            answers.append((read.future, found, None))
        except StreamqError as exc:
            answers += [refused(read, exc) for read in tail.take_all()]
        return answers

    def _end(self) -> list[Job[Any] | PendingRead]:
        self._listener.close()
        jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
        left = [job for job in jobs if isinstance(job, Job | PendingRead)]
        return [*left, *self._live_tail.take_all()]
