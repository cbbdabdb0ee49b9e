"""Rejects answers of a leader that does not yet know everything that was acknowledged."""

from __future__ import annotations

from collections.abc import Callable

import aiokafka.errors as ke
from aiokafka.structs import TopicPartition

from streamq_kafka._naming import partition_label

_BEHIND_SECONDS = 2.0
_FORGOTTEN_SECONDS = 30.0


class LeaderChecks:
    """Remembers which leaders have proved that they are up to date.

    A new leader needs a moment to learn what the leader before it acknowledged. Until then it
    answers a fetch with too few records, and ListOffsets with an error. Each leader is therefore
    sent one ListOffsets request before its fetches are believed.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections: dict[TopicPartition, object] = {}
        self._behind: dict[TopicPartition, tuple[float, float]] = {}

    def is_verified(self, partition: TopicPartition, connection: object) -> bool:
        """Whether this leader has proved that it knows what was acknowledged before it led."""
        return connection is not None and self._connections.get(partition) is connection

    def mark_verified(self, partition: TopicPartition, connection: object) -> None:
        """Note that the leader answered ListOffsets; that holds as long as its connection."""
        self._connections[partition] = connection

    def revoke(self, partition: TopicPartition) -> None:
        """Note that the leader may have changed, or may have been restarted."""
        self._connections.pop(partition, None)

    def check(
        self, partition: TopicPartition, offset: int, high_watermark: int
    ) -> ke.KafkaError | None:
        """Return an error if the leader knows less than the offset that others have returned."""
        if high_watermark >= offset:
            if self._behind:
                self._behind.pop(partition, None)
            return None
        # A new leader needs a moment to learn how much has been replicated. If it is still behind
        # after that, the log is shorter than it was: perhaps a broker that keeps it in memory was
        # restarted.
        now = self._clock()
        label = partition_label(partition)
        since, last = self._behind.get(partition, (now, now))
        if now - last > _FORGOTTEN_SECONDS:
            since = now  # the earlier answers belong to another leader change
        if now - since < _BEHIND_SECONDS:
            self._behind[partition] = since, now
            return ke.LeaderNotAvailableError(f"{label} is not known up to offset {offset} yet")
        self._behind.pop(partition, None)
        return ke.OffsetOutOfRangeError(f"{label} ends at {high_watermark}, before offset {offset}")
