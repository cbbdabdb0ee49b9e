"""Decides how long a broker may search for the records of a fetch.

Apache Kafka takes the time that it needs. Tansu searches all batches of a partition, returns
nothing or too little if that takes longer than the wait in the request, and waits for all of that
time if there is nothing. Its requests therefore have the shortest wait that is sufficient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from aiokafka.structs import TopicPartition

from ._fetched import Fetched, end_of_batches

_LONGEST_MS = 1_000


class FetchWaits:
    """The wait that each partition needs, learned from the answers of brokers.

    Args:
        timeout_seconds: Longest time for an answer; no wait takes more than half of it.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._longest_ms = min(_LONGEST_MS, max(1, int(timeout_seconds * 500)))
        self._waits_ms: dict[TopicPartition, int] = {}
        self._unseen: dict[TopicPartition, int] = {}

    def wait_ms(self, partitions: Iterable[TopicPartition]) -> int:
        """Return the shortest wait to request for these partitions."""
        if not self._waits_ms:
            return 1
        return max((self._waits_ms.get(partition, 1) for partition in partitions), default=1)

    def learn(
        self, answers: Sequence[Fetched], asked_ms: int, seconds: float, partition_bytes: int
    ) -> None:
        """Adjust the waits to an answer.

        Args:
            answers: The answer for each partition.
            asked_ms: The wait that was requested.
            seconds: How long the answer took.
            partition_bytes: How many bytes of each partition were requested.
        """
        taken_ms = seconds * 1_000
        is_empty = not any(answer.data for answer in answers)
        for answer in answers:
            partition = answer.partition
            # If other partitions had records, the answer may have had no room for this one.
            is_unseen = is_empty and answer.error is None and answer.high_watermark > answer.offset
            if is_unseen and self._unseen.get(partition) == answer.offset:
                self._lengthen(partition, asked_ms)
            elif is_unseen:  # perhaps it was counted a moment ago, and is returned the next time
                self._unseen[partition] = answer.offset
            elif answer.data:
                self._unseen.pop(partition, None)
                has_room = len(answer.data) < partition_bytes // 2
                if has_room and taken_ms >= asked_ms and _is_cut(answer):
                    self._lengthen(partition, asked_ms)  # the broker had no time for the rest
                elif self._waits_ms.get(partition, 1) > 2 * taken_ms:
                    self._waits_ms[partition] = max(1, math.ceil(2 * taken_ms))

    def _lengthen(self, partition: TopicPartition, asked_ms: int) -> None:
        self._waits_ms[partition] = min(self._longest_ms, asked_ms * 2)


def _is_cut(answer: Fetched) -> bool:
    """Whether the answer ends before the partition does."""
    return 0 < end_of_batches(answer.data) < answer.high_watermark
