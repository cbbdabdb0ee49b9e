"""Fail-over to a streaming replica: writers and readers go on at the new primary."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from postgres_servers import OpenAt, StartServer, ask, directory_for_servers
from streamq import (
    BackendUnavailableError,
    Chunk,
    Settings,
    StreamId,
    StreamReader,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry
from streamq.testing import Direction, FaultProxy
from streamq_postgres.embedded import EmbeddedPostgres, as_user, user_for_servers

SETTINGS = Settings(retry_seconds=60, operation_seconds=20)
OPERATION_SECONDS = 1.5

_PRIMARY = ("-c", "wal_level=replica", "-c", "max_wal_senders=4", "-c", "hot_standby=on")


@dataclass
class Pair:
    """A primary and its replica, and a name that leads to the primary."""

    old: EmbeddedPostgres
    new: EmbeddedPostgres
    name: FaultProxy
    ready_at: float = 0.0

    @property
    def both(self) -> str:
        """The URL that names both servers."""
        return f"postgresql://postgres@{self.old.address},{self.new.address}/postgres"

    async def level(self) -> None:
        """Wait until the replica has all that the primary has."""
        ((position,),) = await ask(self.old.url, "SELECT pg_current_wal_lsn()::text")
        async with asyncio.timeout(20):
            behind = "SELECT pg_last_wal_replay_lsn() < %s::pg_lsn"
            while await ask(self.new.url, behind, position) == [(True,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def promote(self) -> None:
        """Make the replica a primary, after it has all that the old one has."""
        await self.level()
        await ask(self.new.url, "SELECT pg_promote()")
        async with asyncio.timeout(20):
            while await ask(self.new.url, "SELECT pg_is_in_recovery()") != [(False,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        self.ready_at = time.monotonic()

    def move(self) -> None:
        """Let the name lead to the new primary."""
        self.name.redirect("127.0.0.1", self.new.port)
        self.ready_at = time.monotonic()


def copy_primary(programs: Path, url: str, copy: Path) -> None:
    """Make the data directory of a replica."""
    command = [str(programs / "pg_basebackup"), "-D", str(copy), "-R", "-c", "fast"]
    command += ["-X", "stream", "-d", url]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **as_user(user_for_servers()))


@pytest.fixture
async def pair(start_server: StartServer, programs: Path) -> AsyncIterator[Pair]:
    """Start a primary and a replica that follows it."""
    old = start_server(arguments=_PRIMARY)
    with directory_for_servers() as directory:
        copy = directory / "copy"
        await asyncio.to_thread(copy_primary, programs, old.url, copy)
        with EmbeddedPostgres(programs=programs, template=copy, arguments=_PRIMARY) as new:
            async with FaultProxy("127.0.0.1", old.port) as name:
                yield Pair(old, new, name)


@asynccontextmanager
async def dies(pair: Pair) -> AsyncIterator[None]:
    """The old primary is gone, its connections are reset."""
    await pair.promote()
    pair.old.kill()
    pair.move()
    yield


@asynccontextmanager
async def becomes_read_only(pair: Pair) -> AsyncIterator[None]:
    """The old primary answers, and refuses writes, as one that is being demoted."""
    await pair.promote()
    await ask(pair.old.url, "ALTER SYSTEM SET default_transaction_read_only = on")
    await ask(pair.old.url, "SELECT pg_reload_conf()")
    pair.move()
    yield


@asynccontextmanager
async def stays_a_primary(pair: Pair) -> AsyncIterator[None]:
    """The old primary answers as before: only the name tells."""
    await pair.promote()
    pair.move()
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'streamq'"
    async with asyncio.timeout(20):
        while await ask(pair.old.url, query):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    pair.ready_at = time.monotonic()
    yield


@asynccontextmanager
async def falls_silent(pair: Pair) -> AsyncIterator[None]:
    """The old primary answers nothing any more, and its connections stay."""
    await pair.promote()
    stopped = [pair.old.pid, *children(pair.old.pid)]
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        pair.move()
        yield
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


def children(parent: int) -> list[int]:
    """Return the processes that a process has started: the server's, one for each connection."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(each) for each in found.split()]


async def follow_and_write(
    queue: ChunkQueue, pair: Pair, fault: contextlib.AbstractAsyncContextManager[None]
) -> float:
    """Write and read through a fail-over; return after how long the writers went on."""
    names = ["written", "second"]
    writers = [
        await open_writer(StreamId("t", each), queue=queue, settings=SETTINGS) for each in names
    ]
    readers = [
        await open_reader(StreamId("t", each), queue=queue, settings=SETTINGS)
        for each in [*names, "late"]
    ]
    for writer in writers:
        await writer.send_chunk("before")
        await writer.flush()
    for reader in readers[:2]:
        assert await values(reader, 1) == ["before"]
    following = [asyncio.create_task(values(reader, 2)) for reader in readers]
    await asyncio.sleep(0.2)  # the live tail waits
    async with fault, asyncio.timeout(60):
        for writer in writers:
            await writer.send_chunk("after")
        await asyncio.gather(*(writer.flush() for writer in writers))
        flushed_at = time.monotonic()
        late = await open_writer(StreamId("t", "late"), queue=queue, settings=SETTINGS)
        await late.send_chunk("before")
        for writer in [*writers, late]:
            await writer.send_chunk("end")
            await writer.finish()
        read = await asyncio.gather(*following)
        listed = {each.stream.name async for each in queue.streams("t")}
    assert read == [["after", "end"], ["after", "end"], ["before", "end"]]
    assert listed == {"written", "second", "late"}
    assert await ask(pair.new.url, "SELECT count(*) FROM streamq.streams") == [(3,)]
    return flushed_at - pair.ready_at


async def values(reader: StreamReader[object], count: int) -> list[object]:
    found: list[object] = []
    while len(found) < count:
        event = await anext(reader)
        assert isinstance(event, Chunk)
        found.append(event.value)
    return found


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (dies, 2.0),
        (becomes_read_only, 2.0),
        (stays_a_primary, 2.0),
        (falls_silent, 2.0),
    ],
)
async def test_everybody_follows_the_name(
    pair: Pair,
    open_at: OpenAt,
    fault: Callable[[Pair], contextlib.AbstractAsyncContextManager[None]],
    seconds: float,
    note: Callable[[str, str], None],
) -> None:
    """After a fail-over a process must not need a restart, whatever its connections were doing."""
    queue = await open_at(
        f"postgresql://postgres@{pair.name.address}/postgres",
        operation_timeout_seconds=OPERATION_SECONDS,
        connect_timeout_seconds=OPERATION_SECONDS,
        lookup_seconds=0.5,
    )
    took = await follow_and_write(queue, pair, fault(pair))
    assert took < 3 * seconds, "three times what an idle machine needs at most"
    note("PostgreSQL fail-over", f"{fault.__name__}: the writer went on after {took:.2f} s")


async def test_address_with_both_servers_finds_the_new_primary(
    pair: Pair, open_at: OpenAt, note: Callable[[str, str], None]
) -> None:
    """Where no name moves, the address lists the servers, and the one that takes writes is used."""
    queue = await open_at(pair.both, operation_timeout_seconds=OPERATION_SECONDS)
    took = await follow_and_write(queue, pair, dies(pair))
    assert took < 6, "three times what an idle machine needs at most"
    note("PostgreSQL fail-over", f"two hosts: the writer went on after {took:.2f} s")


async def test_standby_alone_is_refused_and_can_be_read_from_if_wanted(
    pair: Pair, open_at: OpenAt, stream: StreamId
) -> None:
    """A standby refuses every append; a gateway may still read there, by polling."""
    writer = await open_at(pair.old.url)
    await writer.append(stream, [Entry(1, 0, b"a")])
    await pair.level()
    with pytest.raises(BackendUnavailableError, match="read only"):
        await open_at(pair.new.url)
    reader = await open_at(f"{pair.new.url}?target_session_attrs=any")
    read = asyncio.ensure_future(
        reader.read(stream, "1-0", max_records=1, max_bytes=100, max_wait=30)
    )
    await writer.append(stream, [Entry(1, 1, b"b")])
    assert [each.data for each in await read] == [b"b"]
    with pytest.raises(BackendUnavailableError, match="read only"):
        await reader.append(stream, [Entry(1, 2, b"c")])


async def test_append_whose_answer_was_lost_is_not_repeated_on_the_new_primary(
    pair: Pair, open_at: OpenAt, stream: StreamId
) -> None:
    """The old primary has stored and replicated it, and nobody has heard of that."""
    url = f"postgresql://postgres@{pair.name.address}/postgres"
    queue = await open_at(url, operation_timeout_seconds=0.5, lookup_seconds=60)
    async with await open_writer(stream, queue=queue, settings=SETTINGS) as writer:
        await writer.send_chunk("first")
        await writer.flush()
        pair.name.hold(Direction.TO_CLIENT)
        for i in range(20):
            await writer.send_chunk(f"{i} " + "x" * 6_000)
        async with asyncio.timeout(20):
            stored = "SELECT count(*) > 1 FROM streamq.records"
            while await ask(pair.old.url, stored) != [(True,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await pair.promote()
        pair.old.kill()
        pair.move()
        pair.name.cut()
        pair.name.release()
        await writer.flush()
    async with await open_reader(stream, queue=queue, settings=SETTINGS) as reader:
        found = [str(each).split()[0] for each in await reader.collect()]
    assert found == ["first", *map(str, range(20))]
