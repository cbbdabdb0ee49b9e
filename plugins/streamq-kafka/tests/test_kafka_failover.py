"""Three genuine brokers: readers in another process while a leader dies or hangs."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from tests.apache_kafka import ApacheCluster, ApacheKafka, Operator

from kafka_brokers import TOPICS, need_apache, run_apart
from streamq import Settings, open_writer
from streamq._retry import RetryPolicy
from streamq.driver import (
    START,
    BackendUnavailableError,
    Entry,
    FencedError,
    StreamId,
)
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaSettings
from streamq_kafka._naming import key_of, partition_of
from streamq_kafka.embedded import TopicSpec

_LONG = 60.0
_SECONDS = 3.0
_RETRY = RetryPolicy(_LONG)
_SPREADING = {
    # Leadership returns to the preferred nodes within seconds instead of minutes. Otherwise, after
    # a node was killed, or was slow for a moment on a busy machine, one node would lead everything.
    "leader.imbalance.check.interval.seconds": "1",
    "leader.imbalance.per.broker.percentage": "0",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ApacheCluster]:
    """Return a cluster; the tests of this module start every node that they kill."""
    need_apache()
    with ApacheCluster(properties=_SPREADING) as found:
        # Assigned by the cluster, no node might lead the same partition of both topics.
        nodes = [broker.node_id for broker in found.brokers]
        run_apart(Operator(found.bootstrap).create(TOPICS, nodes=nodes))
        yield found


def _settings(cluster: ApacheCluster) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=cluster.bootstrap, operation_timeout_seconds=_SECONDS)


async def _leader(cluster: ApacheCluster, topic: str, number: int) -> ApacheKafka:
    return cluster.broker(await Operator(cluster.bootstrap).leader(TopicPartition(topic, number)))


async def _leaders(cluster: ApacheCluster, stream: StreamId) -> list[ApacheKafka]:
    number = partition_of(key_of(stream), 12)
    return [await _leader(cluster, topic.name, number) for topic in TOPICS]


async def _led_by_one(cluster: ApacheCluster) -> tuple[StreamId, ApacheKafka, StreamId]:
    """Return a stream whose records and whose entry are led by the same node, that node, and
    another stream, which it does not lead."""
    async with asyncio.timeout(_LONG):
        while True:
            stream, elsewhere = new_stream(), new_stream()
            first, second = await _leaders(cluster, stream)
            if first is second and first not in await _leaders(cluster, elsewhere):
                return stream, first, elsewhere


@asynccontextmanager
async def _tail_in_a_process(
    cluster: ApacheCluster, stream: StreamId
) -> AsyncIterator[asyncio.StreamReader]:
    """Yield the output of another process that follows a stream; the process has to succeed."""
    settings = {
        "STREAMQ_BACKEND": "kafka",
        "STREAMQ_KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap,
        "STREAMQ_TENANT": stream.tenant,
        "STREAMQ_RETRY_SECONDS": str(_LONG),
    }
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("streamq"), "tail", stream.name, "--wait", "30"),
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process.stdout
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_other_process_reads_on_when_the_leader_dies(
    cluster: ApacheCluster, open_with: OpenWith
) -> None:
    """A gateway is another process than the worker, and has to find the new leaders itself."""
    settings = _settings(cluster)
    queue, other = await open_with(settings), await open_with(settings)
    stream, node, _ = await _led_by_one(cluster)
    taken_over = new_stream()
    while partition_of(key_of(taken_over), 12) != partition_of(key_of(stream), 12):
        taken_over = new_stream()
    await queue.append(taken_over, [Entry(3, 0, b"open")])
    lines = [f"line {index}\n" for index in range(6)]
    async with asyncio.timeout(_LONG), _tail_in_a_process(cluster, stream) as printed:
        patient = Settings(retry_seconds=_LONG)
        async with await open_writer(stream, queue=queue, settings=patient) as writer:
            for line in lines[:3]:
                await writer.send_chunk(line)
            assert [(await printed.readline()).decode() for _ in range(3)] == lines[:3]
            await other.append(taken_over, [Entry(9, 0, b"open")])
            node.kill()
            try:
                # The next leader knows what the dead leader has acknowledged.
                assert await _RETRY.run(lambda: queue.newest_epoch(taken_over)) == 9
                with pytest.raises(FencedError):
                    await queue.append(taken_over, [Entry(3, 1, b"stale")])
                for line in lines[3:]:
                    await writer.send_chunk(line)
                assert [(await printed.readline()).decode() for _ in range(3)] == lines[3:]
            finally:
                await asyncio.to_thread(node.start)


@pytest.mark.full
async def test_too_few_replicas_are_named_and_not_blamed_on_a_silent_broker(
    cluster: ApacheCluster, open_with: OpenWith
) -> None:
    """The client repeats a batch until the call ends, and then knows only that time is up."""
    topic, stream = f"strict-{new_stream().name}", new_stream()
    operator = Operator(cluster.bootstrap)
    nodes = [broker.node_id for broker in cluster.brokers]
    strict = (TopicSpec(topic, 1), TopicSpec(f"{topic}.directory", 1, compacted=True))
    await operator.create(strict, nodes=nodes)
    queue = await open_with(_settings(cluster).model_copy(update={"topic": topic}))
    await _RETRY.run(lambda: queue.append(stream, [Entry(1, 0, b"open")]))
    await operator.configure(topic, {"min.insync.replicas": "3"})
    leader = await operator.leader(TopicPartition(topic, 0))
    node = next(broker for broker in cluster.brokers if broker.node_id != leader)
    node.kill()
    try:
        said = ""
        async with asyncio.timeout(_LONG):
            while "min.insync.replicas" not in said:  # first the cluster has to notice
                with pytest.raises(BackendUnavailableError) as caught:
                    await queue.append(stream, [Entry(1, 1, b"more")])
                said = str(caught.value)
    finally:
        await asyncio.to_thread(node.start)
    await _RETRY.run(lambda: queue.append(stream, [Entry(1, 1, b"more")]))


async def test_every_call_ends_in_time_while_a_leader_is_frozen(
    cluster: ApacheCluster, open_with: OpenWith
) -> None:
    """A machine that swaps accepts connections and answers nothing; no call may hang with it."""
    settings = _settings(cluster)
    queue, fresh = await open_with(settings), await open_with(settings)
    stream, node, elsewhere = await _led_by_one(cluster)
    for each in (stream, elsewhere):
        await _RETRY.run(functools.partial(queue.append, each, [Entry(1, 0, b"open")]))
    os.kill(node.pid, signal.SIGSTOP)
    try:
        calls = [
            call
            for asked in (queue, fresh)
            for each in (stream, elsewhere)
            for call in (
                asked.append(each, [Entry(1, 1, b"more")]),
                asked.read(each, START, max_records=9, max_bytes=999, max_wait=0),
                asked.describe(each, last=1),
                asked.newest_epoch(each),
            )
        ]
        async with asyncio.timeout(5 * _SECONDS):
            ended = await asyncio.gather(*calls, return_exceptions=True)
        failed = [each for each in ended if isinstance(each, BaseException)]
        assert {type(each) for each in failed} <= {BackendUnavailableError}, failed
        assert await _RETRY.run(lambda: queue.newest_epoch(elsewhere)) == 1
    finally:
        os.kill(node.pid, signal.SIGCONT)
    assert await _RETRY.run(lambda: fresh.newest_epoch(stream)) == 1
