"""Reading what is stored: pages that fit the records, and keys that hold something else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from redis_streams import Bare
from streamq import BackendError, StreamId
from streamq.driver import Entry
from streamq.testing import OpenQueue
from streamq_redis._naming import KeySpace


async def test_no_more_than_the_requested_large_records_are_fetched(
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


async def test_wrong_type_of_key_is_reported_with_the_next_step(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Another application uses the same prefix: the message has to say what to change."""
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


async def test_listing_skips_keys_that_are_not_ours(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """Another application may keep Redis Streams under a similar key."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await bare.xadd(KeySpace("streamq").key(stream) + b"}", {"a": "b"})
    assert [stream] == [info.stream async for info in queue.streams(stream.tenant)]
