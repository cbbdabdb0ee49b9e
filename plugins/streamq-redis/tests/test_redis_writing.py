"""Appends as the server stores them: ids, fences, whole batches, and a time to live."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from redis_streams import Bare, MuteProxy, OpenAt, StartServer, read_soon
from streamq import BackendUnavailableError, FencedError, StorageFullError, StreamId
from streamq.driver import Entry
from streamq.testing import OpenQueue
from streamq_redis import _writing
from streamq_redis._queue import RedisQueue
from streamq_redis._writing import lag_of
from streamq_redis.embedded import EmbeddedRedis


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
    """Another process deleted it: the next append must not create a stream without an end."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await bare.unlink(key)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert await bare.pttl(key) > 0


async def test_time_to_live_is_renewed_seldom(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """Many small records are cheap because each takes one command."""
    queue = await open_queue()
    before = (await bare.info("commandstats")).get("cmdstat_pexpire", {}).get("calls", 0)
    for i in range(50):
        await queue.append(stream, [Entry(1, i, b"x")])
    after = (await bare.info("commandstats"))["cmdstat_pexpire"]["calls"]
    assert before + 1 == after


async def test_time_to_live_is_set_again_after_a_while(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """A stream must not expire while its producer goes on, however seldom that sets the time."""
    queue = await open_at(server.url, ttl=timedelta(seconds=2))
    await queue.append(stream, [Entry(1, 0, b"x")])
    async with asyncio.timeout(10):
        while await bare.pttl(key) > 1_950:  # noqa: ASYNC110 - the server's clock
            await asyncio.sleep(0.01)
    await queue.append(stream, [Entry(1, 1, b"x")])
    assert await bare.pttl(key) > 2_000


async def test_time_to_live_of_some_thousand_streams_is_remembered(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker runs for weeks, and writes a million streams; those of now need no more commands."""
    monkeypatch.setattr(_writing, "_REMEMBERED_STREAMS", 2)
    queue = await open_queue()

    async def renewals() -> int:
        found: int = (await bare.info("commandstats")).get("cmdstat_pexpire", {}).get("calls", 0)
        return found

    before = await renewals()
    a, b, c = (StreamId(stream.tenant, name) for name in "abc")
    for index, each in enumerate((a, b, c, b, c)):
        await queue.append(each, [Entry(1, index, b"x")])
    assert await renewals() == before + 3
    await queue.append(a, [Entry(1, 9, b"x")])
    assert await renewals() == before + 4


async def test_stale_attempt_is_fenced_with_a_clear_message(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """The log of the worker that lost has to say why it stopped."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(2, 0, b"y")])
    with pytest.raises(FencedError, match=r"epoch 2 has taken over .* epoch 1 must stop"):
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


async def test_stream_that_is_deleted_between_refusal_and_question_is_appended_to_again(
    open_queue: OpenQueue, stream: StreamId, key: bytes
) -> None:
    """Whether the entry was stale or a repeat is not known any more: only a new append decides."""
    queue = await open_queue()
    assert isinstance(queue, RedisQueue)
    connection = await queue._appender._connection.get()
    with pytest.raises(BackendUnavailableError, match="deleted during an append") as caught:
        await queue._appender._newest_epoch(connection, stream, key)
    assert caught.value.retryable
    assert caught.value.stream == str(stream)


@pytest.mark.parametrize(("ttl", "lag"), [(2.0, 0.25), (80.0, 10.0), (86_400.0, 30.0)])
def test_time_to_live_is_longer_by_an_eighth_and_half_a_minute_at_most(
    ttl: float, lag: float
) -> None:
    """What an operator has configured is what is stored, nearly."""
    assert lag_of(timedelta(seconds=ttl)) == timedelta(seconds=lag)


async def test_fenced_batch_stores_nothing(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """The first entries of the batch are stored already; the rest is too late."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(2, 0, b"y")])
    with pytest.raises(FencedError):
        await queue.append(stream, [Entry(1, i, b"z") for i in range(3)])
    assert await ids(bare, key) == ["1-0", "2-0"]


async def test_entry_below_the_newest_of_its_epoch_is_skipped(
    open_queue: OpenQueue, bare: Bare, stream: StreamId, key: bytes
) -> None:
    """The rule for repeats: a writer's appends never overlap, so the entry was stored."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.append(stream, [Entry(1, 2, b"z")])
    await queue.append(stream, [Entry(1, 1, b"y")])
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(4)])
    assert await ids(bare, key) == ["1-0", "1-2", "1-3"]


async def test_many_writers_share_packets(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """Many activities cost few system calls, and an error reaches only its own writer."""
    queue = await open_queue()
    streams = [StreamId(stream.tenant, f"s{i}") for i in range(100)]
    await queue.append(streams[7], [Entry(2, 0, b"new")])
    results = await asyncio.gather(
        *(queue.append(each, [Entry(1, 0, b"x")]) for each in streams), return_exceptions=True
    )
    assert [FencedError if i == 7 else type(None) for i in range(100)] == [
        type(result) for result in results
    ]


async def test_lost_acknowledgement_is_healed_by_repeating(
    server: EmbeddedRedis, open_at: OpenAt, stream: StreamId
) -> None:
    """The record was stored, its answer lost: a repeat must neither fail nor store it again."""
    async with MuteProxy(server.port).running() as proxy:
        queue = await open_at(f"redis://127.0.0.1:{proxy.port}")
        await queue.append(stream, [Entry(1, 0, b"0")])
        proxy.is_mute = True
        batch = [Entry(1, i, b"%d" % i) for i in range(1, 4)]
        lost = asyncio.ensure_future(queue.append(stream, batch))
        direct = await open_at(server.url)
        while (await direct.describe(stream)).records != 4:  # noqa: ASYNC110 - no event for this
            await asyncio.sleep(0.01)
        proxy.cut()
        with pytest.raises(BackendUnavailableError):
            await lost
        proxy.is_mute = False
        await queue.append(stream, [*batch, Entry(1, 4, b"4")])
        found = await read_soon(direct, stream)
        assert [record.data for record in found] == [b"0", b"1", b"2", b"3", b"4"]
        await queue.aclose()


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


async def test_durable_records_survive_a_crash(start_server: StartServer, open_at: OpenAt) -> None:
    """Acknowledged records have to be there after the server was killed and started again."""
    server = start_server(appendonly=True, arguments=("--appendfsync", "always"))
    queue, stream = await open_at(server.url), StreamId("t", "s")
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(10)])
    server.kill()
    server.start()
    found = await (await open_at(server.url)).read(
        stream, "", max_records=99, max_bytes=999, max_wait=5
    )
    assert [b"%d" % i for i in range(10)] == [record.data for record in found]
