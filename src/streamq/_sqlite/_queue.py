"""The queue: streamq's contract on top of a reading and a writing thread.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Entry,
    QueueOptions,
    Stored,
    StreamAppend,
    StreamId,
    StreamInfo,
    StreamqError,
    decode_position,
)

from . import _removal as removal
from . import _requests as requests
from . import _schema as schema
from ._errors import BACKEND
from ._live_tail import PendingRead
from ._reading import ReadingThread
from ._settings import SqliteSettings
from ._shares import Shares
from ._thread import Job, RemovalJob
from ._writing import WritingThread

_CLOSE_SECONDS = 1.0
_ERASE_SECONDS = 20.0

T = TypeVar("T")


class SqliteQueue(ChunkQueue):
    """Streams in one database file.

    Args:
        options: Options of every queue.
        settings: The driver's settings.
        capabilities: What the driver promises at best.
        path: The database, as an absolute path.
    """

    backend = BACKEND

    def __init__(
        self,
        options: QueueOptions,
        settings: SqliteSettings,
        capabilities: Capabilities,
        path: Path,
    ) -> None:
        self.capabilities = replace(capabilities, erases=settings.secure_delete)
        self._options = options
        self._loop = asyncio.get_running_loop()
        connect = partial(_connect, settings)
        connect_alone = partial(schema.connect_alone, busy_seconds=settings.busy_seconds)
        self._reader = ReadingThread(path, connect, connect_alone, self._loop)
        self._writer = WritingThread(path, connect, self._loop)
        self._stop_threads = weakref.finalize(self, _stop, self._reader, self._writer, os.getpid())
        self._stop_threads.atexit = False

    async def opened(self) -> None:
        """Wait until both threads have a connection.

        Raises:
            StreamqError: One of them cannot open it; the queue is closed.
        """
        try:
            results = await asyncio.gather(
                self._writer.opened, self._reader.opened, return_exceptions=True
            )
            for result in results:
                if result is not None:
                    raise result
        except BaseException:
            await self.aclose()
            raise

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await self._write(Job, str(stream), self._appending(stream, entries, ttl))

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        shares = Shares(len(appends))
        self._writer.submit_all(
            [
                Job(self._appending(each.stream, each.entries, each.ttl), share, str(each.stream))
                for each, share in zip(appends, shares.each, strict=True)
            ]
        )
        return await shares.future if appends else []

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        key = decode_position(after, backend=BACKEND, stream=stream)
        select = partial(
            requests.select,
            stream=stream,
            after=key,
            max_records=max_records,
            max_bytes=max_bytes,
        )
        if not max_wait:
            return await self._query(str(stream), select)
        read = PendingRead(stream, select, self._loop.create_future())
        self._reader.submit(read)
        # The thread always answers: a timeout of our own could discard records that it has found.
        timer = self._loop.call_later(max_wait, self._reader.recall, read)
        try:
            return await read.future
        except asyncio.CancelledError:
            self._reader.recall(read)
            raise
        finally:
            timer.cancel()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return await self._query(str(stream), partial(requests.describe, stream=stream, last=last))

    async def delete(self, stream: StreamId) -> None:
        buried: int | None = None
        is_left = False

        def bury(connection: sqlite3.Connection) -> None:
            nonlocal buried
            buried = removal.bury(connection, stream)
            step(connection)

        def step(connection: sqlite3.Connection) -> None:
            nonlocal is_left
            is_left = removal.erase_step(connection, buried)

        await self._write(RemovalJob, str(stream), bury)
        # The stream is gone. Its bytes follow in steps, so that writers do not wait for all of
        # them; if that takes long or is cancelled, those who write to the file go on.
        give_up = self._loop.time() + _ERASE_SECONDS
        while self._may_go_on(is_left, give_up):
            await self._write(RemovalJob, str(stream), step)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        after: bytes | None = b""
        while after is not None:
            list_page = partial(requests.list_streams, tenant=tenant, prefix=prefix, after=after)
            page, after = await self._query(None, list_page)
            for info in page:
                yield info

    async def sweep(self) -> int:
        gone, is_left = 0, True

        def step(connection: sqlite3.Connection) -> None:
            nonlocal gone, is_left
            gone += removal.sweep(connection)
            is_left = removal.has_expired(connection)

        # In steps, so that writers do not wait for the whole sweep; a later one goes on. The first
        # one rings every doorbell, also if it removes nothing: those of killed readers go.
        while self._may_go_on(is_left):
            await self._write(RemovalJob, None, step)
        return gone

    async def aclose(self) -> None:
        self._writer.refuse()
        # One after the other: SQLite merges its log into the file when the last connection
        # closes. Of two that close at the same moment, neither is the last one to SQLite.
        self._reader.ended.add_done_callback(lambda _: self._writer.stop())
        self._reader.stop()
        # The thread finishes a commit that waits for another process's lock, without us.
        await asyncio.wait((self._writer.ended, self._reader.ended), timeout=_CLOSE_SECONDS)

    def abandon(self) -> None:
        self._stop_threads()

    # -- inside --------------------------------------------------------------------------------

    def _appending(
        self, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> Callable[[sqlite3.Connection], None]:
        return partial(
            self._writer.append,
            stream=stream,
            entries=tuple(entries),
            ttl=ttl or self._options.ttl,
        )

    async def _write(
        self,
        kind: type[Job[None]],
        name: str | None,
        run: Callable[[sqlite3.Connection], None],
    ) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._writer.submit(kind(run, future, name))
        await future

    async def _query(self, name: str | None, run: Callable[[sqlite3.Connection], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._reader.submit(Job(run, future, name))
        return await future

    def _may_go_on(self, is_left: bool, until: float = math.inf) -> bool:
        """Whether removing takes another step: neither too long, nor against a reader's log."""
        return is_left and self._loop.time() < until and not self._writer.log_is_long()


def _connect(settings: SqliteSettings, path: Path) -> sqlite3.Connection:
    connection = schema.connect(
        path, synchronous=settings.synchronous, busy_seconds=settings.busy_seconds
    )
    # Its default depends on who built SQLite.
    connection.execute(f"PRAGMA secure_delete = {'ON' if settings.secure_delete else 'OFF'}")
    return connection


def _stop(reader: ReadingThread, writer: WritingThread, process: int) -> None:
    """End the threads of a queue that was dropped; a forked child has none."""
    if process == os.getpid():
        reader.stop()
        writer.stop()
