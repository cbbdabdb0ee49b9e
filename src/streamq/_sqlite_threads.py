"""The two threads of a SQLite queue: one commits, one reads and waits. Each owns a connection."""

from __future__ import annotations

import abc
import asyncio
import collections
import contextlib
import logging
import queue
import selectors
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from . import _sqlite_store as store
from ._errors import ClosedError, StreamqError
from ._events import StreamId
from ._position import Key
from ._sqlite_errors import BACKEND, for_stream, translated
from ._sqlite_wakeup import Doorbell, Doorbells
from .driver import Stored

_log = logging.getLogger("streamq.sqlite")
_MAX_GROUP = 256  # appends in one transaction
_SWEEP_SECONDS = 5.0
_SWEEP_AGAIN_SECONDS = 0.05
_POLL_SECONDS = 1.0  # in case a ring was lost
_POLL_SECONDS_WITHOUT_BELL = 0.05
_KEEP_BELL_SECONDS = 2.0
_DELIVER_AT_ONCE = 16

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """Something to do on a thread's connection, and who waits for the result."""

    run: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    stream: str = ""


@dataclass(slots=True, eq=False)
class Read:
    """A read, which stays with the thread until there is something to return or it is recalled."""

    stream: StreamId
    after: Key
    max_records: int
    max_bytes: int
    waits: bool
    future: asyncio.Future[list[Stored]]


@dataclass(slots=True, eq=False)
class _Recall:
    read: Read


class _Thread(abc.ABC):
    """A daemon thread with a connection of its own, opened, used and closed in it."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        doorbells: Doorbells,
    ) -> None:
        self._path = path
        self._connect = connect
        self._loop = loop
        self._doorbells = doorbells
        self._replies: list[tuple[asyncio.Future[Any], Any, StreamqError | None]] = []
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(
            target=self._main, name=f"streamq-sqlite-{type(self).__name__.lower()}", daemon=True
        )
        self._thread.start()

    def _main(self) -> None:
        error: StreamqError | None = None
        try:
            with translated(self._path):
                connection = self._connect()
                try:
                    self._reply(self.opened, None)
                    self._deliver()
                    self._serve(connection)
                finally:
                    connection.close()
        except StreamqError as exc:
            error = exc
        reason = error or ClosedError("this sqlite queue has been closed", backend=BACKEND)
        self._reply(self.opened, error=reason)
        self._abandon(reason)
        self._reply(self.ended, None)
        self._deliver()

    def _reply(
        self, future: asyncio.Future[Any], result: object = None, error: StreamqError | None = None
    ) -> None:
        self._replies.append((future, result, error))
        if len(self._replies) >= _DELIVER_AT_ONCE:
            self._deliver()

    def _deliver(self) -> None:
        replies, self._replies = self._replies, []
        if replies:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
                self._loop.call_soon_threadsafe(_resolve, replies)

    @abc.abstractmethod
    def _serve(self, connection: sqlite3.Connection) -> None:
        """Work until told to stop."""

    @abc.abstractmethod
    def _abandon(self, reason: StreamqError) -> None:
        """Refuse everything that is still to be done, and all that comes."""


def _resolve(replies: list[tuple[asyncio.Future[Any], Any, StreamqError | None]]) -> None:
    for future, result, error in replies:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class Writer(_Thread):
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
                more = store.sweep(connection)
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


class Reader(_Thread):
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
        self._tail = _Tail()
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


@dataclass(slots=True)
class _Tail:
    """What the reader's thread knows about who waits and what is new.

    Attributes:
        waiting: Blocked reads by stream.
        bell: Rings when another process has stored something.
        newest: Id of the newest record that has been looked at.
        version: SQLite's data version at that time.
        is_active: Whether commits of this process are to be announced; set before looking.
        is_dirty: Whether something has been announced, by this process or by the bell.
        next_poll: When to look without having been told.
        idle_since: When the last blocked read went away.
    """

    waiting: dict[StreamId, set[Read]] = field(default_factory=dict)
    bell: Doorbell | None = None
    newest: int = 0
    version: int = 0
    is_active: bool = False
    is_dirty: bool = False
    next_poll: float = 0.0
    idle_since: float = 0.0

    def start(
        self,
        connection: sqlite3.Connection,
        doorbells: Doorbells,
        selector: selectors.BaseSelector,
    ) -> None:
        self.is_active = True
        self.bell = doorbells.install()
        if self.bell is not None:
            selector.register(self.bell, selectors.EVENT_READ)
        self.idle_since = time.monotonic()
        self.version = store.data_version(connection)
        self.newest = store.newest_record(connection)

    def rest(self, selector: selectors.BaseSelector) -> None:
        """Take the bell away when nobody has waited for a while, so that writers need not ring."""
        idle = self.is_active and not self.waiting
        if idle and time.monotonic() - self.idle_since >= _KEEP_BELL_SECONDS:
            self.is_active = False
            if self.bell is not None:
                selector.unregister(self.bell)
                self.bell.close()
                self.bell = None

    def timeout(self) -> float | None:
        if self.waiting:
            return max(0.0, self.next_poll - time.monotonic())
        return _KEEP_BELL_SECONDS if self.is_active else None

    def changed(self, connection: sqlite3.Connection) -> list[StreamId]:
        """Return the streams with records that have not been looked at, if there is a reason."""
        now = time.monotonic()
        if not self.is_dirty:
            if now < self.next_poll:
                return []
            interval = _POLL_SECONDS if self.bell is not None else _POLL_SECONDS_WITHOUT_BELL
            self.next_poll = now + interval
            version = store.data_version(connection)
            if version == self.version:
                return []
            self.version = version
        self.is_dirty = False  # before looking: what is announced from now on is looked at again
        self.newest, streams = store.changed_since(connection, self.newest)
        return streams

    def add(self, read: Read) -> None:
        self.waiting.setdefault(read.stream, set()).add(read)

    def discard(self, read: Read) -> bool:
        """Remove a read, and tell whether it was still waiting."""
        reads = self.waiting.get(read.stream, set())
        if read not in reads:
            return False
        reads.discard(read)
        if not reads:
            del self.waiting[read.stream]
            self.idle_since = time.monotonic()
        return True

    def clear(self) -> list[Read]:
        reads = [read for reads in self.waiting.values() for read in reads]
        self.waiting.clear()
        self.idle_since = time.monotonic()
        return reads
