"""Appends to the streams of tasks, each write with the version it follows, and reads them.

A task is one stream, and each write of it one record, whose index is the version. The backend
skips an entry of an index that is stored: of two writers that follow the same version, the first
one wins, in whichever processes they are.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from a2a.server.cluster import ConcurrentTaskModificationError

from streamq._errors import (
    ChunkTooLargeError,
    CorruptRecordError,
    FencedError,
    StreamNotFoundError,
)
from streamq._events import StreamId
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.calling._queues import check_queue
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, Entry, Stored
from streamq.opening._data_converter import configured_conversion
from streamq.opening._open import retry_policy, stream_id
from streamq.opening._requirements import check_capabilities
from streamq.records._codec import conceal, reveal
from streamq.records._wire import Record, RecordKind

from ._entry import TaskEntry
from ._history import TaskHistory

_REQUIRED = ("replay", "fan_out", "ordered", "fenced")
_EPOCH = 1
_PAGE_RECORDS, _PAGE_BYTES = 1_000, 4_194_304
_WAIT_SECONDS = 20.0
_CACHED_TASKS, _CACHED_BYTES = 256, 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One write as it is stored.

    Attributes:
        version: Its number within the task, from 1.
        position: The driver's position after it.
        entry: What was written.
    """

    version: int
    position: str
    entry: TaskEntry


class TaskJournal:
    """The streams of tasks in one queue.

    It remembers, for the tasks that were used last, what their entries add up to: 256 tasks and
    32 MiB at most. That is a cache: what is not in it is read again.

    Args:
        queue: Where the tasks are; it stays open.
        settings: Tenant and limits; by default those that are configured.
        prefix: What the names of the streams begin with.

    Raises:
        CapabilityError: The backend cannot decide between two writers, or its readers take records
            from each other.
        ConfigurationError: A setting is wrong.
    """

    def __init__(self, queue: ChunkQueue, settings: Settings | None, prefix: str) -> None:
        check_queue(queue)
        check_capabilities(queue, _REQUIRED)
        self._queue, self._prefix = queue, prefix
        self._settings = settings or load_settings()
        self._cache: OrderedDict[str, tuple[TaskHistory, int]] = OrderedDict()
        self._cached_bytes = 0

    async def read(self, task_id: str) -> TaskHistory:
        """Return a task as its entries describe it now; its version is 0 if there is none.

        The result is the caller's own.

        Raises:
            StreamqError: The backend does not answer, or a record is damaged.
        """
        found = self._taken(task_id)
        if found is None or not await self._go_on(task_id, found):
            found = TaskHistory()
            await self._advance(task_id, found, START)
        if found.version:
            self._keep(task_id, found)
        return found

    def known(self, task_id: str) -> TaskHistory | None:
        """Return a task as far as it is known here, without asking; ``None`` if it is not.

        The result is the caller's own.
        """
        return self._taken(task_id)

    async def read_until(self, task_id: str, version: int) -> TaskHistory:
        """Return a task as it was at a version.

        Raises:
            StreamqError: As for :meth:`read`.
        """
        found = TaskHistory()
        await self._advance(task_id, found, START, until=version)
        return found

    async def append(self, task_id: str, history: TaskHistory, entry: TaskEntry) -> None:
        """Append the write that follows a version, and take it into the history.

        Raises:
            ConcurrentTaskModificationError: Another write followed that version, or the task is
                gone.
            ChunkTooLargeError: It does not fit into a record of the backend.
            StreamqError: The backend does not answer. The write may be stored.
        """
        self._forget(task_id)
        stream, number = self._stream(task_id), history.version + 1
        data = await self._encoded(stream, number, entry)
        entries = [Entry(_EPOCH, number, data)]
        if number == 1:
            entries.insert(0, Entry(_EPOCH, 0, _opening()))
        retry = retry_policy(self._settings, self._queue, stream)
        append = partial(calling.append, self._queue, stream, entries, ttl=self._settings.ttl)
        try:
            await retry.run(append)
        except FencedError:
            raise ConcurrentTaskModificationError(task_id) from None
        # With what comes before it: a stream that is gone must not begin again in the middle.
        found = await self._page(stream, history.before, max_records=2)
        if len(found) == 1 and found[0].data == data:
            await retry.run(partial(calling.delete, self._queue, stream))
        if len(found) < 2 or found[1].data != data:
            raise ConcurrentTaskModificationError(task_id)
        history.position = found[0].position
        history.take(entry, found[1].position)
        self._keep(task_id, history)

    async def follow(self, task_id: str, position: str) -> AsyncGenerator[JournalEntry]:
        """Yield what is written after a position, without end.

        Raises:
            StreamqError: The backend does not answer, or a record is damaged.
        """
        stream = self._stream(task_id)
        while True:
            for stored in await self._page(stream, position, max_wait=_WAIT_SECONDS):
                position = stored.position
                if (found := await self._decoded(stream, stored)) is not None:
                    yield found

    async def newest(self) -> AsyncGenerator[tuple[str, JournalEntry]]:
        """Yield every task's id and newest write, in any order.

        Raises:
            StreamqError: The backend does not answer, or a record is damaged.
        """
        listing = calling.streams(self._queue, self._settings.tenant, self._prefix)
        async with aclosing(listing) as infos:
            async for info in infos:
                stream = info.stream
                retry = retry_policy(self._settings, self._queue, stream)
                try:
                    known = await retry.run(partial(calling.describe, self._queue, stream, last=1))
                except StreamNotFoundError:
                    continue  # it expired meanwhile
                if (found := await self._decoded(stream, known.last[0])) is not None:
                    yield stream.name.removeprefix(self._prefix), found

    async def delete(self, task_id: str) -> None:
        """Remove a task; no error if there is none.

        Raises:
            StreamqError: The backend does not answer.
        """
        self._forget(task_id)
        stream = self._stream(task_id)
        retry = retry_policy(self._settings, self._queue, stream)
        await retry.run(partial(calling.delete, self._queue, stream))

    def _stream(self, task_id: str) -> StreamId:
        return stream_id(f"{self._prefix}{task_id}", self._settings, self._queue)

    async def _go_on(self, task_id: str, history: TaskHistory) -> bool:
        """Read on after what is known; return whether that is still what is stored."""
        stream = self._stream(task_id)
        found = await self._page(stream, history.before, max_records=1)
        newest = await self._decoded(stream, found[0]) if found else None
        if newest is None or newest.entry.write != history.write:
            return False
        await self._advance(task_id, history, history.position)
        return True

    async def _advance(
        self, task_id: str, history: TaskHistory, position: str, *, until: int | None = None
    ) -> None:
        stream = self._stream(task_id)
        largest = self._queue.capabilities.max_record_bytes
        while True:
            page = await self._page(stream, position)
            for stored in page:
                position = stored.position
                found = await self._decoded(stream, stored)
                if found is None:
                    history.position = position
                elif found.version != history.version + 1:
                    raise CorruptRecordError(
                        f"version {history.version + 1} of task {task_id} is no longer stored",
                        stream=str(stream),
                    )
                else:
                    history.take(found.entry, position)
                if history.version == until:
                    return
            size = sum(len(stored.data) for stored in page)
            if len(page) < _PAGE_RECORDS and size + largest <= self._page_bytes:
                return

    @property
    def _page_bytes(self) -> int:
        return max(_PAGE_BYTES, 2 * self._queue.capabilities.max_record_bytes)

    async def _page(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int = _PAGE_RECORDS,
        max_wait: float = 0.0,
    ) -> Sequence[Stored]:
        retry = retry_policy(self._settings, self._queue, stream)
        read = partial(
            Reads(self._queue, stream).read,
            after,
            max_records=max_records,
            max_bytes=self._page_bytes,
            max_wait=max_wait,
        )
        return await retry.run(read, wait_seconds=max_wait)

    async def _encoded(self, stream: StreamId, number: int, entry: TaskEntry) -> bytes:
        serializer, codec = configured_conversion(self._settings, stream)
        chunk = serializer.encode(entry.to_json())
        record = Record(
            RecordKind.DATA,
            _EPOCH,
            restarts=False,
            attempt=1,
            seq=number - 1,
            offset=number,
            chunks=(chunk,),
        )
        if codec is not None:
            record = await conceal(record, codec, seconds=self._settings.operation_seconds)
        data = record.encode()
        if len(data) > (limit := self._queue.capabilities.max_record_bytes):
            raise ChunkTooLargeError(
                f"an event or a change of the task takes {len(data)} bytes, and backend "
                f"{self._queue.backend!r} stores {limit} at once; send large files by a url",
                backend=self._queue.backend,
                stream=str(stream),
            )
        return data

    async def _decoded(self, stream: StreamId, stored: Stored) -> JournalEntry | None:
        """Return a record's content; ``None`` for the one that opens the stream."""
        serializer, codec = configured_conversion(self._settings, stream)
        record = Record.decode(stored.data)
        if record.kind is RecordKind.OPEN or not record.chunks:
            return None
        record = await reveal(record, codec, seconds=self._settings.operation_seconds)
        entry = TaskEntry.from_json(serializer.decode(*record.chunks[0]))
        return JournalEntry(record.offset, stored.position, entry)

    def _taken(self, task_id: str) -> TaskHistory | None:
        if (found := self._cache.pop(task_id, None)) is None:
            return None
        history, size = found
        self._cached_bytes -= size
        return history

    def _forget(self, task_id: str) -> None:
        self._taken(task_id)

    def _keep(self, task_id: str, history: TaskHistory) -> None:
        self._forget(task_id)
        kept, size = history.copy(), history.task.ByteSize()
        self._cache[task_id] = (kept, size)
        self._cached_bytes += size
        while len(self._cache) > _CACHED_TASKS or self._cached_bytes > _CACHED_BYTES:
            _, (_, dropped) = self._cache.popitem(last=False)
            self._cached_bytes -= dropped


def _opening() -> bytes:
    now = int(time.time() * 1_000)
    nonce = secrets.token_bytes(8)
    opening = Record(RecordKind.OPEN, _EPOCH, restarts=False, created_ms=now, nonce=nonce)
    return opening.encode()
