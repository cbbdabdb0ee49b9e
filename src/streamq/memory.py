"""The memory driver: streams inside one process, for tests and to learn how a driver works.

It is small enough for one module; the parts of larger drivers are separate modules.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Annotated, NoReturn, TypeAlias
from weakref import WeakSet, WeakValueDictionary, finalize

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from .driver import (
    BEFORE_ALL,
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


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Waiter:
    """A blocked read, in any event loop. It is woken as long as the read refers to it."""

    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    beside: WeakSet[_Waiter] = field(default_factory=WeakSet)

    def wake(self) -> None:
        """Wake the read from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.woken.set)
        except RuntimeError:  # its loop has been closed, and its reads with it
            return


@dataclass(slots=True)
class _Stream:
    """Records of one stream; ``keys[i]`` identifies ``records[i]``."""

    expires_at: float
    keys: list[Key] = field(default_factory=list)
    records: list[Stored] = field(default_factory=list)
    size_bytes: int = 0


class _Store:
    """The streams that the queues of one name share. Callers of its methods hold :attr:`lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._streams: dict[StreamId, _Stream] = {}
        # Both weak: a read that ends, in whatever way, leaves nothing to clean up.
        self._waiters: WeakValueDictionary[StreamId, WeakSet[_Waiter]] = WeakValueDictionary()
        self._cost_bytes = 0

    def find(self, stream: StreamId, now: float) -> _Stream | None:
        """Return a stream unless it has expired."""
        found = self._streams.get(stream)
        return found if found is not None and found.expires_at > now else None

    def remove(self, stream: StreamId) -> None:
        """Remove a stream, if there is one."""
        found = self._streams.pop(stream, None)
        if found is not None:
            self._cost_bytes -= _cost(len(found.records), found.size_bytes)

    def append(
        self, stream: StreamId, entries: Sequence[Entry], ttl: timedelta, max_bytes: int
    ) -> None:
        """Add the entries that are new, all of them or none, and wake the stream's readers."""
        if not entries:
            return
        now = _now()
        found = self.find(stream, now)
        newest = found.keys[-1] if found is not None and found.keys else BEFORE_ALL
        fresh = new_entries(entries, newest, backend=_NAME, stream=stream)
        size = sum(len(entry.data) for entry in fresh)
        cost = _cost(len(fresh), size)
        if not self._has_room(cost, max_bytes, now):
            raise StorageFullError(
                f"the memory store holds {self._cost_bytes} of at most {max_bytes} bytes and "
                f"cannot take {cost} more; delete streams, shorten the TTL or raise "
                "STREAMQ_MEMORY_MAX_BYTES",
                backend=_NAME,
                stream=str(stream),
            )
        self._cost_bytes += cost
        if found is None:
            found = self._begin(stream, now)
        found.expires_at = now + ttl.total_seconds()
        for entry in fresh:
            key = (entry.epoch, entry.index)
            found.keys.append(key)
            found.records.append(Stored(encode_position(key), bytes(entry.data)))
        found.size_bytes += size
        for waiter in self._waiters.get(stream, ()):
            waiter.wake()

    def _begin(self, stream: StreamId, now: float) -> _Stream:
        """Return a new stream; one that has expired gives its room back."""
        self.remove(stream)
        begun = self._streams[stream] = _Stream(now)
        return begun

    def _has_room(self, cost: int, max_bytes: int, now: float) -> bool:
        """Whether so much more fits, if necessary after a sweep."""
        if self._cost_bytes + cost > max_bytes:
            self.sweep(now)
        return self._cost_bytes + cost <= max_bytes

    def select(
        self, stream: StreamId, after: Key, max_records: int, max_bytes: int
    ) -> list[Stored]:
        """Return the records after a key, within the bounds of a read."""
        found = self.find(stream, _now())
        if found is None:
            return []
        start = bisect_right(found.keys, after)
        rest = (found.records[at] for at in range(start, len(found.records)))
        return within_bounds(rest, max_records, max_bytes)

    def describe(self, stream: StreamId, last: int) -> StreamInfo | None:
        """Return what is known of a stream, or ``None`` if there is none."""
        now = _now()
        found = self.find(stream, now)
        if found is None:
            return None
        return StreamInfo(
            stream,
            tuple(islice(reversed(found.records), last)),
            len(found.records),
            found.size_bytes,
            timedelta(seconds=found.expires_at - now),
        )

    def names(self) -> list[StreamId]:
        """Return every stream; some may have expired."""
        return list(self._streams)

    def add_waiter(self, stream: StreamId, waiter: _Waiter) -> None:
        """Wake a read with the stream's next append."""
        waiter.beside = self._waiters.setdefault(stream, waiter.beside)
        waiter.beside.add(waiter)

    def sweep(self, now: float) -> int:
        """Remove every stream that has expired; return how many there were."""
        expired = [name for name in self._streams if self.find(name, now) is None]
        for name in expired:
            self.remove(name)
        return len(expired)


def _cost(records: int, size_bytes: int) -> int:
    """Return what records count against the store's bound."""
    return size_bytes + records * _RECORD_OVERHEAD_BYTES


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

    def wait_seconds(self, name: str, stream: StreamId, max_wait: float) -> float:
        """Return for how long a read waits: for a stream that went with an earlier store, less."""
        is_dropped = (name, stream) in self._dropped
        return min(max_wait, _DROPPED_SECONDS) if is_dropped else max_wait

    def found_nothing(self, stream: StreamId, waited: float, max_wait: float) -> list[Stored]:
        """Return no records, unless the read waited less than it was to wait."""
        if waited < max_wait:
            _raise_dropped(stream)
        return []

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
        self._waiting: WeakSet[_Waiter] = WeakSet()

    @contextlib.contextmanager
    def _locked(self, stream: StreamId | None = None) -> Iterator[_Store]:
        store = self._open_store
        if store is None:
            raise closed_error(_NAME, stream)
        with store.lock:
            yield store

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self._locked(stream) as store:
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
        wait = _stores.wait_seconds(self._name, stream, max_wait)
        deadline = loop.time() + wait
        while True:
            waiter = _Waiter(loop)
            with self._locked(stream) as store:
                found = store.select(stream, key, max_records, max_bytes)
                left = deadline - loop.time()
                if found or left <= 0:
                    return found or _stores.found_nothing(stream, wait, max_wait)
                store.add_waiter(stream, waiter)
            self._waiting.add(waiter)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await waiter.woken.wait()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with self._locked(stream) as store:
            info = store.describe(stream, last)
        if info is None:
            _raise_not_found(stream)
        return info

    async def delete(self, stream: StreamId) -> None:
        with self._locked(stream) as store:
            store.remove(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        with self._locked() as store:
            names = store.names()
        for name in names:
            if name.tenant == tenant and name.name.startswith(prefix):
                with self._locked() as store:
                    info = store.describe(name, 0)
                if info is not None:
                    yield info

    async def sweep(self) -> int:
        with self._locked() as store:
            return store.sweep(_now())

    async def aclose(self) -> None:
        self._open_store = None
        for waiter in self._waiting:
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
