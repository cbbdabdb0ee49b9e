"""Requests to brokers, and which answers are believed: brokers with scripted answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka import KafkaSettings
from streamq_kafka.live_tail._live_tail import LiveTail
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._fetched import Fetched
from streamq_kafka.requests._leader_checks import LeaderChecks
from streamq_kafka.requests._topic_ids import FetchByIdRequest

_OK, _UNKNOWN_TOPIC, _LEADER_NOT_AVAILABLE = 0, 3, 5
_SOON = 5.0
THERE, GONE = TopicPartition("there", 0), TopicPartition("gone", 0)


class _Broker:
    """A client of aiokafka whose only broker leads everything and gives scripted answers."""

    def __init__(self) -> None:
        self.cluster = SimpleNamespace(
            leader_for_partition=lambda partition: 0,
            partitions_for_topic=lambda topic: {0},
            unauthorized_topics=set(),
        )
        self._conns: dict[tuple[int, int], object] = {(0, 0): object()}
        self.asked: list[str] = []
        self.first_topics: set[str] = set()
        self.high = 0
        self.lags = 0
        self.refreshed = 0

    def restart(self) -> None:
        """Lead again: the broker knows what was acknowledged after two more requests."""
        self._conns[0, 0] = object()
        self.lags = 2

    async def force_metadata_update(self) -> bool:
        self.refreshed += 1
        return True

    async def send(self, node: int, request: Any, *, group: int) -> Any:
        is_fetch = isinstance(request, FetchByIdRequest)
        topics = request._plain.topics if is_fetch else request._topics
        self.asked.append("fetch" if is_fetch else "offsets")
        self.first_topics.add(topics[0][0])
        self.lags -= self.lags > 0 and not is_fetch

        def answer(topic: str) -> tuple[Any, ...]:
            code = _UNKNOWN_TOPIC if topic == GONE.topic else _OK
            if is_fetch:
                return 0, code, 0 if self.lags else self.high, b""
            return 0, _LEADER_NOT_AVAILABLE if self.lags else code, -1, self.high

        found = [(topic, [answer(topic)]) for topic, _ in topics]
        return SimpleNamespace(API_VERSION=4, topics=found)


def _cluster(broker: _Broker) -> Cluster:
    cluster = Cluster(KafkaSettings())
    cluster.connections.client = cast("Any", broker)
    return cluster


async def _fetch(cluster: Cluster, *partitions: TopicPartition) -> list[Fetched | Exception]:
    wanted = [(partition, 0) for partition in partitions]
    found = await cluster.fetch_from_leaders(wanted, partition_bytes=1, max_bytes=1)
    return [found[partition] for partition in partitions]


async def test_new_leader_is_not_believed_until_it_is_up_to_date() -> None:
    """A request at that moment must not miss a takeover that the dead leader acknowledged."""
    broker = _Broker()
    cluster = _cluster(broker)
    broker.high = 7
    for expected in (["offsets", "fetch"], ["fetch"]):
        broker.asked = []
        (found,) = await _fetch(cluster, THERE)
        assert isinstance(found, Fetched)
        assert broker.asked == expected, "one more request for each leader, not for each fetch"
    broker.high = 9
    broker.restart()
    broker.asked = []
    (found,) = await _fetch(cluster, THERE)
    assert isinstance(found, Fetched)
    assert found.high_watermark == 9
    assert broker.asked == ["offsets", "offsets", "fetch"]


async def test_unknown_topic_delays_no_request_for_others() -> None:
    """Finding out whether it was deleted takes a second; others must not wait for that."""
    broker = _Broker()
    there, gone = await _fetch(_cluster(broker), THERE, GONE)
    assert isinstance(there, Fetched)
    assert isinstance(gone, ke.UnknownTopicOrPartitionError)
    assert broker.refreshed == 0


async def test_every_topic_is_sometimes_the_first() -> None:
    """A broker fills an answer from the front; a busy tenant must not starve the next one."""
    broker = _Broker()
    cluster = _cluster(broker)
    for _ in range(64):
        await _fetch(cluster, THERE, TopicPartition("other", 0))
    assert broker.first_topics == {"there", "other"}


def test_broker_that_was_behind_long_ago_gets_its_time_again() -> None:
    """The second failover of a day gets the same time as the first before its log counts as new."""
    now = 0.0
    checks = LeaderChecks(lambda: now)
    assert isinstance(checks.check(THERE, 5, 3), ke.LeaderNotAvailableError)
    now = 3600.0
    assert isinstance(checks.check(THERE, 5, 3), ke.LeaderNotAvailableError)
    now += 1.0
    assert isinstance(checks.check(THERE, 5, 3), ke.LeaderNotAvailableError)
    now += 1.5
    assert isinstance(checks.check(THERE, 5, 3), ke.OffsetOutOfRangeError)
    assert isinstance(checks.check(THERE, 5, 3), ke.LeaderNotAvailableError)
    assert checks.check(THERE, 5, 5) is None


class _Deleting:
    """A cluster where one topic is being deleted, which its metadata does not show yet."""

    def __init__(self) -> None:
        self.metadata = self
        self.explained = asyncio.Event()

    async def fetch(self, node: int, wanted: Iterable[Any], **_: Any) -> list[Fetched]:
        await asyncio.sleep(0)
        return [
            Fetched(
                partition,
                offset,
                ke.UnknownTopicOrPartitionError() if partition == GONE else None,
                9,
                0,
                b"" if partition == GONE else b"data",
            )
            for partition, offset in wanted
        ]

    async def explain(self, error: ke.KafkaError, topic: str) -> ke.KafkaError:
        await self.explained.wait()
        return error


class _Sink:
    """Counts the answers that it takes, and keeps the reason why they stopped."""

    def __init__(self) -> None:
        self.taken = asyncio.Semaphore(0)
        self.error: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def take(self, fetched: Fetched) -> int:
        self.taken.release()
        return fetched.offset + 1

    def log_replaced(self) -> None:
        raise AssertionError

    def stopped(self, error: Exception | None) -> None:
        self.error.set_result(error)

    def is_wanted(self, now: float) -> bool:
        return True


async def test_deleted_topic_delays_no_other_that_is_followed() -> None:
    """The removal of one tenant's topic must not delay the texts of other tenants."""
    cluster = _Deleting()
    live_tail = LiveTail(cast("Cluster", cluster), 10)
    there, gone = _Sink(), _Sink()
    async with asyncio.timeout(_SOON):
        live_tail.follow(THERE, 0, 0, there)
        live_tail.follow(GONE, 0, 0, gone)
        for _ in range(5):
            await there.taken.acquire()
        assert not gone.error.done()
        cluster.explained.set()
        assert isinstance(await gone.error, ke.UnknownTopicOrPartitionError)
        await live_tail.close(ke.ConsumerStoppedError())
    assert isinstance(await there.error, ke.ConsumerStoppedError)


async def test_closing_the_live_tail_ends_readers_of_an_unknown_topic() -> None:
    """A reader must not wait for a topic that is no longer requested."""
    live_tail = LiveTail(cast("Cluster", _Deleting()), 10)
    there, gone = _Sink(), _Sink()
    async with asyncio.timeout(_SOON):
        live_tail.follow(THERE, 0, 0, there)
        live_tail.follow(GONE, 0, 0, gone)
        await there.taken.acquire()
        await live_tail.close(ke.ConsumerStoppedError())
        assert isinstance(await gone.error, ke.ConsumerStoppedError)
