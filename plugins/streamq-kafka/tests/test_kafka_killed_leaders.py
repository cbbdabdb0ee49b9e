"""Three genuine brokers are killed one after the other, while 200 streams are in use."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiokafka import TopicPartition
from tests.apache_kafka import ApacheCluster, Operator

from kafka_brokers import StartCluster
from streamq import Chunk, SealState, Settings, open_reader, open_writer
from streamq.driver import ChunkQueue, StreamId
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaSettings

_STREAMS = 200
_CHUNKS_PER_SECOND = 3.0
_STEPS = 4
"""Chunks of every stream that have to arrive before the next broker is killed or started."""


class _Load:
    """All streams, written through one queue and read through another, until :meth:`finish`."""

    def __init__(self, writing: ChunkQueue, reading: ChunkQueue) -> None:
        self._writing, self._reading = writing, reading
        self._settings = Settings(retry_seconds=60.0, idle_seconds=60.0)
        self._finish = asyncio.Event()
        self._moved = asyncio.Condition()
        self._arrived = dict.fromkeys((new_stream() for _ in range(_STREAMS)), 0)
        self.longest_silence = 0.0

    async def run(self) -> None:
        """Write and read everything; raise where anything is lost, repeated or out of order."""
        async with asyncio.TaskGroup() as group:
            for i, stream in enumerate(self._arrived):
                group.create_task(self._write(stream, i / _STREAMS / _CHUNKS_PER_SECOND))
                group.create_task(self._read(stream))

    async def advance(self) -> float:
        """Wait until every stream has advanced; return the longest silence of any stream."""
        self.longest_silence = 0.0
        goals = {stream: count + _STEPS for stream, count in self._arrived.items()}
        async with self._moved:
            await self._moved.wait_for(
                lambda: all(self._arrived[stream] >= goal for stream, goal in goals.items())
            )
        return self.longest_silence

    def finish(self) -> None:
        """Let the writers end."""
        self._finish.set()

    async def _write(self, stream: StreamId, delay: float) -> None:
        await asyncio.sleep(delay)
        settings = self._settings
        async with open_writer(stream, queue=self._writing, settings=settings) as writer:
            for i in itertools.count():
                await writer.send_chunk(str(i))
                if self._finish.is_set():
                    return
                await asyncio.sleep(1 / _CHUNKS_PER_SECOND)

    async def _read(self, stream: StreamId) -> None:
        loop = asyncio.get_running_loop()
        settings = self._settings
        async with open_reader(stream, queue=self._reading, settings=settings) as reader:
            last = loop.time()
            async for event in reader:
                now = loop.time()
                if not isinstance(event, Chunk):
                    break
                assert event.value == str(self._arrived[stream]), f"{stream}: {event}"
                self._arrived[stream] += 1
                self.longest_silence = max(self.longest_silence, now - last)
                last = now
                async with self._moved:
                    self._moved.notify_all()
            assert reader.seal is not None, f"{stream}: {event}"
            assert reader.seal.state is SealState.END


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_killed_leaders_cost_only_a_pause(
    start_cluster: StartCluster, open_with: OpenWith, note: Callable[[str, str], None]
) -> None:
    """Brokers die, and readers must still see each text whole, once and in order."""
    cluster = start_cluster()
    settings = KafkaSettings(bootstrap_servers=cluster.bootstrap)
    partition = TopicPartition("streamq", 0)
    operator = Operator(cluster.bootstrap)
    load = _Load(await open_with(settings), await open_with(settings))
    pauses = []
    async with asyncio.timeout(150), AsyncExitStack() as stack:
        running = asyncio.ensure_future(load.run())
        stack.callback(running.cancel)
        usual = await _unless_failed(running, load.advance())
        first = cluster.broker(await operator.leader(partition))
        first.kill()
        pauses.append(await _unless_failed(running, load.advance()))
        await asyncio.to_thread(first.start)
        await _until_replicated(cluster, operator, partition)
        second = cluster.broker(await operator.leader(partition))
        assert second is not first
        second.kill()
        pauses.append(await _unless_failed(running, load.advance()))
        load.finish()
        await running
    note(
        "streamq-kafka",
        f"two leaders of {_STREAMS} streams killed, longest pause "
        f"{pauses[0]:.1f} s and {pauses[1]:.1f} s (undisturbed {usual:.1f} s) with "
        "broker.session.timeout.ms=2000",
    )


async def _unless_failed(running: asyncio.Future[None], waiting: Awaitable[float]) -> float:
    """Wait for one task; raise the error of the load if that fails first."""
    task = asyncio.ensure_future(waiting)
    await asyncio.wait((task, running), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        task.cancel()
        await running
    return await task


async def _until_replicated(
    cluster: ApacheCluster, operator: Operator, partition: TopicPartition
) -> None:
    """Wait until the node that came back has caught up with the partition."""
    while len(await operator.in_sync(partition)) < len(cluster.brokers):
        pass  # each request takes its time
