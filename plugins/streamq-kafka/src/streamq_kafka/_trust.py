"""Which answers of brokers are to be believed: one that begins to lead knows too little."""

from __future__ import annotations

from collections.abc import Callable

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

_BEHIND_SECONDS = 2.0
_FORGOTTEN_SECONDS = 30.0


class Trust:
    """What is known of the leaders that have been asked.

    A new leader needs a moment to learn what the one before it has acknowledged. Until then it
    answers a fetch with less, and ListOffsets with an error: each is asked that once.

    Args:
        clock: Seconds that go by.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections: dict[TopicPartition, object] = {}
        self._behind: dict[TopicPartition, tuple[float, float]] = {}

    def has(self, partition: TopicPartition, connection: object) -> bool:
        """Whether who is at the other end is known to know what was acknowledged before it led."""
        return connection is not None and self._connections.get(partition) is connection

    def give(self, partition: TopicPartition, connection: object) -> None:
        """Note that a leader has told where a partition ends; with its process that is over."""
        self._connections[partition] = connection

    def withdraw(self, partition: TopicPartition) -> None:
        """Note that the leader may be another one, or the same one once more."""
        self._connections.pop(partition, None)

    def judge(self, partition: TopicPartition, offset: int, high: int) -> ke.KafkaError | None:
        """Judge an answer without an error: does the broker know what others have told us of?"""
        if high >= offset:
            if self._behind:
                self._behind.pop(partition, None)
            return None
        # A new leader needs a moment to learn how much has been replicated. After that the log is
        # shorter than it was: one kept in memory, say, by a broker that was restarted.
        now = self._clock()
        where = f"{partition.topic}, partition {partition.partition}"
        since, last = self._behind.get(partition, (now, now))
        if now - last > _FORGOTTEN_SECONDS:
            since = now  # that was another time
        if now - since < _BEHIND_SECONDS:
            self._behind[partition] = since, now
            return ke.LeaderNotAvailableError(f"{where} is not known up to offset {offset} yet")
        self._behind.pop(partition, None)
        return ke.OffsetOutOfRangeError(f"{where} ends at {high}, before offset {offset}")
