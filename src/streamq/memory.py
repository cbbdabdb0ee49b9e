"""The memory driver: streams inside one process, for tests and to learn how a driver works.

It is small enough for one module; the parts of larger drivers are separate modules.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import os
import threading
from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, NoReturn, TypeAlias
from weakref import WeakValueDictionary, finalize

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from .driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    DriverSettings,
    Entry,
    Finding,
    LatencyClass,
    QueueOptions,
    StorageFullError,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    closed_error,
    decode_position,
    encode_position,
    new_entries,
    within_bounds,
)

_NAME = "memory"
_RECORD_OVERHEAD_BYTES = 200  # so that empty records are bounded as well
_SWEEP_SECONDS = 1.0
_DROPPED_SECONDS = 1.0
_MAX_DROPPED = 10_000

Key: TypeAlias = tuple[int, int]
"""Epoch and index of a record."""

_CAPABILITIES = Capabilities(
    replay=True,
    fan_out=True,
    ordered=True,
    fenced=True,
    durable=False,
    cross_process=False,
    cross_host=False,
    expires=True,
    max_record_bytes=64 * 2**20,
    latency=LatencyClass.MICROSECONDS,
)


class MemorySettings(DriverSettings):
    """Settings of the memory driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_MEMORY_")

    toml_table = "memory"

    store: Annotated[str, Field(min_length=1)] = Field(
        default="default",
        description="queues of one process with the same store name share their streams",
    )
    max_bytes: Annotated[int, Field(gt=0)] = Field(
        default=256 * 2**20, description="bytes that the store holds before an append is refused"
    )


@dataclass(slots=True, eq=False)
class _Waiter:
    """A blocked read, in any event loop."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]

    def wake(self) -> None:
        """Wake the read from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # its loop has been closed, and its reads with it
            return

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


@dataclass(slots=True)
class _Stream:
    """Records of one stream; ``keys[i]`` identifies ``records[i]``."""

    expires_at: float
    keys: list[Key] = field(default_factory=list)
    records: list[Stored] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def cost_bytes(self) -> int:
        """What the stream counts against the store's bound."""
        return self.size_bytes + len(self.records) * _RECORD_OVERHEAD_BYTES


class _Store:
    """The streams that the queues of one name share. Callers of its methods hold :attr:`lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._streams: dict[StreamId, _Stream] = {}
        self._waiters: dict[StreamId, set[_Waiter]] = {}
        self._cost_bytes = 0
        self._next_sweep = 0.0

    def find(self, stream: StreamId) -> _Stream | None:
        """Return a stream unless it has expired."""
        found = self._streams.get(stream)
        if found is not None and found.expires_at <= _now():
            self.remove(stream)
            return None
        return found

    def remove(self, stream: StreamId) -> None:
        """Remove a stream, if there is one."""
        found = self._streams.pop(stream, None)
        if found is not None:
            self._cost_bytes -= found.cost_bytes

    def append(
        self, stream: StreamId, entries: Sequence[Entry], ttl: timedelta, max_bytes: int
    ) -> None:
        """Add the entries that are new, all of them or none, and wake the stream's readers."""
        if not entries:
            return
        now = _now()
        if now >= self._next_sweep:
            self.sweep(now)
        found = self.find(stream)
        keys = found.keys if found is not None else []
        newest = keys[-1] if keys else (0, -1)
        fresh = new_entries(entries, newest, backend=_NAME, stream=stream)
        size = sum(len(entry.data) for entry in fresh)
        cost = size + len(fresh) * _RECORD_OVERHEAD_BYTES
        if self._cost_bytes + cost > max_bytes:
            self.sweep(now)
            if self._cost_bytes + cost > max_bytes:
                raise StorageFullError(
                    f"the memory store holds {self._cost_bytes} of at most {max_bytes} bytes and "
                    f"cannot take {cost} more; delete streams, shorten the TTL or raise "
                    "STREAMQ_MEMORY_MAX_BYTES",
                    backend=_NAME,
                    stream=str(stream),
                )
        if found is None:
            found = self._streams[stream] = _Stream(now)
        found.expires_at = now + ttl.total_seconds()
        found.size_bytes += size
        self._cost_bytes += cost
        for entry in fresh:
            key = (entry.epoch, entry.index)
            found.keys.append(key)
            found.records.append(Stored(encode_position(key), bytes(entry.data)))
        for waiter in self._waiters.get(stream, ()):
            waiter.wake()

    def select(
        self, stream: StreamId, after: Key, max_records: int, max_bytes: int
    ) -> list[Stored]:
        """Return the records after a key, within the bounds of a read."""
        found = self.find(stream)
        if found is None:
            return []
        start = bisect_right(found.keys, after)
        return within_bounds(found.records[start : start + max_records], max_records, max_bytes)

    def describe(self, stream: StreamId, last: int) -> StreamInfo | None:
        """Return what is known of a stream, or ``None`` if there is none."""
        found = self.find(stream)
        if found is None:
            return None
        return StreamInfo(
            stream,
            tuple(reversed(found.records[-last:])) if last > 0 else (),
            len(found.records),
            found.size_bytes,
            timedelta(seconds=max(0.0, found.expires_at - _now())),
        )

    def names(self) -> list[StreamId]:
        """Return every stream; some may have expired."""
        return list(self._streams)

    def add_waiter(self, stream: StreamId, waiter: _Waiter) -> None:
        """Wake a read with the stream's next append."""
        self._waiters.setdefault(stream, set()).add(waiter)

    def discard_waiter(self, stream: StreamId, waiter: _Waiter) -> None:
        """Wake a read no longer."""
        waiters = self._waiters[stream]
        waiters.discard(waiter)
        if not waiters:
            del self._waiters[stream]

    def sweep(self, now: float) -> int:
        """Remove every stream that has expired; return how many there were."""
        self._next_sweep = now + _SWEEP_SECONDS
        expired = [name for name, found in self._streams.items() if found.expires_at <= now]
        for name in expired:
            self.remove(name)
        return len(expired)


class _Stores:
    """The stores of all open queues; a store is removed with its last queue."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew in a forked child: a copy of the parent's streams would have no writer."""
        self._lock = threading.Lock()
        self._stores: WeakValueDictionary[str, _Store] = WeakValueDictionary()
        self._dropped: dict[tuple[str, StreamId], None] = {}

    def get(self, name: str) -> _Store:
        """Return the store of a name; create it if no queue has it open."""
        with self._lock:
            store = self._stores.get(name)
            if store is None:
                store = self._stores[name] = _Store()
                finalize(store, self._on_dropped, name, store._streams).atexit = False
            return store

    def was_dropped(self, name: str, stream: StreamId) -> bool:
        """Whether a stream went with the last queue of an earlier store."""
        return (name, stream) in self._dropped

    def begin(self, name: str, stream: StreamId) -> None:
        """Note that a stream is there, maybe again."""
        self._dropped.pop((name, stream), None)

    def _on_dropped(self, name: str, streams: Collection[StreamId]) -> None:
        # Without the lock: the garbage collector may call this while it is held.
        self._dropped.update(dict.fromkeys((name, stream) for stream in tuple(streams)))
        for oldest in tuple(self._dropped)[:-_MAX_DROPPED]:
            self._dropped.pop(oldest, None)

    def __contains__(self, name: str) -> bool:
        return name in self._stores


_stores = _Stores()
os.register_at_fork(after_in_child=_stores.reset)


class _MemoryQueue(ChunkQueue):
    """Streams in a store of this process."""

    backend = _NAME

    def __init__(self, options: QueueOptions, settings: MemorySettings, store: _Store) -> None:
        self.capabilities = _CAPABILITIES
        self._options = options
        self._name = settings.store
        self._max_bytes = settings.max_bytes
        self._open_store: _Store | None = store
        self._waiting: set[_Waiter] = set()

    @property
    def _store(self) -> _Store:
        if self._open_store is None:
            raise closed_error(_NAME)
        return self._open_store

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with (store := self._store).lock:
            store.append(stream, entries, ttl or self._options.ttl, self._max_bytes)
        _stores.begin(self._name, stream)
        # Let other tasks of this loop run: a producer must not starve its readers.
        await asyncio.sleep(0)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        key = decode_position(after, backend=_NAME, stream=stream)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max_wait
        give_up = loop.time() + _DROPPED_SECONDS
        while True:
            store = self._store
            waiter = _Waiter(loop, loop.create_future())
            with store.lock:
                found = store.select(stream, key, max_records, max_bytes)
                left = deadline - loop.time()
                if found or left <= 0:
                    return found
                if _stores.was_dropped(self._name, stream) and give_up <= loop.time():
                    _raise_dropped(stream)
                store.add_waiter(stream, waiter)
            self._waiting.add(waiter)
            try:
                await asyncio.wait((waiter.future,), timeout=min(left, _DROPPED_SECONDS))
            finally:
                self._waiting.discard(waiter)
                with store.lock:
                    store.discard_waiter(stream, waiter)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with (store := self._store).lock:
            info = store.describe(stream, last)
        if info is None:
            _raise_not_found(stream)
        return info

    async def delete(self, stream: StreamId) -> None:
        with (store := self._store).lock:
            store.remove(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        with (store := self._store).lock:
            names = store.names()
        for name in names:
            if name.tenant == tenant and name.name.startswith(prefix):
                with store.lock:
                    info = store.describe(name, 0)
                if info is not None:
                    yield info

    async def sweep(self) -> int:
        with (store := self._store).lock:
            return store.sweep(_now())

    async def aclose(self) -> None:
        self._open_store = None
        for waiter in tuple(self._waiting):
            waiter.wake()


def _now() -> float:
    # The clock of the running loop: the same in all of them, and one that tests can control.
    return asyncio.get_running_loop().time()


def _raise_not_found(stream: StreamId) -> NoReturn:
    text = f"there is no stream {stream} in this process's memory, or it has expired"
    raise StreamNotFoundError(text, backend=_NAME, stream=str(stream))


def _raise_dropped(stream: StreamId) -> NoReturn:
    text = (
        f"stream {stream} was in this process's memory until the last queue was closed; keep one "
        "open as long as it is needed, also between two calls of asyncio.run(), or use sqlite"
    )
    raise StreamNotFoundError(text, backend=_NAME, stream=str(stream))


class MemoryDriver(Driver[MemorySettings]):
    """Streams in the memory of one process, gone when its last queue is closed.

    Queues may live in different event loops and threads. A reader that waits for a stream which
    went with the last queue gets ``StreamNotFoundError`` after a second. A forked child has none.
    """

    name = _NAME
    summary = "in this process's memory; for tests and demos"
    capabilities = _CAPABILITIES
    settings_type = MemorySettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: MemorySettings) -> ChunkQueue:
        """Return a queue on the named store; the first queue creates the store."""
        return _MemoryQueue(options, settings, _stores.get(settings.store))

    @classmethod
    async def examine(cls, options: QueueOptions, settings: MemorySettings) -> Sequence[Finding]:
        """Say what the backend cannot do."""
        detail = "each process has its own streams, which are gone with its last queue"
        remedy = "take sqlite, or a server"
        return (Finding("memory", True, detail, remedy, is_warning=True),)
