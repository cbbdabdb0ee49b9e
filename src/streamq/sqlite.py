"""The SQLite driver: one file, no server, any number of processes on one machine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ._errors import ConfigurationError
from ._position import decode_position
from ._sqlite import _store as store
from ._sqlite._errors import BACKEND
from ._sqlite._reading import Reader
from ._sqlite._tail import Read
from ._sqlite._thread import Job
from ._sqlite._wakeup import Doorbells
from ._sqlite._writing import Writer
from .driver import (
    AccessDeniedError,
    Capabilities,
    ChunkQueue,
    ClosedError,
    Driver,
    DriverSettings,
    Entry,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
)

_CLOSE_SECONDS = 1.0
_PAGE = 500

_CAPABILITIES = Capabilities(
    replay=True,
    fan_out=True,
    ordered=True,
    fenced=True,
    durable=True,
    cross_process=True,
    cross_host=False,
    expires=True,
    max_record_bytes=64 * 2**20,
    latency=LatencyClass.MILLISECONDS,
)

T = TypeVar("T")


class SqliteSettings(DriverSettings):
    """Settings of the SQLite driver.

    Attributes:
        synchronous: With ``normal``, what an append has acknowledged survives the death of every
            process (``kill -9``), but the last appends before a power cut or a crash of the
            operating system may be lost; the file stays intact either way. ``full`` waits for the
            disk at each commit, which costs milliseconds, and survives a power cut as well.
    """

    model_config = SettingsConfigDict(env_prefix="STREAMQ_SQLITE_")

    toml_table = "sqlite"

    path: Path = Field(
        default=Path(".streamq/streams.db"),
        description="database file on a local disk; it and its directory are created",
    )
    synchronous: Literal["normal", "full"] = Field(
        default="normal",
        description="'full' also survives a power cut; 'normal' every crash of a process",
    )
    busy_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="how long to wait for another process's write before giving up"
    )


class _SqliteQueue(ChunkQueue):
    backend = BACKEND

    def __init__(self, options: QueueOptions, settings: SqliteSettings, path: Path) -> None:
        self.capabilities = _CAPABILITIES
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        connect = partial(
            store.connect,
            path,
            synchronous=settings.synchronous,
            busy_seconds=settings.busy_seconds,
        )
        doorbells = Doorbells(path)
        self._reader = Reader(path, connect, self._loop, doorbells)
        self._writer = Writer(path, connect, self._loop, doorbells, self._reader.on_commit)

    async def opened(self) -> None:
        """Wait until both threads have a connection, or close and raise."""
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

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        ttl = ttl or self._options.ttl
        await self._write(
            stream, partial(store.append, stream=stream, entries=tuple(entries), ttl=ttl)
        )

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        self._check_open()
        key = decode_position(after, backend=BACKEND, stream=stream)
        future: asyncio.Future[list[Stored]] = self._loop.create_future()
        read = Read(stream, key, max_records, max_bytes, max_wait > 0, future)
        self._reader.submit(read)
        if not read.waits:
            return await future
        # The thread answers in any case: a timeout of our own could throw away what it has found.
        timer = self._loop.call_later(max_wait, self._reader.recall, read)
        try:
            return await future
        finally:
            timer.cancel()
            if future.cancelled():
                self._reader.recall(read)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return await self._query(stream, partial(store.describe, stream=stream, last=last))

    async def delete(self, stream: StreamId) -> None:
        await self._write(stream, partial(store.delete, stream=stream))

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        after = ""
        while True:
            page = await self._query(
                None,
                partial(store.list_streams, tenant=tenant, prefix=prefix, after=after, limit=_PAGE),
            )
            for info in page:
                yield info
            if len(page) < _PAGE:
                return
            after = page[-1].stream.name

    async def sweep(self) -> int:
        gone = 0

        def step(connection: sqlite3.Connection) -> bool:
            nonlocal gone
            gone += store.sweep(connection)
            return False

        # In steps, so that writers do not wait for all of it.
        while await self._query(None, store.has_expired):
            await self._write(None, step)
        # Rings every doorbell, which takes those of killed readers away.
        await self._write(None, lambda connection: True)
        return gone

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            # One after the other: SQLite folds its log into the file when the last connection
            # closes, and two that close at the same moment each take the other for the last.
            self._reader.ended.add_done_callback(lambda _: self._writer.stop())
            self._reader.stop()
        # A commit that waits for another process's lock is finished by its thread, without us.
        await asyncio.wait((self._writer.ended, self._reader.ended), timeout=_CLOSE_SECONDS)

    async def _write(self, stream: StreamId | None, run: Callable[..., bool]) -> None:
        self._check_open()
        future: asyncio.Future[bool] = self._loop.create_future()
        self._writer.submit(Job(run, future, "" if stream is None else str(stream)))
        await future

    async def _query(self, stream: StreamId | None, run: Callable[..., T]) -> T:
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._reader.submit(Job(run, future, "" if stream is None else str(stream)))
        return await future

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("this sqlite queue has been closed", backend=BACKEND)


class SqliteDriver(Driver[SqliteSettings]):
    """Streams in one SQLite file, for any number of processes on one machine.

    A blocked reader is woken through a socket in the directory ``<file>-wake``, within a
    millisecond or so; should that be lost, it looks by itself once a second.
    """

    name = BACKEND
    summary = "one local file, no server; many processes on one machine"
    capabilities = _CAPABILITIES
    settings_type = SqliteSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: SqliteSettings) -> ChunkQueue:
        """Open the file, creating it and its directory if need be.

        Raises:
            BackendUnavailableError: Another process keeps it locked.
            AccessDeniedError: We may not write to the file or its directory.
            ConfigurationError: The path cannot be a database, or belongs to something else.
            BackendError: The file is damaged.
        """
        path = await asyncio.to_thread(_prepare, settings.path)
        queue = _SqliteQueue(options, settings, path)
        await queue.opened()
        return queue


def _prepare(path: Path) -> Path:
    """Create the directory and return the real path, or say what is wrong with it."""
    hint = "set STREAMQ_SQLITE_PATH to a file on a local disk"
    if str(path) == ":memory:" or str(path).startswith("file:"):
        raise ConfigurationError(
            f"{str(path)!r} is not a file path; {hint}, or use the memory backend", backend=BACKEND
        )
    try:
        path = path.expanduser().resolve()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_directory = path.is_dir()
    except PermissionError as exc:
        raise AccessDeniedError(f"cannot use {path}: {exc}; {hint}", backend=BACKEND) from exc
    except (OSError, RuntimeError, ValueError) as exc:
        raise ConfigurationError(f"cannot use {path}: {exc}; {hint}", backend=BACKEND) from exc
    if is_directory:
        raise ConfigurationError(f"{path} is a directory; {hint}", backend=BACKEND)
    existing = path if path.exists() else path.parent
    if not (os.access(existing, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        raise AccessDeniedError(
            f"{existing} is read-only for this process, and SQLite has to write to the file and "
            f"its directory; {hint}",
            backend=BACKEND,
        )
    return path
