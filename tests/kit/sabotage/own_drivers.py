"""Puts the faults that once passed the kit into streamq's own memory and SQLite drivers.

``test_own_drivers_sabotaged.py`` runs the suites, each of which has to fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.drivers.test_memory import MemoryHarness
from tests.drivers.test_sqlite_conformance import SqliteHarness

from streamq import memory
from streamq._sqlite import _listening as listening
from streamq._sqlite import _queue as sqlite_queue
from streamq._sqlite import _reading as sqlite_reading
from streamq._sqlite import _requests as requests
from streamq._sqlite import _writing as sqlite_writing
from streamq.driver import (
    ChunkQueue,
    Entry,
    FencedError,
    Stored,
    StreamId,
    StreamInfo,
    closed_error,
)
from streamq.testing import DriverSuite

_PAGE = 512
_SLOWLY_SECONDS = 0.08

Sabotage = Callable[[pytest.MonkeyPatch], None]


def remember_the_newest_entry(patch: pytest.MonkeyPatch, queue: type[ChunkQueue]) -> None:
    """Let each connection compare entries with the newest one that it has stored itself."""
    append = queue.append

    async def remembering(
        self: Any, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        known: dict[StreamId, tuple[int, int]] = self.__dict__.setdefault("_remembered", {})
        newest = known.get(stream, (0, -1))
        if entries and entries[0].epoch < newest[0]:
            raise FencedError("an older one", backend=self.backend, stream=str(stream))
        fresh = [entry for entry in entries if (entry.epoch, entry.index) > newest]
        await append(self, stream, fresh, ttl=ttl)
        if fresh:
            known[stream] = max(newest, (fresh[-1].epoch, fresh[-1].index))

    patch.setattr(queue, "append", remembering)


def _memory_remembers(patch: pytest.MonkeyPatch) -> None:
    remember_the_newest_entry(patch, memory._MemoryQueue)


def _memory_serves_expired_pages(patch: pytest.MonkeyPatch) -> None:
    select = memory._Store.select

    def page(
        self: Any, stream: StreamId, after: memory.Key, max_records: int, max_bytes: int
    ) -> list[Stored]:
        found = self._streams.get(stream)
        if found is not None:
            rest = [
                each for key, each in zip(found.keys, found.records, strict=True) if key > after
            ]
            if len(rest) > max_records:
                return rest[:max_records]
        return select(self, stream, after, max_records, max_bytes)

    patch.setattr(memory._Store, "select", page)


def _memory_stops_at_a_page(patch: pytest.MonkeyPatch) -> None:
    select = memory._Store.select

    def page(
        self: Any, stream: StreamId, after: memory.Key, max_records: int, max_bytes: int
    ) -> list[Stored]:
        return select(self, stream, after, min(max_records, _PAGE), max_bytes)

    patch.setattr(memory._Store, "select", page)


def _memory_describes_a_page(patch: pytest.MonkeyPatch) -> None:
    describe = memory._Store.describe
    patch.setattr(
        memory._Store, "describe", lambda self, stream, last: describe(self, stream, min(last, 50))
    )


def _memory_wakes_before_it_stores(patch: pytest.MonkeyPatch) -> None:
    append, wait = memory._MemoryQueue.append, memory._Waiter.wake

    async def early(
        self: Any, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self._locked() as store:
            for waiter in store._waiters.get(stream, ()):
                wait(waiter)
        await asyncio.sleep(0)
        patch.setattr(memory._Waiter, "wake", lambda self: None)
        try:
            await append(self, stream, entries, ttl=ttl)
        finally:
            patch.setattr(memory._Waiter, "wake", wait)

    patch.setattr(memory._MemoryQueue, "append", early)


def _memory_wakes_one_of_several(patch: pytest.MonkeyPatch) -> None:
    store = memory._Store.append

    def append(self: Any, stream: StreamId, *args: Any) -> None:
        waiters = self._waiters
        self._waiters = {stream: [*waiters.get(stream, ())][:1]}
        try:
            store(self, stream, *args)
        finally:
            self._waiters = waiters

    patch.setattr(memory._Store, "append", append)


def _memory_keeps_the_loop(patch: pytest.MonkeyPatch) -> None:
    async def append(
        self: Any, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self._locked() as store:
            store.append(stream, entries, ttl or self._options.ttl, self._max_bytes)

    patch.setattr(memory._MemoryQueue, "append", append)


def _memory_listens_after_it_has_looked(patch: pytest.MonkeyPatch) -> None:
    read = memory._MemoryQueue.read

    async def late(self: Any, stream: StreamId, after: str, **bounds: Any) -> Sequence[Stored]:
        found = await read(self, stream, after, **{**bounds, "max_wait": 0})
        if found or not bounds["max_wait"]:
            return found
        await asyncio.sleep(0)
        until = asyncio.get_running_loop().time() + bounds["max_wait"]
        waiter = memory._Waiter(asyncio.get_running_loop())
        with self._locked() as store:
            store.add_waiter(stream, waiter)
        self._waiting.add(waiter)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await waiter.woken.wait()
        if self._open_store is None:
            raise closed_error(self.backend)
        return await read(self, stream, after, **{**bounds, "max_wait": 0})

    patch.setattr(memory._MemoryQueue, "read", late)


def _sqlite_remembers(patch: pytest.MonkeyPatch) -> None:
    remember_the_newest_entry(patch, sqlite_queue.SqliteQueue)


def _sqlite_serves_expired_pages(patch: pytest.MonkeyPatch) -> None:
    select = requests.select

    def page(
        connection: sqlite3.Connection,
        stream: StreamId,
        after: Any,
        max_records: int,
        max_bytes: int,
    ) -> list[Stored]:
        with pytest.MonkeyPatch.context() as unaware:
            unaware.setattr(requests, "now_ms", lambda: 0)
            rest = select(connection, stream, after, max_records + 1, 2**40)
        if len(rest) > max_records:
            return rest[:max_records]
        return select(connection, stream, after, max_records, max_bytes)

    patch.setattr(requests, "select", page)


def _sqlite_stops_at_a_page(patch: pytest.MonkeyPatch) -> None:
    select = requests.select
    patch.setattr(
        requests,
        "select",
        lambda connection, stream, after, max_records, max_bytes: select(
            connection, stream, after, min(max_records, _PAGE), max_bytes
        ),
    )


def _sqlite_describes_a_page(patch: pytest.MonkeyPatch) -> None:
    describe = requests.describe

    def page(connection: sqlite3.Connection, stream: StreamId, last: int) -> StreamInfo:
        return dataclasses.replace(describe(connection, stream, min(last, 50)))

    patch.setattr(requests, "describe", page)


def _sqlite_wakes_before_it_stores(patch: pytest.MonkeyPatch) -> None:
    commit = sqlite_writing.WritingThread._commit

    def early(self: Any, jobs: Any) -> None:
        self._ring()
        time.sleep(_SLOWLY_SECONDS / 4)
        with pytest.MonkeyPatch.context() as mute:
            mute.setattr(self, "_ring", lambda: None)
            commit(self, jobs)

    patch.setattr(listening, "_POLL_SECONDS", 1_000.0)  # it is there for lost wake-ups
    patch.setattr(sqlite_writing.WritingThread, "_commit", early)


def _sqlite_listens_after_it_has_looked(patch: pytest.MonkeyPatch) -> None:
    begin = sqlite_reading.ReadingThread._begin_read

    def slowly(self: Any, connection: sqlite3.Connection, read: Any) -> Any:
        answers = begin(self, connection, read)
        if not answers:
            time.sleep(_SLOWLY_SECONDS)
            # What was stored meanwhile is taken for known.
            self._live_tail.newest = requests.newest_record(connection)
        return answers

    patch.setattr(listening, "_POLL_SECONDS", 1_000.0)
    patch.setattr(sqlite_reading.ReadingThread, "_begin_read", slowly)


SABOTAGED: dict[str, tuple[type, Sabotage, str]] = {
    "MemoryRemembersTheNewestEntry": (
        MemoryHarness,
        _memory_remembers,
        "append_after_another_connection_has_deleted_begins_anew",
    ),
    "MemoryServesExpiredPages": (
        MemoryHarness,
        _memory_serves_expired_pages,
        "expired_stream_is_gone_by_every_path",
    ),
    "MemoryStopsAtAPage": (
        MemoryHarness,
        _memory_stops_at_a_page,
        "read_returns_more_than_a_page_of_the_server",
    ),
    "MemoryDescribesAPage": (
        MemoryHarness,
        _memory_describes_a_page,
        "describe_and_delete_go_beyond_a_page_of_the_server",
    ),
    "MemoryWakesBeforeItStores": (
        MemoryHarness,
        _memory_wakes_before_it_stores,
        "blocked_readers_get_a_record_that_is_stored_late",
    ),
    "MemoryListensAfterItHasLooked": (
        MemoryHarness,
        _memory_listens_after_it_has_looked,
        "append_is_not_missed_wherever_a_read_is",
    ),
    "MemoryWakesOneOfSeveral": (
        MemoryHarness,
        _memory_wakes_one_of_several,
        "append_wakes_every_read_that_waits_for_the_stream",
    ),
    "MemoryKeepsTheLoop": (MemoryHarness, _memory_keeps_the_loop, "producer_lets_other_tasks_run"),
    "SqliteRemembersTheNewestEntry": (
        SqliteHarness,
        _sqlite_remembers,
        "append_after_another_connection_has_deleted_begins_anew",
    ),
    "SqliteServesExpiredPages": (
        SqliteHarness,
        _sqlite_serves_expired_pages,
        "expired_stream_is_gone_by_every_path",
    ),
    "SqliteStopsAtAPage": (
        SqliteHarness,
        _sqlite_stops_at_a_page,
        "read_returns_more_than_a_page_of_the_server",
    ),
    "SqliteDescribesAPage": (
        SqliteHarness,
        _sqlite_describes_a_page,
        "describe_and_delete_go_beyond_a_page_of_the_server",
    ),
    "SqliteWakesBeforeItStores": (
        SqliteHarness,
        _sqlite_wakes_before_it_stores,
        "blocked_readers_get_a_record_that_is_stored_late",
    ),
    "SqliteListensAfterItHasLooked": (
        SqliteHarness,
        _sqlite_listens_after_it_has_looked,
        "append_wakes_every_read_that_waits_for_the_stream",
    ),
}
"""For each driver with a fault: its harness, the fault, and the check that catches it."""


def suite_of(name: str, harness: type, sabotage: Sabotage) -> type[DriverSuite]:
    """Return the suite for one of them."""

    class Suite(DriverSuite):
        harness_type = type("Harness", (harness,), {"patience_seconds": 3.0})
        virtual_time = harness is MemoryHarness

        @pytest.fixture(autouse=True)
        def _sabotaged(self, monkeypatch: pytest.MonkeyPatch) -> None:
            sabotage(monkeypatch)

    Suite.__name__ = Suite.__qualname__ = f"Test{name}"
    return Suite


for _name, (_harness, _sabotage, _) in SABOTAGED.items():
    globals()[f"Test{_name}"] = suite_of(_name, _harness, _sabotage)
