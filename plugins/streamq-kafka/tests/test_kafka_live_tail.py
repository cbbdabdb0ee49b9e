"""Following many streams: few connections, no interference, and no needless requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from kafka_brokers import Broker, neighbours
from streamq.driver import START, BackendUnavailableError, ChunkQueue, Entry, Stored, StreamId
from streamq.testing import OpenWith, new_stream
from streamq_kafka._data_topic import DataTopic
from streamq_kafka._naming import key_of, partition_of
from streamq_kafka._queue import KafkaQueue
from streamq_kafka.reading._partition_reader import PartitionReader
from streamq_kafka.requests._client import REQUEST_LANE
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._fetched import Fetched

_SOON = 15.0


async def _open(open_with: OpenWith, broker: Broker, **options: Any) -> KafkaQueue:
    queue = await open_with(broker.settings(**options))
    assert isinstance(queue, KafkaQueue)
    return queue


async def _begin(queue: ChunkQueue, stream: StreamId) -> str:
    await queue.append(stream, [Entry(1, 0, b"open")])
    (opening,) = await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=0)
    return opening.position


async def _follow(queue: ChunkQueue, stream: StreamId, after: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(_SOON):
        while len(found) < count:
            records = await _wait(queue, stream, after)
            found += [record.data for record in records]
            after = records[-1].position if records else after
    return found


async def _wait(queue: ChunkQueue, stream: StreamId, after: str) -> Sequence[Stored]:
    return await queue.read(stream, after, max_records=50, max_bytes=10**6, max_wait=_SOON)


async def _write(queue: ChunkQueue, stream: StreamId, count: int, size: int = 1) -> list[bytes]:
    data = [b"%d".ljust(size) % index for index in range(1, count + 1)]
    for index, each in enumerate(data, 1):
        await queue.append(stream, [Entry(1, index, each)])
    return data


async def _blocked(queue: KafkaQueue, stream: StreamId, after: str) -> asyncio.Task[Any]:
    """Return a read once it waits for the live tail."""
    task = asyncio.ensure_future(_wait(queue, stream, after))
    partition = queue._topics["streamq"].partition(partition_of(key_of(stream), 12))
    async with asyncio.timeout(_SOON):
        while (tap := partition.taps.get(key_of(stream))) is None or not tap.is_waited_for:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return task


async def test_many_streams_need_few_connections(broker: Broker, open_with: OpenWith) -> None:
    """Brokers and firewalls limit connections; one per stream would fail at a few thousand."""
    queue = await _open(open_with, broker)
    streams = [new_stream() for _ in range(200)]
    positions = await asyncio.gather(*(_begin(queue, stream) for stream in streams))
    readers = [
        asyncio.ensure_future(_follow(queue, stream, position, 3))
        for stream, position in zip(streams, positions, strict=True)
    ]
    written = await asyncio.gather(*(_write(queue, stream, 3) for stream in streams))
    assert await asyncio.gather(*readers) == written
    producer = queue._producer._producer.current
    assert producer is not None
    connections = {**queue._cluster.connections.client._conns, **producer.client._conns}
    assert len(connections) <= 3 + 1


async def test_readers_that_come_and_go_do_not_affect_a_reader_that_stays(
    broker: Broker, open_with: OpenWith
) -> None:
    """At a gateway, browsers come and go all the time."""
    queue = await _open(open_with, broker)
    stream = new_stream()
    reader = asyncio.ensure_future(_follow(queue, stream, await _begin(queue, stream), 150))
    writer = asyncio.ensure_future(_write(queue, stream, 150))
    while not writer.done():
        visitors = [
            asyncio.ensure_future(_wait(queue, new_stream(), after)) for after in (START, "7-0")
        ]
        await asyncio.sleep(0.01)
        for visitor in visitors:
            visitor.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)
    assert await reader == await writer


async def test_slow_reader_delays_no_other_and_misses_nothing(
    broker: Broker, open_with: OpenWith
) -> None:
    """One stuck browser tab must not stop the partition's other streams, nor fill the memory."""
    queue = await _open(open_with, broker, tail_bytes=2_048)
    slow, quick = neighbours(2)
    slow_position, quick_position = await _begin(queue, slow), await _begin(queue, quick)
    first = await _blocked(queue, slow, slow_position)
    reader = asyncio.ensure_future(_follow(queue, quick, quick_position, 60))
    lines, _ = await asyncio.gather(_write(queue, slow, 60, 500), _write(queue, quick, 60))
    assert len(await reader) == 60
    assert queue._budget.used < 20_000
    seen = [record.data for record in await first]
    position = (await first)[-1].position
    assert seen + await _follow(queue, slow, position, 60 - len(seen)) == lines


async def test_burst_while_catching_up_affects_no_other_stream(
    broker: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst larger than a tap must not be taken for a new log, which all readers would feel."""
    queue = await _open(open_with, broker, tail_bytes=1_024)
    stream, neighbour = neighbours(2)
    waiting = await _blocked(queue, neighbour, await _begin(queue, neighbour))
    position = await _begin(queue, stream)
    locate, times, lines = DataTopic.locate, 0, list[bytes]()

    async def with_burst(self: DataTopic, key: bytes) -> Any:
        nonlocal times
        times += 1
        listing, partition, end = await locate(self, key)
        if times == 2:  # the tap exists, and the records after it have not been read yet
            lines.extend(await _write(queue, stream, 10, 500))
            async with asyncio.timeout(_SOON):
                while (tap := partition.taps.get(key)) is not None and tap.covers(end):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        return listing, partition, end

    monkeypatch.setattr(DataTopic, "locate", with_burst)
    lost: list[object] = []
    monkeypatch.setattr(PartitionReader, "forget", lost.append)
    assert await _follow(queue, stream, position, 10) == lines
    assert times > 2
    assert lost == []
    assert not waiting.done()
    waiting.cancel()


async def test_history_joins_the_live_tail_without_gap_or_repeat(
    broker: Broker, open_with: OpenWith
) -> None:
    """A reader that starts in the middle sees everything, and everything once."""
    writing = await _open(open_with, broker)
    reading = await _open(open_with, broker, tail_bytes=2_048)
    stream, other = neighbours(2)
    await _begin(writing, stream)
    await _begin(writing, other)
    writers = asyncio.gather(_write(writing, stream, 200, 200), _write(writing, other, 200, 200))
    readers = []
    for _ in range(8):
        readers.append(asyncio.ensure_future(_follow(reading, stream, START, 201)))
        await asyncio.sleep(0.02)
    lines, _ = await writers
    for found in await asyncio.gather(*readers):
        assert found == [b"open", *lines]


async def test_repeated_scan_continues_where_it_was_cut(
    apache: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an old stream there may be gigabytes of others, more than one call can read."""
    writing = await _open(open_with, apache)
    stream, other = neighbours(2)
    position = await _begin(writing, stream)
    await _begin(writing, other)
    block = [Entry(1, index, bytes(1_000)) for index in range(1, 1_001)]
    await writing.append(other, block)
    queue = await _open(open_with, apache)
    pages: list[int] = []
    fetch_now = Cluster.fetch_now

    async def counting(self: Cluster, partition: Any, offset: int, **options: Any) -> Fetched:
        pages.append(offset)
        if len(pages) == 3:
            raise BackendUnavailableError("cut in the middle", backend="kafka")
        return await fetch_now(self, partition, offset, **options)

    monkeypatch.setattr(Cluster, "fetch_now", counting)
    with pytest.raises(BackendUnavailableError):
        await queue.read(stream, position, max_records=9, max_bytes=999, max_wait=0)
    queue._pages.forget(TopicPartition("streamq", 3))
    for _ in range(2):
        found = await queue.read(stream, position, max_records=9, max_bytes=999, max_wait=0)
        assert list(found) == []
    assert pages[2] == pages[3], "it continues where it was cut"
    assert pages == sorted(pages)
    assert len(set(pages)) == len(pages) - 1


async def test_waiting_costs_no_requests(
    apache: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents think for minutes; a thousand idle streams must not use a processor."""
    queue = await _open(open_with, apache, fetch_wait_ms=500)
    streams = [new_stream() for _ in range(30)]
    positions = await asyncio.gather(*(_begin(queue, stream) for stream in streams))
    readers = [await _blocked(queue, *each) for each in zip(streams, positions, strict=True)]
    asked: list[int] = []
    fetch = Cluster.fetch

    async def counting(self: Cluster, node: int, wanted: Any, **options: Any) -> list[Fetched]:
        asked.append(options.get("lane", REQUEST_LANE))
        return await fetch(self, node, wanted, **options)

    monkeypatch.setattr(Cluster, "fetch", counting)
    await asyncio.sleep(1.2)
    assert len(asked) <= 4, "one fetch for all of them, held by the broker for half a second"
    assert REQUEST_LANE not in asked
    for reader in readers:
        reader.cancel()


async def test_broker_that_never_waits_is_asked_with_pauses(
    apache: Broker, open_with: OpenWith, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some imitations of Kafka answer at once that there is nothing; a loop would use a core."""
    queue = await _open(open_with, apache, fetch_wait_ms=400)
    position = await _begin(queue, stream)
    asked = 0
    fetch = Cluster.fetch

    async def hasty(self: Cluster, node: int, wanted: Any, **options: Any) -> list[Fetched]:
        nonlocal asked
        asked += 1
        return await fetch(self, node, wanted, **{**options, "wait_ms": 0})

    monkeypatch.setattr(Cluster, "fetch", hasty)
    found = await queue.read(stream, position, max_records=1, max_bytes=99, max_wait=1.0)
    assert list(found) == []
    assert asked < 30


async def test_failed_fetch_fails_the_readers_and_the_next_read_recovers(
    broker: Broker, open_with: OpenWith, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that waits for ever on a dead live tail is the worst failure."""
    queue = await _open(open_with, broker)
    position = await _begin(queue, stream)
    reader = await _blocked(queue, stream, position)

    async def broken(*_: object, **__: object) -> list[Fetched]:
        raise ConnectionResetError(104, "reset")

    monkeypatch.setattr(Cluster, "fetch", broken)
    with pytest.raises(BackendUnavailableError):
        await asyncio.wait_for(reader, _SOON)
    monkeypatch.undo()
    reader = await _blocked(queue, stream, position)
    await queue.append(stream, [Entry(1, 1, b"b")])
    assert [record.data for record in await reader] == [b"b"]


async def test_position_of_a_deleted_log_leads_to_the_new_one(
    broker: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """After a topic was recreated, older cursors must not wait for ever."""
    queue = await _open(open_with, broker)
    position = await _begin(queue, stream)
    await queue.append(stream, [Entry(1, 1, b"b")])
    beyond = f"{position.partition('-')[0]}-{10**12}"
    found = await queue.read(stream, beyond, max_records=9, max_bytes=999, max_wait=_SOON)
    assert [record.data for record in found] == [b"open", b"b"]
