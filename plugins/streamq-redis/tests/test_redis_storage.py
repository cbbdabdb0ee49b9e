"""What is stored and how it is protected, seen past the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from streamq import BackendError, FencedError, StorageFullError, StreamId
from streamq.driver import ChunkQueue, Entry
from streamq.testing import OpenQueue
from streamq_redis._keys import KeySpace
from streamq_redis.embedded import EmbeddedRedis

OpenAt = Callable[..., Awaitable[ChunkQueue]]
StartServer = Callable[..., EmbeddedRedis]
Bare = redis.asyncio.Redis


async def stored(bare: Bare, key: bytes) -> dict[str, object]:
    entries: Any = await bare.xrange(key)
    return {number.decode(): fields for number, fields in entries}


async def ids(bare: Bare, key: bytes) -> list[str]:
    return list(await stored(bare, key))


async def test_ids_are_epoch_and_index(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Operators see with redis-cli which attempt wrote what, and the server does the fencing."""
    queue = await open_queue()
    await queue.append(stream, [Entry(3, 0, b"a"), Entry(3, 7, b"b"), Entry(2**63 - 1, 0, b"c")])
    assert await ids(bare, key) == ["3-0", "3-7", "9223372036854775807-0"]
    assert (await stored(bare, key))["3-0"] == {b"r": b"a"}


async def test_name_with_braces_has_a_well_formed_key(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """Workflow ids contain anything; the hash tag stays one."""
    odd = StreamId(stream.tenant, "a{b}c/}{")
    await (await open_queue()).append(odd, [Entry(1, 0, b"x")])
    assert await bare.exists(f"streamq:{{{stream.tenant}/a%7Bb%7Dc/%7D%7B}}") == 1


async def test_time_to_live_is_set_by_the_first_append(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """A producer that dies right after its first record must not leave a stream for ever."""
    queue = await open_at(server.url, ttl=timedelta(seconds=80))
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert 80_000 < await bare.pttl(key) <= 90_000


async def test_time_to_live_is_set_again_when_the_stream_was_deleted(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Deleted by a janitor in another process: the next append must not create it immortal."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await bare.unlink(key)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert await bare.pttl(key) > 0


async def test_time_to_live_is_renewed_seldom(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """One command a record is what makes many small records cheap."""
    queue = await open_queue()
    before = (await bare.info("commandstats")).get("cmdstat_pexpire", {}).get("calls", 0)
    for i in range(50):
        await queue.append(stream, [Entry(1, i, b"x")])
    after = (await bare.info("commandstats"))["cmdstat_pexpire"]["calls"]
    assert before + 1 == after


async def test_stale_attempt_is_fenced_with_a_clear_message(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """The log of the worker that lost has to say why it stopped."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(2, 0, b"y")])
    with pytest.raises(FencedError, match=r"epoch 2, this writer has 1"):
        await queue.append(stream, [Entry(1, 1, b"z")])
    assert await ids(bare, key) == ["1-0", "2-0"]


async def test_fence_holds_after_the_newest_record_was_removed(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """An operator's XDEL must not have a stale append reported as stored."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(2, 0, b"y")])
    await bare.xdel(key, "2-0")
    with pytest.raises(FencedError):
        await queue.append(stream, [Entry(1, 1, b"z")])


async def test_large_records_are_not_fetched_beyond_what_was_asked_for(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """A first read of 16 records of any size never ends on a slow link."""
    queue = await open_queue()
    for i in range(16):
        await queue.append(stream, [Entry(1, i, bytes(500_000))])
    before = (await bare.info("stats"))["total_net_output_bytes"]
    found = await queue.read(stream, "", max_records=100, max_bytes=1000, max_wait=0)
    after = (await bare.info("stats"))["total_net_output_bytes"]
    assert len(found) == 1
    assert after - before < 2 * 500_000 + 100_000


async def test_small_records_are_read_in_one_call_from_the_first(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Careful with large records, yet a replay of small ones stays quick."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(300)])
    found = await queue.read(stream, "", max_records=200, max_bytes=10**6, max_wait=0)
    assert [b"%d" % i for i in range(200)] == [record.data for record in found]


async def test_fenced_batch_stores_nothing(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Of a batch whose first entries are stored already, the rest comes too late."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(2, 0, b"y")])
    with pytest.raises(FencedError):
        await queue.append(stream, [Entry(1, i, b"z") for i in range(3)])
    assert await ids(bare, key) == ["1-0", "2-0"]


async def test_entry_below_the_newest_of_its_epoch_is_skipped(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """The contract's rule for repeats: a writer's appends never overlap, so it was stored."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(1, 2, b"z")])
    await queue.append(stream, [Entry(1, 1, b"y")])
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(4)])
    assert await ids(bare, key) == ["1-0", "1-2", "1-3"]


async def test_many_writers_share_packets(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """A worker with many activities pays for few system calls, and nobody's error hits others."""
    queue = await open_queue()
    streams = [StreamId(stream.tenant, f"s{i}") for i in range(100)]
    await queue.append(streams[7], [Entry(2, 0, b"new")])
    results = await asyncio.gather(
        *(queue.append(each, [Entry(1, 0, b"x")]) for each in streams), return_exceptions=True
    )
    assert [FencedError if i == 7 else type(None) for i in range(100)] == [
        type(result) for result in results
    ]


async def test_wrong_type_of_key_is_told_with_the_next_step(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Another application uses the same prefix: the operator learns what to change."""
    queue = await open_queue()
    await bare.set(key, "not a stream")
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: queue.append(stream, [Entry(1, 0, b"x")]),
        lambda: queue.read(stream, "", max_records=1, max_bytes=10, max_wait=5),
        lambda: queue.describe(stream, last=1),
    ]
    for operation in operations:
        with pytest.raises(BackendError, match="STREAMQ_REDIS_KEY_PREFIX"):
            await operation()
    assert [info async for info in queue.streams(stream.tenant)] == []


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


async def test_full_memory_stores_a_batch_whole_or_not_at_all(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """An entry refused in the middle, with later ones stored, would be a hole for ever."""
    server = start_server(arguments=("--maxmemory", "16mb", "--maxmemory-policy", "noeviction"))
    queue = await open_at(server.url)
    stream, count = StreamId("t", "big"), 0

    async def fill() -> None:
        nonlocal count
        for _ in range(100):
            await queue.append(stream, [Entry(1, count + i, bytes(100_000)) for i in range(5)])
            count += 5

    with pytest.raises(StorageFullError) as caught:
        await fill()
    assert caught.value.retryable
    info = await queue.describe(stream, last=1)
    assert (count, f"1-{count - 1}") == (info.records, info.last[0].position)
    # Readers go on, and so does the writer once there is room.
    assert await queue.read(stream, "", max_records=1, max_bytes=1, max_wait=1)
    await queue.delete(stream)
    await queue.append(stream, [Entry(1, count, b"x")])


async def test_only_a_server_with_a_log_is_called_durable(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """Who requires durability is refused by a server that keeps nothing."""
    durable = start_server(appendonly=True, arguments=("--appendfsync", "always"))
    assert (await open_at(durable.url)).capabilities.durable
    nearly = start_server(appendonly=True, arguments=("--appendfsync", "everysec"))
    assert not (await open_at(nearly.url)).capabilities.durable
    assert not (await open_at(start_server().url)).capabilities.durable


async def test_durable_records_survive_a_crash(start_server: StartServer, open_at: OpenAt) -> None:
    """What was acknowledged is there after the server was killed and started again."""
    server = start_server(appendonly=True, arguments=("--appendfsync", "always"))
    queue, stream = await open_at(server.url), StreamId("t", "s")
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(10)])
    server.kill()
    server.start()
    found = await (await open_at(server.url)).read(
        stream, "", max_records=99, max_bytes=999, max_wait=5
    )
    assert [b"%d" % i for i in range(10)] == [record.data for record in found]


async def test_listing_skips_what_is_not_ours(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Others may keep streams under a similar key."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await bare.xadd(KeySpace("streamq").key(stream) + b"}", {"a": "b"})
    assert [stream] == [info.stream async for info in queue.streams(stream.tenant)]
