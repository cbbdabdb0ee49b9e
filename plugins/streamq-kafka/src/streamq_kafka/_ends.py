"""Where partitions end now, asked for many readers at once.

By a fetch at the end that is known: the answer says where the end is by now, and often brings what
lies between. (ListOffsets would say less, and Tansu answers it with the beginning of a batch.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from ._cluster import Cluster
from ._errors import TopicMissing
from ._fetched import Fetched
from ._rounds import RoundsBy

_PARTITION_BYTES = 65_536
_ANSWER_BYTES = 1_048_576
_KEPT_SECONDS = 5.0


class Ends:
    """Knows the ends of partitions.

    Args:
        cluster: Where they are.
        patience: Longest time for an answer.
    """

    def __init__(self, cluster: Cluster, patience: float) -> None:
        self._cluster = cluster
        self._patience = patience
        self._known: dict[TopicPartition, int] = {}
        self._oldest: dict[TopicPartition, int] = {}
        # With when that was, oldest first.
        self._fetched: dict[TopicPartition, tuple[float, Fetched]] = {}
        self._watchers: dict[TopicPartition, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        # For each leader, so that one that does not answer holds up nobody else.
        self._rounds: RoundsBy[int | None, TopicPartition, int] = RoundsBy(
            cluster.known_leader, self._ask, patience=patience
        )

    async def get(self, partition: TopicPartition) -> int:
        """Return the offset after the newest record that can be read, as of this call or later.

        Raises:
            aiokafka.errors.KafkaError: The leader cannot be reached, or answers with an error.
        """
        try:
            return await self._rounds.join(partition)
        except ke.UnknownTopicOrPartitionError as exc:
            error = await self._cluster.confirm(exc, partition.topic)
            if isinstance(error, TopicMissing) and partition in self._known:
                self._begin_anew(partition)  # one of the same name will be another one
            raise error from None

    def watch(self, partition: TopicPartition, anew: Callable[[], None]) -> None:
        """Have a function called whenever the log of a partition turns out to be another one."""
        self._watchers[partition] = anew

    def note(self, partition: TopicPartition, end: int) -> None:
        """Learn of an end from elsewhere: a broker that knows of less is not up to date."""
        if end > self._known.get(partition, 0):
            self._known[partition] = end

    def oldest(self, partition: TopicPartition) -> int:
        """Return the offset of the oldest record that is still there, as of the last answer."""
        return self._oldest.get(partition, 0)

    def known(self, partition: TopicPartition) -> int:
        """Return an offset that the end has reached already."""
        return self._known.get(partition, 0)

    def forget(self, partition: TopicPartition) -> None:
        """Begin anew: the log is another one now."""
        self._known.pop(partition, None)
        self._fetched.pop(partition, None)
        self._oldest.pop(partition, None)

    def fetched(self, partition: TopicPartition, offset: int) -> Fetched | None:
        """Return what came with the last answer, if that was lately and it begins there."""
        _, found = self._fetched.get(partition, (0.0, None))
        return found if found is not None and found.offset == offset else None

    def close(self, reason: Exception) -> None:
        """Fail whoever waits."""
        self._rounds.close(reason)

    async def _ask(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, int | Exception]:
        async with asyncio.timeout(self._patience):
            partitions = set(partitions)
            unknown = [partition for partition in partitions if partition not in self._known]
            results = await self._look_up(unknown)
            results.update(await self._fetch(partitions - results.keys()))
            gone = [
                partition
                for partition, result in results.items()
                if isinstance(result, ke.OffsetOutOfRangeError)
            ]
            if gone:
                results.update(await self._look_up(gone))
                again = {
                    partition
                    for partition in gone
                    if isinstance(results[partition], ke.OffsetOutOfRangeError)
                }
                results.update(await self._fetch(again))
            return results

    async def _look_up(
        self, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        """Find a place to fetch from; return what went wrong."""
        results: dict[TopicPartition, int | Exception] = {}
        if partitions:
            for partition, found in (await self._cluster.latest(partitions)).items():
                if isinstance(found, Exception):
                    results[partition] = found
                else:
                    self._known[partition] = found
        return results

    async def _fetch(
        self, partitions: set[TopicPartition]
    ) -> dict[TopicPartition, int | Exception]:
        results: dict[TopicPartition, int | Exception] = {}
        # Perhaps forgotten since: from the beginning, and if that has gone, it is looked up.
        wanted = {partition: self._known.get(partition, 0) for partition in partitions}
        answers = await self._cluster.fetch_from_leaders(
            wanted.items(), partition_bytes=_PARTITION_BYTES, max_bytes=_ANSWER_BYTES
        )
        for partition, answer in answers.items():
            if isinstance(answer, Exception):
                results[partition] = answer
                is_gone = isinstance(answer, ke.OffsetOutOfRangeError)
                if is_gone and self._known.get(partition) == wanted[partition]:
                    # The log is another one now, or has lost its end.
                    self._begin_anew(partition)
            else:
                self._keep(answer)
                self._oldest[partition] = answer.low
                self._known[partition] = max(answer.high, self._known.get(partition, 0))
                results[partition] = answer.high
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

    def _begin_anew(self, partition: TopicPartition) -> None:
        self.forget(partition)
        watcher = self._watchers.get(partition)
        if watcher is not None:
            watcher()
