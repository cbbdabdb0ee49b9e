"""Following: one blocking read for all streams, bounded memory, and no record lost."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from redis_pairs import command, replicated
from redis_streams import (
    ACL_OPTIONAL,
    ACL_RULES,
    Bare,
    MuteProxy,
    OpenAt,
    StartServer,
    read_soon,
    run,
    set_user,
)
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


async def interruptions(bare: redis.asyncio.Redis) -> int:
    """Return how often the server was asked to interrupt a read."""
    found: int = (await bare.info("commandstats"))["cmdstat_client|unblock"]["calls"]
    return found


async def test_interruption_that_overtakes_its_read_is_repeated(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """Both travel on connections of their own; the new stream would wait for a quiet one."""
    server = start_server()
    async with (
        MuteProxy(server.port).running() as proxy,
        redis.asyncio.Redis.from_url(server.url) as bare,
    ):
        queue = await open_at(f"redis://127.0.0.1:{proxy.port}", block_seconds=60)
        reads = [read_soon(queue, StreamId("t", "quiet"))]
        await blocked_client(bare)
        proxy.withhold(b"XREAD")
        before = await interruptions(bare)
        reads.append(read_soon(queue, StreamId("t", "second")))  # its read is held back
        async with asyncio.timeout(10):
            while await interruptions(bare) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            reads.append(read_soon(queue, StreamId("t", "third")))
            while await interruptions(bare) < before + 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            proxy.release()
            await (await open_at(server.url)).append(StreamId("t", "third"), [Entry(1, 0, b"x")])
            assert [record.data for record in await reads[2]] == [b"x"]
        await queue.aclose()
        await asyncio.gather(*reads, return_exceptions=True)


async def test_streams_that_are_followed_at_once_interrupt_once(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """A page with fifty streams is opened: one read follows all of them."""
    server = start_server()
    queue = await open_at(server.url, block_seconds=60)
    async with redis.asyncio.Redis.from_url(server.url) as bare:
        reads = [read_soon(queue, StreamId("t", "quiet"))]
        await blocked_client(bare)
        before = await interruptions(bare)
        calls = (await bare.info("commandstats")).get("cmdstat_xread", {}).get("calls", 0)
        reads += [read_soon(queue, StreamId("t", f"s{i}")) for i in range(50)]
        await queue.append(StreamId("t", "last"), [Entry(1, 0, b"x")])
        for i in range(50):
            await queue.append(StreamId("t", f"s{i}"), [Entry(1, 0, b"x")])
        async with asyncio.timeout(10):
            await asyncio.gather(*reads[1:])
        assert await interruptions(bare) - before <= 10
        assert (await bare.info("commandstats"))["cmdstat_xread"]["calls"] - calls <= 60
    await queue.aclose()
    await asyncio.gather(*reads, return_exceptions=True)


async def test_read_of_a_user_who_may_interrupt_no_more_ends_by_itself(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """An operator takes a permission away: readers lag, and none hangs."""
    server = start_server()
    async with redis.asyncio.Redis.from_url(server.url) as bare:
        await set_user(bare, "some", [*ACL_RULES, *ACL_OPTIONAL])
        url = f"redis://some:pass@127.0.0.1:{server.port}"
        queue = await open_at(url, block_seconds=1)
        assert isinstance(queue, RedisQueue)
        reads = [read_soon(queue, StreamId("t", "quiet"))]
        await blocked_client(bare)
        await run(bare, "ACL", "SETUSER", "some", "-client|unblock")
        for name in ("second", "third"):
            reads.append(read_soon(queue, StreamId("t", name)))
            await queue.append(StreamId("t", name), [Entry(1, 0, b"x")])
            async with asyncio.timeout(10):
                assert len(await reads[-1]) == 1
        following = queue._live_tail._connection.current
        assert following is not None
        assert not following.may_unblock
    await queue.aclose()
    await asyncio.gather(*reads, return_exceptions=True)


@pytest.mark.parametrize("binary", ["valkey"], indirect=True)
async def test_reader_leaves_a_primary_that_has_become_a_replica(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """If no read blocks at that moment, nothing else notices it, until the lookout has its turn."""
    async with (
        replicated(start_server) as pair,
        MuteProxy(pair.old.port).running() as name,
        redis.asyncio.Redis.from_url(pair.old.url) as old,
        redis.asyncio.Redis.from_url(pair.new.url) as new,
    ):
        url = f"redis://127.0.0.1:{name.port}"
        queue = await open_at(url, block_seconds=0.2, lookup_seconds=3_600)
        reads = [read_soon(queue, stream)]
        await blocked_client(old)
        before = (await old.info("commandstats"))["cmdstat_hello"]["calls"]
        await asyncio.sleep(0.7)  # several reads block and end, and one at most asks
        assert (await old.info("commandstats"))["cmdstat_hello"]["calls"] - before <= 1
        name.withhold(b"XREAD")
        async with asyncio.timeout(10):
            await name.is_holding.wait()
        await pair.promote()
        await command(pair.old, "REPLICAOF", "127.0.0.1", pair.new.port)
        name.redirect(pair.new.port)
        name.release()
        await blocked_client(new)
        await (await open_at(url)).append(stream, [Entry(1, 0, b"x")])
        assert len(await reads[0]) == 1
        await queue.aclose()


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
    size.learnt([Stored("1-0", bytes(100_000)), Stored("1-1", bytes(300_000))])
    assert [size.count(streams) for streams in (1, 2, 5, 6)] == [5, 2, 1, 1]
    size.learnt([Stored("1-2", b"")])
    assert [size.count(streams) for streams in (1, 2, 5, 6)] == [10, 5, 2, 1]
    for _ in range(20):
        size.learnt([Stored("1-2", b"")])
    assert [size.count(streams) for streams in (1, 2**16, 2**18, 2**20)] == [16, 16, 4, 1]
