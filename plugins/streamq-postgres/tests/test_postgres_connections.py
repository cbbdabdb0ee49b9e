"""Connections: how many there are, how they break, and what is woken without notifications."""

from __future__ import annotations

import asyncio

from postgres_servers import OpenAt, StartServer, ask, plain, read_soon, sessions
from streamq import StreamId
from streamq.driver import Entry
from streamq.testing import Direction, FaultProxy


async def test_thousand_streams_take_three_connections(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """A connection of PostgreSQL is a process: a gateway must not take one for each reader."""
    server = start_server()
    queue = await open_at(server.url, operation_timeout_seconds=60.0, lookup_seconds=600.0)
    streams = [StreamId("t", f"s{i}") for i in range(1_000)]
    reads = [read_soon(queue, each, wait=300) for each in streams]
    await asyncio.gather(*(queue.append(each, [Entry(1, 0, b"x")]) for each in streams))
    found = await asyncio.gather(*reads)
    assert [each[0].data for each in found] == [b"x"] * 1_000
    assert len(await sessions(server.url)) == 3
    await queue.aclose()
    async with asyncio.timeout(20):
        while await sessions(server.url):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_lost_notification_costs_one_poll(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """Notifications only wake: what they would have said is found without them."""
    server = start_server()
    queue = await open_at(server.url, poll_seconds=0.2)
    await queue.append(stream, [Entry(1, 0, b"x")])
    read = read_soon(queue, stream, "1-0")
    await asyncio.sleep(0.3)
    stored = (
        "WITH s AS (UPDATE streamq.streams SET idx = 1 RETURNING id) "
        "INSERT INTO streamq.records SELECT id, 1, 1, 'y' FROM s"
    )
    await ask(server.url, stored)  # without a notification
    async with asyncio.timeout(10):
        assert [each.data for each in await read] == [b"y"]


async def test_record_whose_transaction_commits_late_is_not_skipped(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """With a sequence, a reader that has seen a later number would never look for this one."""
    server = start_server()
    first, second = [await open_at(server.url, operation_timeout_seconds=8.0) for _ in range(2)]
    await first.append(stream, [Entry(1, 0, b"x")])
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        slow = await open_at(
            f"postgresql://postgres@{proxy.address}/postgres", operation_timeout_seconds=8.0
        )
        await slow.append(stream, [Entry(1, 1, b"y")])
        proxy.hold(Direction.TO_CLIENT)  # it commits, and its writer does not hear of it
        late = asyncio.ensure_future(slow.append(stream, [Entry(1, 2, b"z")]))
        read = await read_soon(second, stream, "1-1")
        await first.append(stream, [Entry(2, 0, b"w")])
        proxy.release()
        await late
    rest = await read_soon(second, stream, read[-1].position)
    assert [each.data for each in [*read, *rest]] == [b"z", b"w"]


async def test_expired_stream_is_hidden_and_its_rows_are_removed_by_whoever_writes(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """A fleet of workers must not need a cleanup job, nor show what is over."""
    server = start_server()
    queue = await open_at(server.url, sweep_seconds=0.1)
    await queue.append(stream, [Entry(1, index, b"x") for index in range(5_000)])
    await ask(server.url, "UPDATE streamq.streams SET expires_at = now() - interval '1 s'")
    assert await read_soon(queue, stream, wait=0) == []
    assert [each async for each in queue.streams(stream.tenant)] == []
    other = StreamId(stream.tenant, "other")
    async with asyncio.timeout(30):
        for index in range(10_000):
            await queue.append(other, [Entry(1, index, b"x")])
            if (
                await ask(
                    server.url, "SELECT 1 FROM streamq.records WHERE data = 'x' AND idx = 4999"
                )
                == []
            ):
                break
            await asyncio.sleep(0.05)
    assert await ask(server.url, "SELECT count(*) FROM streamq.buried") == [(0,)]


async def test_processes_that_start_together_create_the_schema_once(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """The first deployment starts several workers at the same moment, on an empty database."""
    server = start_server()
    async with plain(server.url) as first, first.transaction():
        await first.execute("SELECT pg_advisory_xact_lock(hashtext('streamq'))")
        await first.execute("CREATE SCHEMA streamq")
        second = asyncio.ensure_future(open_at(server.url))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while not await ask(server.url, waiting):  # noqa: ASYNC110 - the server says so
                await asyncio.sleep(0.01)
    await second
