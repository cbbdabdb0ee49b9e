"""Topics are deleted and created again while processes use them: same names, new logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.apache_kafka import Operator

from kafka_brokers import Broker
from streamq._retry import RetryPolicy
from streamq.driver import (
    START,
    BackendError,
    BackendUnavailableError,
    ChunkQueue,
    Entry,
    FencedError,
    Stored,
    StreamId,
)
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaSettings
from streamq_kafka.embedded import TopicSpec

_SOON = 10.0


class _Topics:
    """The topics of one test, with one partition each, so that all streams share it."""

    def __init__(self, operator: Operator, settings: KafkaSettings) -> None:
        self.operator = operator
        self.settings = settings
        self._data = settings.topic
        self._directory = f"{settings.topic}.directory"

    async def create(self, partitions: int = 1) -> None:
        """Create the topics that do not exist."""
        await self.operator.create(
            (
                TopicSpec(self._data, partitions),
                TopicSpec(self._directory, partitions, compacted=True),
            )
        )

    async def recreate(self, *, directory: bool = True, partitions: int = 1) -> None:
        """Delete both topics, or only that of the records, and create them again."""
        names = [self._data, self._directory] if directory else [self._data]
        await self.operator.delete(*names)
        async with asyncio.timeout(_SOON):
            while set(names) & set(await self.operator.topics()):
                pass  # each request takes its time
        await self.create(partitions)

    async def delete(self) -> None:
        """Delete both."""
        await self.operator.delete(self._data, self._directory)


@pytest.fixture
async def topics(apache: Broker) -> AsyncIterator[_Topics]:
    """Return topics that no other test uses."""
    name = f"recreated-{new_stream().name}"
    settings = apache.settings(topic=name, operation_timeout_seconds=3.0)
    found = _Topics(apache.operator, settings)
    await found.create()
    yield found
    await found.delete()


def _entries(epoch: int, *data: bytes, first: int = 0) -> list[Entry]:
    return [Entry(epoch, index, each) for index, each in enumerate(data, first)]


async def _append(queue: ChunkQueue, stream: StreamId, entries: Sequence[Entry]) -> None:
    async def append() -> None:
        await queue.append(stream, entries)

    await RetryPolicy().run(append)


async def _data(queue: ChunkQueue, stream: StreamId, max_wait: float = 0.0) -> list[bytes]:
    async def read() -> Sequence[Stored]:
        return await queue.read(stream, START, max_records=100, max_bytes=2**20, max_wait=max_wait)

    return [record.data for record in await RetryPolicy().run(read)]


async def test_reader_shows_nothing_of_deleted_topics(
    topics: _Topics, open_with: OpenWith, stream: StreamId
) -> None:
    """After a migration a gateway must not show the texts of the old topics."""
    reading, writing = [await open_with(topics.settings) for _ in range(2)]
    neighbour = new_stream()
    await _append(writing, neighbour, _entries(1, *[b"neighbour"] * 20))
    await _append(writing, stream, _entries(1, *[b"old"] * 20))
    assert await _data(reading, stream) == [b"old"] * 20
    assert await _data(reading, neighbour) == [b"neighbour"] * 20
    await topics.recreate()
    restarted = await open_with(topics.settings)
    await _append(restarted, stream, _entries(2, b"new", b"newer"))
    assert await _data(reading, stream) == [b"new", b"newer"]
    assert await _data(reading, neighbour) == []


async def test_streams_continue_if_only_the_records_were_recreated(
    topics: _Topics, open_with: OpenWith
) -> None:
    """An operator recreates the large topic and keeps the directory; no stream may be stuck."""
    before = await open_with(topics.settings)
    await _append(before, new_stream(), _entries(1, *[b"before"] * 20))
    taken_over, continued = new_stream(), new_stream()
    for stream in (taken_over, continued):
        await _append(before, stream, _entries(1, b"old"))
    reading = await open_with(topics.settings)
    assert await _data(reading, taken_over) == [b"old"]
    await topics.recreate(directory=False)
    waiting = asyncio.ensure_future(_data(reading, taken_over, max_wait=_SOON))
    restarted = await open_with(topics.settings)
    await _append(restarted, taken_over, _entries(2, b"new"))
    await _append(before, continued, _entries(1, b"goes on", first=1))
    assert await waiting == [b"new"]
    for queue in (reading, restarted, before, await open_with(topics.settings)):
        assert await _data(queue, taken_over) == [b"new"]
        assert await _data(queue, continued) == [b"goes on"]


@pytest.mark.parametrize("partitions", [1, 5])
async def test_idle_process_uses_no_offset_of_the_old_topics(
    topics: _Topics, open_with: OpenWith, stream: StreamId, partitions: int
) -> None:
    """When it wakes up, the new topics are longer than the old ones, or have other partitions."""
    idle, gone = await open_with(topics.settings), new_stream()
    await _append(idle, gone, _entries(1, b"gone"))
    await _append(idle, stream, _entries(1, b"old", b"older"))
    assert await _data(idle, stream) == [b"old", b"older"]
    assert await _data(idle, gone) == [b"gone"]
    await topics.recreate(partitions=partitions)
    restarted = await open_with(topics.settings)
    await _append(restarted, stream, _entries(2, b"new"))
    later = [new_stream() for _ in range(20)]
    for each in later:
        await _append(restarted, each, _entries(1, b"later"))
    assert await _data(idle, stream) == [b"new"]
    assert await _data(idle, gone) == []
    assert [await _data(idle, each) for each in later] == [[b"later"]] * 20
    assert await idle.newest_epoch(stream) == 2
    with pytest.raises(FencedError):
        await idle.append(stream, _entries(1, b"stale", first=2))
    await _append(idle, gone, _entries(2, b"again"))
    assert await _data(restarted, gone) == [b"again"]


async def test_entry_of_the_directory_is_corrected_when_a_stream_is_taken_over(
    topics: _Topics, open_with: OpenWith, stream: StreamId
) -> None:
    """Records of the new log must be found by processes that never read the old log."""
    before = await open_with(topics.settings)
    await _append(before, new_stream(), _entries(1, *[b"before"] * 20))
    await _append(before, stream, _entries(1, b"old"))
    await topics.recreate(directory=False)
    restarted = await open_with(topics.settings)
    await _append(restarted, stream, _entries(2, b"new"))
    await _append(restarted, new_stream(), _entries(1, *[b"after"] * 40))
    assert await _data(await open_with(topics.settings), stream) == [b"new"]


@pytest.mark.parametrize("directory", [True, False], ids=["both", "records alone"])
async def test_running_writers_and_readers_meet_in_the_new_topics(
    topics: _Topics, open_with: OpenWith, *, directory: bool
) -> None:
    """A fleet is not restarted for a new topic; every process must see the later attempts."""
    writing, reading = [await open_with(topics.settings) for _ in range(2)]
    await _append(writing, new_stream(), _entries(1, *[b"before"] * 200))
    streams = [new_stream() for _ in range(4)]
    opened = {stream: asyncio.Event() for stream in streams}
    seen = {stream: asyncio.Event() for stream in streams}
    is_recreated = False

    async def write(stream: StreamId) -> None:
        epoch, index = 1, 0
        while not seen[stream].is_set():
            try:
                await writing.append(stream, [Entry(epoch, index, b"%d" % is_recreated)])
                index += 1
            except (BackendError, BackendUnavailableError):
                epoch, index = epoch + 1, 0  # another attempt
            await asyncio.sleep(0.01)

    async def read(stream: StreamId) -> None:
        position = START
        while not seen[stream].is_set():
            try:
                records = await reading.read(
                    stream, position, max_records=9, max_bytes=9_999, max_wait=1.0
                )
            except (BackendError, BackendUnavailableError):
                await asyncio.sleep(0.01)
                continue
            position = records[-1].position if records else position
            if records:
                opened[stream].set()
            if b"1" in [record.data for record in records]:
                seen[stream].set()

    async with asyncio.timeout(30.0), asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(write(stream))
            group.create_task(read(stream))
        for event in opened.values():
            await event.wait()
        await topics.recreate(directory=directory)
        is_recreated = True
    late = await open_with(topics.settings)
    for stream in streams:
        assert b"1" in await _data(late, stream)
