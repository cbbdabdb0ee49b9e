"""The thread that reads and waits, for all blocked reads of a queue."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import selectors
import socket
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamq._errors import StreamqError
from streamq.driver import Stored

from . import _store as store
from ._errors import for_stream, translated
from ._tail import Read, Tail
from ._thread import Job, QueueThread
from ._wakeup import Doorbells


@dataclass(slots=True, eq=False)
class _Recall:
    read: Read


class Reader(QueueThread):
    """Reads, and waits for all blocked reads at once: one doorbell, one look at what is new."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        doorbells: Doorbells,
    ) -> None:
        self._jobs: collections.deque[Job[Any] | Read | _Recall | None] = collections.deque()
        self._lock = threading.Lock()
        self._refusal: StreamqError | None = None
        self._kick_in, self._kick_out = socket.socketpair()
        self._kick_in.setblocking(False)
        self._kick_out.setblocking(False)
        self._tail = Tail()
        super().__init__(path, connect, loop, doorbells)

    def submit(self, job: Job[Any] | Read) -> None:
        """Run a job, or answer a read now or later."""
        with self._lock:
            if self._refusal is not None:
                raise for_stream(self._refusal, str(job.stream))
            self._jobs.append(job)
            self._kick()

    def recall(self, read: Read) -> None:
        """Answer a blocked read with nothing."""
        self._tell(_Recall(read))

    def stop(self) -> None:
        """End, refusing all blocked reads."""
        self._tell(None)

    def on_commit(self) -> None:
        """Look for new records: this queue has stored some. Called by the writer's thread."""
        if self._tail.is_active:
            with self._lock:
                self._tail.is_dirty = True
                if self._refusal is None:
                    self._kick()

    def _tell(self, message: _Recall | None) -> None:
        with self._lock:
            if self._refusal is None:
                self._jobs.append(message)
                self._kick()

    def _kick(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the thread is about to look anyway
            self._kick_in.send(b"\0")

    def _serve(self, connection: sqlite3.Connection) -> None:
        tail = self._tail
        with selectors.DefaultSelector() as selector:
            selector.register(self._kick_out, selectors.EVENT_READ)
            try:
                while True:
                    for key, _ in selector.select(tail.timeout()):
                        if key.fileobj is self._kick_out:
                            self._kick_out.recv(4096)
                        elif tail.bell is not None:
                            tail.bell.silence()
                            tail.is_dirty = True
                    while self._jobs:
                        job = self._jobs.popleft()
                        if job is None:
                            return
                        self._run(connection, job, selector)
                    self._look(connection)
                    self._deliver()
                    tail.rest(selector)
            finally:
                if tail.bell is not None:
                    tail.bell.close()

    def _run(
        self,
        connection: sqlite3.Connection,
        job: Job[Any] | Read | _Recall,
        selector: selectors.BaseSelector,
    ) -> None:
        if isinstance(job, _Recall):
            if self._tail.discard(job.read):
                self._reply(job.read.future, [])
            return
        if job.future.cancelled():
            return
        try:
            with translated(self._path):
                if isinstance(job, Job):
                    self._reply(job.future, job.run(connection))
                    return
                if job.waits and not self._tail.is_active:
                    # In this order: what is committed after the look at the newest record is
                    # announced by the bell, what was committed before is found by the read.
                    self._tail.start(connection, self._doorbells, selector)
                found = self._select(connection, job)
            if found or not job.waits:
                self._reply(job.future, found)
            else:
                self._tail.add(job)
        except StreamqError as exc:
            self._reply(job.future, error=for_stream(exc, str(job.stream)))

    def _look(self, connection: sqlite3.Connection) -> None:
        """Answer the blocked reads of streams that have new records."""
        if not self._tail.waiting:
            return
        try:
            with translated(self._path):
                for stream in self._tail.changed(connection):
                    for read in tuple(self._tail.waiting.get(stream, ())):
                        found = self._select(connection, read)
                        if found:
                            self._tail.discard(read)
                            self._reply(read.future, found)
        except StreamqError as exc:
            for read in self._tail.clear():
                self._reply(read.future, error=for_stream(exc, str(read.stream)))

    def _select(self, connection: sqlite3.Connection, read: Read) -> list[Stored]:
        return store.select(connection, read.stream, read.after, read.max_records, read.max_bytes)

    def _abandon(self, reason: StreamqError) -> None:
        with self._lock:
            self._refusal = reason
        left: list[Job[Any] | Read] = list(self._tail.clear())
        left += [job for job in self._jobs if isinstance(job, Job | Read)]
        self._jobs.clear()
        for job in left:
            self._reply(job.future, error=for_stream(reason, str(job.stream)))
        self._kick_in.close()
        self._kick_out.close()
