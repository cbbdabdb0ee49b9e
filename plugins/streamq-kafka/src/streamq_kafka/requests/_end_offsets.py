"""Finds where partitions end now, with one request for many readers.

It fetches from the end that is known: the answer states the end as of now, and often contains the
records between. (ListOffsets would state less, and Tansu answers it with the beginning of a batch.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka._errors import TopicMissing

from ._cluster import Cluster
from ._coalescing import GroupedCoalescer
from ._fetched import Fetched

_PARTITION_BYTES = 65_536
_ANSWER_BYTES = 1_048_576
_KEPT_SECONDS = 5.0


class EndOffsets:
    """The ends of partitions, as far as they are known, and how to find them.

    Args:
        cluster: The cluster of the partitions.
        timeout_seconds: Longest time for an answer.
    """

    def __init__(self, cluster: Cluster, timeout_seconds: float) -> None:
        self._cluster = cluster
        self._timeout_seconds = timeout_seconds
        self._known: dict[TopicPartition, int] = {}
        self._log_starts: dict[TopicPartition, int] = {}
        # With the time of the answer, oldest first.
        self._fetched: dict[TopicPartition, tuple[float, Fetched]] = {}
        self._watchers: dict[TopicPartition, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        # One for each leader, so that a leader that does not answer does not delay the others.
        self._coalescer: GroupedCoalescer[int | None, TopicPartition, int] = GroupedCoalescer(
            cluster.metadata.known_leader, self._ask, timeout_seconds=timeout_seconds
        )

    async def get(self, partition: TopicPartition) -> int:
        """Return the offset after the newest record that can be read, as of this call or later.

        Raises:
            aiokafka.errors.KafkaError: The leader cannot be reached, or answers with an error.
        """
        try:
            return await self._coalescer.load(partition)
        except ke.UnknownTopicOrPartitionError as exc:
            error = await self._cluster.metadata.explain(exc, partition.topic)
            if isinstance(error, TopicMissing) and partition in self._known:
                self._report_new_log(partition)  # a later topic of that name has a new log
            raise error from None

    def watch(self, partition: TopicPartition, on_log_replaced: Callable[[], None]) -> None:
        """Have a function called whenever a partition turns out to have a new log."""
        self._watchers[partition] = on_log_replaced

    def note(self, partition: TopicPartition, end: int) -> None:
        """Note an end from another request: a broker that returns less is not up to date."""
        if end > self._known.get(partition, 0):
            self._known[partition] = end

    def log_start(self, partition: TopicPartition) -> int:
        """Return the offset of the oldest record that still exists, as of the last answer."""
        return self._log_starts.get(partition, 0)

    def known(self, partition: TopicPartition) -> int:
        """Return an offset that the end has already reached."""
        return self._known.get(partition, 0)

    def forget(self, partition: TopicPartition) -> None:
        """Forget a partition: it has a new log."""
        self._known.pop(partition, None)
        self._fetched.pop(partition, None)
        self._log_starts.pop(partition, None)

    def fetched(self, partition: TopicPartition, offset: int) -> Fetched | None:
        """Return the records of the last answer, if it is recent and begins at this offset."""
        _, found = self._fetched.get(partition, (0.0, None))
        return found if found is not None and found.offset == offset else None

    def close(self, reason: Exception) -> None:
        """Fail every call that waits."""
        self._coalescer.close(reason)

    async def _ask(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | Exception]:
        async with asyncio.timeout(self._timeout_seconds):
            partitions = set(partitions)
            unknown = [partition for partition in partitions if partition not in self._known]
            results = await self._look_up(unknown)
            results.update(await self._fetch(partitions - results.keys()))
            truncated = [
                partition
                for partition, result in results.items()
                if isinstance(result, ke.OffsetOutOfRangeError)
            ]
            if truncated:
                results.update(await self._look_up(truncated))
                again = {
                    partition
                    for partition in truncated
                    if isinstance(results[partition], ke.OffsetOutOfRangeError)
                }
                results.update(await self._fetch(again))
            return results

    async def _look_up(
        self, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        """Find an offset to fetch from; return the errors."""
        results: dict[TopicPartition, int | Exception] = {}
        if partitions:
            for partition, found in (await self._cluster.end_offsets(partitions)).items():
                if isinstance(found, Exception):
                    results[partition] = found
                else:
                    self._known[partition] = found
        return results

    async def _fetch(
        self, partitions: set[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        results: dict[TopicPartition, int | Exception] = {}
        # A partition may be forgotten meanwhile. Then the fetch is from the beginning, and the end
        # is looked up if the beginning no longer exists.
        wanted = {partition: self._known.get(partition, 0) for partition in partitions}
        answers = await self._cluster.fetch_from_leaders(
            wanted.items(), partition_bytes=_PARTITION_BYTES, max_bytes=_ANSWER_BYTES
        )
        for partition, answer in answers.items():
            if isinstance(answer, Exception):
                results[partition] = answer
                is_truncated = isinstance(answer, ke.OffsetOutOfRangeError)
                if is_truncated and self._known.get(partition) == wanted[partition]:
                    # The partition has a new log, or has lost the end of its log.
                    self._report_new_log(partition)
            else:
                self._keep(answer)
                self._log_starts[partition] = answer.log_start
                self._known[partition] = max(answer.high_watermark, self._known.get(partition, 0))
                results[partition] = answer.high_watermark
        return results

    def _keep(self, answer: Fetched) -> None:
        now = self._loop.time()
        self._fetched.pop(answer.partition, None)
        if answer.data:
            self._fetched[answer.partition] = now, answer
        for partition, (since, _) in tuple(self._fetched.items()):
            if now - since < _KEPT_SECONDS:
                break
            del self._fetched[partition]

    def _report_new_log(self, partition: TopicPartition) -> None:
        self.forget(partition)
        watcher = self._watchers.get(partition)
        if watcher is not None:
            watcher()
