"""How long a broker may look for what is there.

Apache Kafka takes the time that it needs. Tansu looks through all batches of a partition, says
nothing or little if that takes longer than the wait it was asked for, and waits for the whole of it
where nothing is: it gets as little as will do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from aiokafka.structs import TopicPartition

from ._fetched import Fetched, reached

_LONGEST_MS = 1_000


class Looking:
    """Learns from the answers of brokers how long they have to be given.

    Args:
        patience: Longest time for an answer, in seconds; no wait takes more than half of it.
    """

    def __init__(self, patience: float) -> None:
        self._longest_ms = min(_LONGEST_MS, max(1, int(patience * 500)))
        self._waits_ms: dict[TopicPartition, int] = {}
        self._unseen: dict[TopicPartition, int] = {}

    def wait_ms(self, partitions: Iterable[TopicPartition]) -> int:
        """Return the least wait to ask for."""
        if not self._waits_ms:
            return 1
        return max((self._waits_ms.get(partition, 1) for partition in partitions), default=1)

    def learn(
        self, answers: Sequence[Fetched], asked_ms: int, seconds: float, partition_bytes: int
    ) -> None:
        """Take note of an answer.

        Args:
            answers: What it says of each partition.
            asked_ms: What wait was asked for.
            seconds: How long it has taken.
            partition_bytes: How much of each partition was asked for.
        """
        taken_ms = seconds * 1_000
        is_empty = not any(answer.data for answer in answers)
        for answer in answers:
            partition = answer.partition
            # Beside others that have something, an answer may have been too full for this one.
            is_unseen = is_empty and answer.error is None and answer.high > answer.offset
            if is_unseen and self._unseen.get(partition) == answer.offset:
                self._lengthen(partition, asked_ms)
            elif is_unseen:  # perhaps it was counted just now, and is there the next time
                self._unseen[partition] = answer.offset
            elif answer.data:
                self._unseen.pop(partition, None)
                has_room = len(answer.data) < partition_bytes // 2
                if has_room and taken_ms >= asked_ms and 0 < reached(answer.data) < answer.high:
                    self._lengthen(partition, asked_ms)  # it had no time for the rest
                elif self._waits_ms.get(partition, 1) > 2 * taken_ms:
                    self._waits_ms[partition] = max(1, math.ceil(2 * taken_ms))

    def _lengthen(self, partition: TopicPartition, asked_ms: int) -> None:
        self._waits_ms[partition] = min(self._longest_ms, asked_ms * 2)
