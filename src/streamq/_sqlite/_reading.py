"""Reads, in a thread that serves all blocked reads of a queue.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import selectors
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamq.driver import StorageFullError, Stored, StreamqError, for_stream

from . import _requests as requests
from ._errors import sqlite_errors
from ._live_tail import LiveTail, PendingRead
from ._thread import ConnectionThread, Job


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
        self._lock = threading.Lock()
        self._refusal: StreamqError | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._live_tail = LiveTail()
        self._followed: sqlite3.Connection | None = None
        self._connect_alone = connect_alone
        self._is_nudged = False
        super().__init__(path, connect, loop)

    def submit(self, job: Job[Any] | PendingRead) -> None:
        """Run a job; or answer a read, at once or when there are records."""
        with self._lock:
            if self._refusal is not None:
                raise for_stream(self._refusal, str(job.stream))
            self._jobs.append(job)
            self._wake()

    def recall(self, read: PendingRead) -> None:
        """Answer a blocked read with no records."""
        self._send(_Recall(read))

    def nudge(self) -> None:
        self._is_nudged = True
        with self._lock:
            if self._refusal is None:
                self._wake()

    def stop(self) -> None:
        """End the thread; all blocked reads get ``ClosedError``."""
        self._send(None)

    def on_commit(self) -> None:
        """Look for new records: this queue has stored some. Called by the writing thread."""
        if self._live_tail.is_active:
            with self._lock:
                self._live_tail.is_dirty = True
                if self._refusal is None:
                    self._wake()

    def _send(self, message: _Recall | None) -> None:
        with self._lock:
            if self._refusal is None:
                self._jobs.append(message)
                self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the thread is about to wake anyway
            self._wake_in.send(b"\0")

    def _serve(self) -> None:
        tail = self._live_tail
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            try:
                while True:
                    for key, _ in selector.select(tail.timeout()):
                        if key.fileobj is self._wake_out:
                            self._wake_out.recv(4096)
                        elif tail.bell is not None:
                            tail.bell.silence()
                            tail.is_dirty = True
                    with self.working:
                        if not self._work(selector):
                            return
                    self._deliver()
                    tail.drop_idle_bell(selector)
            finally:
                if tail.bell is not None:
                    tail.bell.close()

    def _work(self, selector: selectors.BaseSelector) -> bool:
        """Do all that is to be done now; return whether to go on."""
        self._check_if_nudged()
        while self._jobs:
            job = self._jobs.popleft()
            if job is None:
                return False
            self._run(job, selector)
        self._answer_blocked(selector)
        return True

    def _check_if_nudged(self) -> None:
        if self._is_nudged:
            self._is_nudged = False
            self._live_tail.is_dirty = True
            with contextlib.suppress(StreamqError):  # the next read reports it
                self._check_file()

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

    def _run(self, job: Job[Any] | PendingRead | _Recall, selector: selectors.BaseSelector) -> None:
        if isinstance(job, _Recall):
            if self._live_tail.discard(job.read):
                self._reply(job.read.future, [])
            return
        if job.future.cancelled():
            return
        try:
            with self._reading() as connection:
                if isinstance(job, Job):
                    self._reply(job.future, job.run(connection))
                    return
                if job.waits:
                    self._follow(connection, selector)
                found = self._select(connection, job)
            if found or not job.waits:
                self._reply(job.future, found)
            else:
                self._live_tail.add(job)
        except StreamqError as exc:
            self._reply(job.future, error=for_stream(exc, str(job.stream)))

    def _follow(self, connection: sqlite3.Connection, selector: selectors.BaseSelector) -> None:
        """Have new records of this file announced.

        Call it before looking: the bell announces what is committed after the newest record was
        noted, and looking finds what was committed before.
        """
        tail = self._live_tail
        if tail.is_active and connection is self._followed:
            return
        self._followed = connection
        tail.start(connection, self.doorbells, selector)
        # The blocked reads, if there are any, have looked into another file.
        tail.looks_at_all = tail.is_dirty = bool(tail.waiting)

    def _answer_blocked(self, selector: selectors.BaseSelector) -> None:
        """Answer the blocked reads of streams that have new records."""
        tail = self._live_tail
        if not tail.waiting or not tail.is_due():
            return
        try:
            with self._reading() as connection:
                self._follow(connection, selector)
                tail.renew_bell(self.doorbells, selector)
                for stream in tail.changed_streams(connection):
                    for read in tuple(tail.waiting.get(stream, ())):
                        found = self._select(connection, read)
                        if found:
                            tail.discard(read)
                            self._reply(read.future, found)
        except StreamqError as exc:
            for read in tail.clear():
                self._reply(read.future, error=for_stream(exc, str(read.stream)))

    def _select(self, connection: sqlite3.Connection, read: PendingRead) -> list[Stored]:
        return requests.select(
            connection, read.stream, read.after, read.max_records, read.max_bytes
        )

    def _abandon(self, reason: StreamqError) -> None:
        with self._lock:
            self._refusal = reason
        left: list[Job[Any] | PendingRead] = list(self._live_tail.clear())
        left += [job for job in self._jobs if isinstance(job, Job | PendingRead)]
        self._jobs.clear()
        for job in left:
            self._reply(job.future, error=for_stream(reason, str(job.stream)))
        self._wake_in.close()
        self._wake_out.close()
