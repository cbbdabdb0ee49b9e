"""Following: one blocking read for all streams, bounded memory, and no record lost."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from redis_streams import Bare, MuteProxy, OpenAt, StartServer, read_soon
from streamq import BackendError, BackendUnavailableError, StreamId
from streamq.driver import Entry, Stored
from streamq.testing import OpenQueue
from streamq_redis import _live_tail
from streamq_redis._queue import RedisQueue
from streamq_redis.embedded import EmbeddedRedis


async def test_200_streams_need_three_connections(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """A gateway that opens a connection per stream takes its server down."""
    server = start_server()
    queue = await open_at(server.url)
    streams = [StreamId("t", f"s{i}") for i in range(200)]
    async with redis.asyncio.Redis.from_url(server.url) as bare:

        async def ours() -> set[str]:
            return {each["id"] for each in await bare.client_list() if each["name"] == "streamq"}

        reads = [read_soon(queue, stream) for stream in streams]
        await asyncio.sleep(0.1)
        blocked = await ours()
        await asyncio.gather(*(queue.append(stream, [Entry(1, 0, b"x")]) for stream in streams))
        assert all(await asyncio.gather(*reads))
        after = await ours()
    assert [len(blocked), len(after)] == [2, 3]
    assert blocked < after


async def test_readers_of_one_stream_share_one_read(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """A popular stream costs its server no more than a lonely one."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    reads = [read_soon(queue, stream, "1-0") for _ in range(50)]
    await asyncio.sleep(0.05)
    before = (await bare.info("commandstats")).get("cmdstat_xread", {}).get("calls", 0)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert [[each.data for each in found] for found in await asyncio.gather(*reads)] == [
        [b"y"]
    ] * 50
    assert (await bare.info("commandstats"))["cmdstat_xread"]["calls"] - before <= 2


async def test_long_block_survives_the_clients_default_timeout(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """redis-py gives up a read after 5 s, in the middle of a long poll."""
    queue = await open_at(server.url, block_seconds=30)
    read = read_soon(queue, stream)
    await asyncio.sleep(5.6)
    await queue.append(stream, [Entry(1, 0, b"late")])
    assert [record.data for record in await read] == [b"late"]


async def test_many_short_blocks_lose_nothing(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """Between two blocks there is a moment without one; the position closes it."""
    queue = await open_at(server.url, block_seconds=0.1)
    read = read_soon(queue, stream)
    await asyncio.sleep(0.35)
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert [record.data for record in await read] == [b"x"]


async def test_reader_slower_than_the_tail_catches_up(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """Memory for the tail is bounded; what it dropped comes from the server, in order."""
    queue = await open_at(server.url, tail_bytes=2048)
    await queue.append(stream, [Entry(1, 0, b"0")])
    eager = read_soon(queue, stream, "1-0")
    await asyncio.sleep(0.05)
    for i in range(1, 200):
        await queue.append(stream, [Entry(1, i, b"%d" % i)])
    await eager
    position, found = "1-0", [b"0"]
    while len(found) < 200:
        records = await read_soon(queue, stream, position, 5)
        found += [record.data for record in records]
        position = records[-1].position
    assert [b"%d" % i for i in range(200)] == found


async def test_stream_deleted_and_created_anew_elsewhere_is_read_from_its_start(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Even if its epochs start again lower, while this process still follows the old one."""
    queue, other = await open_queue(), await open_queue()
    await other.append(stream, [Entry(9, 0, b"old")])
    read = read_soon(queue, stream, "9-0")
    await asyncio.sleep(0.05)
    await other.append(stream, [Entry(9, 1, b"old")])
    await read
    await other.delete(stream)
    read = read_soon(queue, stream)
    await asyncio.sleep(0.05)
    assert not read.done()
    await other.append(stream, [Entry(1, 0, b"new")])
    assert [(each.position, each.data) for each in await read] == [("1-0", b"new")]


async def test_wrong_type_of_one_key_hurts_no_other_reader(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """All streams share one blocking read; a foreign key among them must fail its own reader."""
    queue = await open_queue()
    good = StreamId(stream.tenant, "good")
    victim, reader = (
        asyncio.ensure_future(queue.read(each, "", max_records=9, max_bytes=999, max_wait=20))
        for each in (stream, good)
    )
    await asyncio.sleep(0.05)
    await bare.set(key, "not a stream")
    # The blocked read notices when it is issued again: here because another stream gets data.
    await queue.append(StreamId(stream.tenant, "good"), [Entry(1, 0, b"x")])
    assert [record.data for record in await reader] == [b"x"]
    reader = asyncio.ensure_future(
        queue.read(good, "1-0", max_records=9, max_bytes=999, max_wait=20)
    )
    with pytest.raises(BackendError, match="holds something else"):
        await victim
    await queue.append(good, [Entry(1, 1, b"y")])
    assert [record.data for record in await reader] == [b"y"]


async def blocked_client(bare: redis.asyncio.Redis) -> dict[str, str]:
    """Return the client that waits for records, once there is one."""
    async with asyncio.timeout(10):
        while True:
            for each in await bare.client_list():
                if each["cmd"] == "xread":
                    return each
            await asyncio.sleep(0.01)


async def test_half_open_blocking_connection_is_given_up_without_a_storm(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """The server has forgotten the reading client: repeated requests to unblock it must end."""
    server = start_server()
    async with MuteProxy(server.port).running() as proxy:
        queue = await open_at(f"redis://127.0.0.1:{proxy.port}")
        async with redis.asyncio.Redis.from_url(server.url) as bare:
            read = read_soon(queue, stream)
            blocked = await blocked_client(bare)
            proxy.keeps_open = True
            await bare.client_kill_filter(_id=blocked["id"])
            before = (await bare.info("commandstats"))["cmdstat_client|unblock"]["calls"]
            others = [read_soon(queue, StreamId("t", f"s{i}")) for i in range(50)]
            async with asyncio.timeout(4):
                for each in (read, *others):
                    with pytest.raises(BackendUnavailableError):
                        await each
            after = (await bare.info("commandstats"))["cmdstat_client|unblock"]["calls"]
        assert after - before < 100
        await queue.aclose()


async def test_stream_that_is_read_no_more_is_followed_no_more(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway runs for weeks: each stream that it ever showed would be in every request."""
    monkeypatch.setattr(_live_tail, "_LINGER_SECONDS", 0.2)
    queue = await open_at(server.url, block_seconds=0.1)
    assert isinstance(queue, RedisQueue)
    other = StreamId(stream.tenant, "other")
    waiting, left = read_soon(queue, other), read_soon(queue, stream)
    await asyncio.sleep(0.05)
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert len(await left) == 1
    followed = queue._live_tail._followed
    assert len(followed) == 2
    async with asyncio.timeout(10):
        while len(followed) == 2:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    await queue.append(other, [Entry(1, 0, b"y")])
    assert [record.data for record in await waiting] == [b"y"]
    again = read_soon(queue, stream, "1-0")
    await asyncio.sleep(0.05)
    await queue.append(stream, [Entry(1, 1, b"z")])
    assert [record.data for record in await again] == [b"z"]


def test_reply_stays_small_whatever_is_followed() -> None:
    """One read has the records of all streams: of many, or of large ones, it must not be 100 MB."""
    size = _live_tail.ReplySize()
    assert [size.count(streams) for streams in (1, 64, 128, 5_000)] == [16, 16, 8, 1]
    size.learn([Stored("1-0", bytes(100_000)), Stored("1-1", bytes(300_000))])
    assert [size.count(streams) for streams in (1, 2, 5, 6)] == [5, 2, 1, 1]
    size.learn([])
    size.learn([Stored("1-2", b"")])
    assert [size.count(streams) for streams in (1, 2, 5, 6)] == [10, 5, 2, 1]
    for _ in range(20):
        size.learn([Stored("1-2", b"")])
    assert [size.count(streams) for streams in (1, 2**16, 2**18, 2**20)] == [16, 16, 4, 1]
