"""The SQLite driver: the conformance suite, and what is special about one file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import ConfigurationError
from streamq._sqlite import _errors as sqlite_errors
from streamq._sqlite import _store as sqlite_store
from streamq._sqlite import _tail as sqlite_tail
from streamq._sqlite import _writing as sqlite_writing
from streamq._sqlite._wakeup import Doorbells
from streamq.driver import (
    START,
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ChunkQueue,
    Entry,
    QueueOptions,
    StorageFullError,
    StreamId,
    StreamqError,
)
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import BackendHarness, DriverSuite, OpenQueue, queue_factory

STREAM = StreamId("test", "stream")
_ID = "(SELECT id FROM streams WHERE tenant = ? AND name = ?)"

_WRITER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from streamq.driver import Entry, QueueOptions, StreamId
from streamq.sqlite import SqliteDriver, SqliteSettings

async def main(path, name, count, batch):
    options = QueueOptions(ttl=timedelta(minutes=5))
    queue = await SqliteDriver.open(options, SqliteSettings(path=Path(path)))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for first in range(0, int(count), int(batch)):
        numbers = range(first, first + int(batch))
        entries = [Entry(1, number, b"%d" % number) for number in numbers]
        await queue.append(StreamId("test", name), entries)
        print(numbers[-1], flush=True)
    await queue.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class SqliteHarness(BackendHarness):
    """A database in the check's own directory."""

    driver = SqliteDriver
    short_ttl = timedelta(seconds=0.4)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory / "streams.db"

    def settings(self) -> SqliteSettings:
        """Return settings that lead to the database."""
        return SqliteSettings(path=self.path, busy_seconds=0.5)

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return what is in the table."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute(
                f"SELECT data FROM records WHERE stream = {_ID} ORDER BY epoch, idx",
                (stream.tenant, stream.name),
            )
            return [row[0] for row in rows]

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Delete the oldest rows."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                f"DELETE FROM records WHERE stream = {_ID} AND id NOT IN (SELECT id FROM records "
                f"WHERE stream = {_ID} ORDER BY epoch DESC, idx DESC LIMIT ?)",
                (stream.tenant, stream.name, stream.tenant, stream.name, keep),
            )

    async def restart(self) -> None:
        """Go on with the files as they are at this moment, which is what `kill -9` leaves."""
        crashed = self.path.with_name(f"after-{self.path.name}")
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{crashed}{suffix}")
        self.path = crashed

    @asynccontextmanager
    async def full(self) -> AsyncIterator[SqliteSettings]:
        """Let connections that are opened now write no further than the file is long."""
        connect = sqlite_store.connect

        def connect_to_full_disk(
            path: Path, *, synchronous: str, busy_seconds: float
        ) -> sqlite3.Connection:
            connection = connect(path, synchronous=synchronous, busy_seconds=busy_seconds)
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 40}")
            return connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite_store, "connect", connect_to_full_disk)
            yield self.settings()

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[SqliteSettings]:
        """Take the permission to write to the directory away."""
        self.directory.chmod(0o500)
        try:
            if os.access(self.directory, os.W_OK):
                pytest.skip("this user may write to read-only directories (root)")
            yield self.settings()
        finally:
            self.directory.chmod(0o700)


class TestConformance(DriverSuite):
    """The driver contract."""

    harness_type = SqliteHarness


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the test's database is."""
    return tmp_path / "streams.db"


@pytest.fixture
async def open_queue(path: Path) -> AsyncIterator[OpenQueue]:
    """Open queues on the test's database."""
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        yield open_queue


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocked reads depend on being woken."""
    monkeypatch.setattr(sqlite_tail, "_POLL_SECONDS", 600.0)


@asynccontextmanager
async def writer_process(
    path: Path, stream: StreamId, count: int, batch: int = 1
) -> AsyncIterator[tuple[Process, Callable[[], Awaitable[bytes]]]]:
    """Run a process that appends numbers, once it gets a line; yield it and its `readline`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _WRITER, str(path), stream.name, str(count), str(batch)),
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"open\n"
        yield process, process.stdout.readline
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def start(process: Process) -> None:
    """Let a writer process begin."""
    assert process.stdin is not None
    process.stdin.write(b"\n")


def count_of(path: Path, data: bytes) -> int:
    """Count records in the file, also those that no stream shows any more."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT count(*) FROM records WHERE data = ?", (data,))
        return int(rows.fetchone()[0])


def mode_of(path: Path) -> int:
    """Return the permission bits of a file or directory."""
    return path.stat().st_mode & 0o777


def exists(path: Path) -> bool:
    """Tell whether there is a file or directory."""
    return path.exists()


def damage(path: Path) -> None:
    """Overwrite all but the first pages of a database."""
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))


async def read_all(queue: ChunkQueue, stream: StreamId = STREAM) -> list[bytes]:
    """Read what is stored now."""
    records = await queue.read(stream, START, max_records=1_000_000, max_bytes=2**30, max_wait=0)
    return [record.data for record in records]


async def blocked_read(queue: ChunkQueue) -> asyncio.Task[list[bytes]]:
    """Start a read of the test's stream and give it time to block."""

    async def read() -> list[bytes]:
        records = await queue.read(STREAM, START, max_records=1, max_bytes=1000, max_wait=60)
        return [record.data for record in records]

    task = asyncio.ensure_future(read())
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()
    return task


# -- several processes -------------------------------------------------------------------------


async def test_append_in_another_process_wakes_a_read(
    path: Path, open_queue: OpenQueue, no_poll: None
) -> None:
    """Worker and gateway are two processes; without a wake-up, tokens would come once a second."""
    queue = await open_queue()
    async with writer_process(path, STREAM, 1) as (process, _):
        read = await blocked_read(queue)
        start(process)
        async with asyncio.timeout(20):
            assert await read == [b"0"]


async def test_deep_directories_still_get_wake_ups(tmp_path: Path, no_poll: None) -> None:
    """The address of a Unix socket is limited to about 100 bytes, and paths in CI are longer."""
    path = tmp_path / ("d" * 100) / "streams.db"
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        async with writer_process(path, STREAM, 1) as (process, _):
            read = await blocked_read(queue)
            assert mode_of(Doorbells(path).directory) == 0o700
            start(process)
            async with asyncio.timeout(20):
                assert await read == [b"0"]


async def test_killed_writer_leaves_every_acknowledged_record(
    path: Path, open_queue: OpenQueue
) -> None:
    """`durable` means this: kill -9 in the middle of appends loses nothing and tears nothing."""
    queue = await open_queue()
    async with writer_process(path, STREAM, 1_000_000, batch=3) as (process, readline):
        start(process)
        acknowledged = b"-1"
        async with asyncio.timeout(30):
            while int(acknowledged) < 300:
                acknowledged = await readline()
        process.kill()
        await process.wait()
        while line := await readline():
            acknowledged = line if line.endswith(b"\n") else acknowledged
    found = await read_all(queue)
    assert len(found) > int(acknowledged)
    assert len(found) % 3 == 0
    assert found == [b"%d" % i for i in range(len(found))]
    await queue.append(STREAM, [Entry(2, 0, b"next attempt")])
    assert (await read_all(queue))[-1] == b"next attempt"


async def test_two_processes_append_at_once(path: Path, open_queue: OpenQueue) -> None:
    """SQLite has one writer at a time; workers on one machine must take turns without errors."""
    queue = await open_queue()
    streams = [StreamId("test", f"s{i}") for i in range(3)]
    async with (
        writer_process(path, streams[0], 300) as (first, _),
        writer_process(path, streams[1], 300) as (second, _),
    ):
        start(first)
        start(second)
        for i in range(300):
            await queue.append(streams[2], [Entry(1, i, b"%d" % i)])
        async with asyncio.timeout(60):
            await asyncio.gather(first.communicate(), second.communicate())
    for stream in streams:
        assert await read_all(queue, stream) == [b"%d" % i for i in range(300)]


async def test_many_can_create_the_file_at_once(open_queue: OpenQueue) -> None:
    """All workers start together after a deployment."""
    queues = await asyncio.gather(*(open_queue() for _ in range(12)))
    for i, queue in enumerate(queues):
        await queue.append(STREAM, [Entry(1, i, b"%d" % i)])
    assert await read_all(queues[0]) == [b"%d" % i for i in range(12)]


# -- waking up ---------------------------------------------------------------------------------


async def test_lost_wake_up_costs_time_but_no_data(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wake-up is only a hint: where the system refuses it, readers look by themselves."""
    monkeypatch.setattr(Doorbells, "ring", lambda self: None)
    monkeypatch.setattr(sqlite_tail, "_POLL_SECONDS", 0.05)
    queue, other = await open_queue(), await open_queue()
    read = await blocked_read(queue)
    await other.append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]


async def test_reader_polls_where_it_cannot_have_a_doorbell(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox may forbid sockets; streaming gets slower there, and goes on."""
    monkeypatch.setattr(Doorbells, "install", lambda self: None)
    queue, other = await open_queue(), await open_queue()
    read = await blocked_read(queue)
    await other.append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]


async def test_doorbells_of_dead_processes_are_removed(path: Path, open_queue: OpenQueue) -> None:
    """Killed readers leave sockets behind, which would slow every append for ever."""
    queue = await open_queue()
    read = await blocked_read(queue)
    directory = Doorbells(path).directory
    dead = directory / "dead.bell"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
        left_behind.bind(os.fspath(dead))
    assert dead.exists()
    await queue.append(STREAM, [Entry(1, 0, b"x")])
    assert await read == [b"x"]
    assert not dead.exists()


async def test_closing_takes_the_doorbell_away(path: Path, open_queue: OpenQueue) -> None:
    """What a process puts next to the database, it removes."""
    queue = await open_queue()
    read = await blocked_read(queue)
    directory = Doorbells(path).directory
    assert len(os.listdir(directory)) == 1
    await queue.aclose()
    await asyncio.gather(read, return_exceptions=True)
    assert not exists(directory)


async def test_doorbell_is_taken_away_when_nobody_waits(
    path: Path, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that polled once must not be woken by every append of the machine ever after."""
    monkeypatch.setattr(sqlite_tail, "_KEEP_BELL_SECONDS", 0.02)
    queue = await open_queue()
    read = await blocked_read(queue)
    read.cancel()
    async with asyncio.timeout(20):
        while exists(Doorbells(path).directory):  # noqa: ASYNC110 - files have no event
            await asyncio.sleep(0.01)
    read = await blocked_read(queue)
    await (await open_queue()).append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]


async def test_closing_leaves_one_complete_file(path: Path, open_queue: OpenQueue) -> None:
    """People copy the file; a log left beside it would hold the newest streams back."""
    for i in range(20):
        queue = await open_queue()
        await queue.append(STREAM, [Entry(1, i, b"%d" % i)])
        await queue.aclose()
        assert os.listdir(path.parent) == [path.name]


# -- what can be wrong with the file -----------------------------------------------------------


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    """A wrong path must neither destroy the file nor end in a traceback of sqlite3."""
    path.write_bytes(b"not a database " * 100)
    options = QueueOptions(ttl=timedelta(minutes=1))
    with pytest.raises(BackendError, match="STREAMQ_SQLITE_PATH"):
        asyncio.run(SqliteDriver.open(options, SqliteSettings(path=path)))
    assert path.read_bytes() == b"not a database " * 100


async def test_damaged_file_is_reported(path: Path, open_queue: OpenQueue) -> None:
    """A damaged disk is an error with a next step, not missing chunks."""
    queue = await open_queue()
    await queue.append(STREAM, [Entry(1, i, b"x" * 1000) for i in range(200)])
    await queue.aclose()
    damage(path)
    queue = await open_queue()
    with pytest.raises(BackendError, match="damaged"):
        await read_all(queue)


async def test_newer_schema_is_refused(path: Path, open_queue: OpenQueue) -> None:
    """After a downgrade, the old version must not write what the new one cannot read."""
    await (await open_queue()).aclose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_store.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigurationError, match="upgrade streamq"):
        await open_queue()


async def test_database_of_another_application_is_refused(
    path: Path, open_queue: OpenQueue
) -> None:
    """Our tables have no place in somebody else's database."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(ConfigurationError, match="another application"):
        await open_queue()


@pytest.mark.parametrize("bad", [".", "file/below.db", ":memory:", "file:x?mode=memory", "a\0b"])
async def test_impossible_path_is_refused(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error in the path is a matter of configuration, said at open."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    async with queue_factory(SqliteDriver, SqliteSettings(path=Path(bad))) as open_queue:
        with pytest.raises(ConfigurationError, match="STREAMQ_SQLITE_PATH"):
            await open_queue()


async def test_read_only_directory_is_refused(path: Path, open_queue: OpenQueue) -> None:
    """Containers run with read-only file systems; the message has to say which path."""
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write to read-only directories (root)")
        with pytest.raises(AccessDeniedError, match="read-only"):
            await open_queue()
    finally:
        path.parent.chmod(0o700)


async def test_missing_directories_are_created(tmp_path: Path) -> None:
    """The first run needs no setup; what the stream holds is for its owner only."""
    path = tmp_path / "a" / "b" / "streams.db"
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        await open_queue()
    assert mode_of(path.parent) == 0o700


# -- trouble while open ------------------------------------------------------------------------


async def test_lock_held_by_another_process_is_unavailable_and_passes(path: Path) -> None:
    """Somebody's backup tool may lock the file; core retries, and aclose does not wait for it."""
    settings = SqliteSettings(path=path, busy_seconds=0.05)
    async with queue_factory(SqliteDriver, settings) as open_queue:
        queue = await open_queue()
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailableError, match="BUSY") as caught:
            await queue.append(STREAM, [Entry(1, 0, b"x")])
        assert (caught.value.stream, caught.value.retryable) == (str(STREAM), True)
        locker.execute("ROLLBACK")
        locker.close()
        await queue.append(STREAM, [Entry(1, 0, b"x")])
        assert await read_all(queue) == [b"x"]


async def test_aclose_does_not_wait_for_a_lock(path: Path) -> None:
    """A shutdown has seconds; the append that waits for the lock is finished by its thread."""
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        locker = sqlite3.connect(path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        append = asyncio.ensure_future(queue.append(STREAM, [Entry(1, 0, b"x")]))
        await asyncio.sleep(0)
        started = time.monotonic()
        await queue.aclose()
        assert time.monotonic() - started < 2
        locker.execute("ROLLBACK")
        locker.close()
        await append
        assert await read_all(await open_queue()) == [b"x"]


async def test_full_disk_is_storage_full_and_keeps_what_is_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is for the operator to fix; the stream goes on where it stopped."""
    connect = sqlite_store.connect

    def connect_to_small_disk(
        path: Path, *, synchronous: str, busy_seconds: float
    ) -> sqlite3.Connection:
        connection = connect(path, synchronous=synchronous, busy_seconds=busy_seconds)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    monkeypatch.setattr(sqlite_store, "connect", connect_to_small_disk)
    async with queue_factory(SqliteDriver, SqliteSettings(path=path)) as open_queue:
        queue = await open_queue()
        await queue.append(STREAM, [Entry(1, 0, b"x")])
        with pytest.raises(StorageFullError, match="disk"):
            await queue.append(STREAM, [Entry(1, 1, b"y" * 1_000_000)])
        await queue.append(STREAM, [Entry(1, 1, b"z")])
        assert await read_all(queue) == [b"x", b"z"]


async def test_bad_append_does_not_fail_its_neighbours(open_queue: OpenQueue) -> None:
    """Appends share a transaction; a bug in one activity must not stop all others of the worker."""
    queue = await open_queue()
    results = await asyncio.gather(
        *(
            queue.append(StreamId("test", f"s{i}"), [Entry(1, 2**70 if i == 5 else i, b"x")])
            for i in range(10)
        ),
        return_exceptions=True,
    )
    assert [BackendError if i == 5 else None for i in range(10)] == [
        None if result is None else type(result) for result in results
    ]


async def test_expired_records_are_removed_from_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody runs a cleaning job for an embedded default: the file must not grow for ever."""
    monkeypatch.setattr(sqlite_writing, "_SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(sqlite_writing, "_SWEEP_AGAIN_SECONDS", 0.0)
    ttl = timedelta(milliseconds=20)
    async with queue_factory(SqliteDriver, SqliteSettings(path=path), ttl=ttl) as open_queue:
        queue = await open_queue()
        names = ("expires", "expires and comes back")
        for name in names:
            await queue.append(StreamId("test", name), [Entry(1, i, b"old") for i in range(1500)])
        async with asyncio.timeout(20):
            while [info async for info in queue.streams("test")]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
            index = 0
            while index == 0 or count_of(path, b"old"):
                await queue.append(StreamId("test", names[1]), [Entry(2, index, b"new")])
                index += 1


@pytest.mark.parametrize(
    "exception",
    [
        found
        for found in vars(sqlite3).values()
        if isinstance(found, type) and issubclass(found, Exception)
    ],
)
def test_every_exception_of_the_client_is_translated(
    exception: type[Exception], path: Path
) -> None:
    """Users catch StreamqError; an sqlite3 exception that leaks is one they cannot foresee."""
    with pytest.raises(StreamqError) as caught, sqlite_errors.translated(path):
        raise exception("trouble")
    assert isinstance(caught.value.__cause__, exception)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_BUSY, BackendUnavailableError),
        (sqlite3.SQLITE_BUSY_RECOVERY, BackendUnavailableError),
        (sqlite3.SQLITE_LOCKED, BackendUnavailableError),
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StorageFullError),
        (sqlite3.SQLITE_READONLY, AccessDeniedError),
        (sqlite3.SQLITE_READONLY_DBMOVED, BackendError),
        (sqlite3.SQLITE_PERM, AccessDeniedError),
        (sqlite3.SQLITE_CANTOPEN, BackendUnavailableError),
        (sqlite3.SQLITE_CORRUPT, BackendError),
        (sqlite3.SQLITE_NOTADB, BackendError),
        (sqlite3.SQLITE_IOERR_WRITE, BackendError),
        (sqlite3.SQLITE_TOOBIG, BackendError),
        (sqlite3.SQLITE_ERROR, BackendError),
    ],
)
def test_result_codes_become_the_situation(
    code: int, error: type[StreamqError], path: Path
) -> None:
    """Whether core retries depends on the class of the error alone."""
    exception = sqlite3.OperationalError("trouble")
    exception.sqlite_errorcode = code
    assert type(sqlite_errors.translate(exception, path)) is error
